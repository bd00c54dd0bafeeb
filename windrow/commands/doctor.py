"""``windrow doctor``."""

from __future__ import annotations

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show


@declare("windrow doctor")
@click.pass_context
def command(ctx: click.Context, *, as_json: bool) -> None:
    """Prove each configured part end to end; exit with 1 if one fails.

    What is written is marked so that it never counts, and removed where it can be.
    """
    from windrow.doctor import examine
    from windrow.settings import Settings

    with progress("examining") as step:
        findings = examine(Settings.read(), on_part=lambda part: step(f"examining: {part}"))
    if as_json:
        rows = [{name: getattr(f, name) for name in f.__struct_fields__} for f in findings]
    else:
        rows = [
            {"part": f.part, "": _mark(f.holds), "result": _plain(f.result), "next step": _plain(f.next_step)}
            for f in findings
        ]
    show(rows, as_json=as_json, title="windrow doctor")
    failed = [f.part for f in findings if not f.holds]
    if failed:
        say(f"[red]{len(failed)} of {len(findings)} parts fail:[/red] {', '.join(failed)}", as_json=as_json)
        ctx.exit(1)


def _mark(holds: bool) -> str:
    return "[green]holds[/green]" if holds else "[red]FAILS[/red]"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # rich reads brackets as style
