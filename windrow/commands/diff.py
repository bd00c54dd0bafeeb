"""``windrow diff``."""

from __future__ import annotations

from difflib import unified_diff

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, show


@declare("windrow diff HEAD~1\nwindrow diff v1.0 v1.1\nwindrow diff ../other-project .")
@click.argument("before", metavar="A")
@click.argument("after", metavar="[B]", default=".")
def command(before: str, after: str, *, as_json: bool) -> None:
    """Show what two commits (or project folders) declare differently.

    B is the working tree unless it is given.
    """
    from windrow.diff import diff
    from windrow.settings import Settings

    with progress(f"reading the declarations of {before} and {after}"):
        changes = diff(before, after, project=Settings.read().project)
    if as_json:
        rows = [{f: getattr(c, f) for f in c.__struct_fields__} for c in changes]
    else:
        rows = [{"service": c.service, "part": c.part, "change": _told(c.before, c.after)} for c in changes]
    show(rows, as_json=as_json, title=f"Declarations: {before} -> {after}", empty="The declarations are the same.")


def _told(before: str | None, after: str | None) -> str:
    if before is None or after is None:
        return f"added: {_short(after)}" if before is None else f"removed: {_short(before)}"
    if "\n" in before + after:
        lines = list(unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[2:]
        return "\n".join(line for line in lines if not line.startswith("@@"))
    return f"{before} -> {after}"


def _short(text: str | None) -> str:
    lines = (text or "").splitlines() or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... ({len(lines)} lines)"
