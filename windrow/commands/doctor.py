"""``windrow doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show, show_json

if TYPE_CHECKING:
    from rich.text import Text

    from windrow.doctor import Without

_HOW = {
    "value": "its values", "filter": "a filter", "join": "a join", "group": "grouping", "key": "a key",
    "time": "its time", "label": "the label", "rows": "its rows", "definition": "its definition",
    "assumed": "perhaps: declare reads=",
}  # fmt: skip


@declare("windrow doctor\nwindrow doctor --without payments.amount")
@click.option(
    "--without", metavar="COLUMN", help="Say what breaks if this column goes; exit with 1 if a live release does."
)
@click.pass_context
def command(ctx: click.Context, *, without: str | None, as_json: bool) -> None:
    """Prove each configured part end to end; exit with 1 if one fails.

    What is written is marked so that it never counts, and removed where it can be.
    """
    failed = _without(without, as_json=as_json) if without is not None else _examine(as_json=as_json)
    if failed:
        ctx.exit(1)


def _examine(*, as_json: bool) -> bool:
    from windrow.doctor import examine
    from windrow.settings import Settings

    with progress("examining") as step:
        findings = examine(Settings.read(), on_part=lambda part: step(f"examining: {part}"))
    if as_json:
        rows = [{name: getattr(f, name) for name in f.__struct_fields__} for f in findings]
    else:
        rows = [{"part": f.part, "": _mark(f.holds), "result": f.result, "next step": f.next_step} for f in findings]
    show(rows, as_json=as_json, title="windrow doctor")
    failed = [f.part for f in findings if not f.holds]
    if failed:
        say(f"{len(failed)} of {len(findings)} parts fail: {', '.join(failed)}", as_json=as_json, style="red")
    return bool(failed)


def _without(column: str, *, as_json: bool) -> bool:
    from windrow.doctor import without
    from windrow.settings import Settings

    with progress(f"looking for what needs {column}"):
        found = without(Settings.read(), column)
    if as_json:
        show_json(found)
        return bool(found.breaks)
    rows = [
        {
            "what": need.kind,
            "name": need.name,
            "effect": need.effect,
            "by": _HOW.get(need.how, need.how),
            "through": need.through,
        }
        for need in found.needs
    ]
    show(rows, as_json=False, title=f"Without {found.column}", empty=f"Nothing needs {found.column}.")
    say(_verdict(found), style="red" if found.breaks else "")
    return bool(found.breaks)


def _verdict(found: Without) -> str:
    if found.breaks:
        many = f"{len(found.breaks)} live releases break" if len(found.breaks) > 1 else "1 live release breaks"
        return f"{many}: {', '.join(found.breaks)}"
    return "No live release breaks."


def _mark(holds: bool) -> Text:
    from rich.text import Text

    return Text("holds", style="green") if holds else Text("FAILS", style="red")
