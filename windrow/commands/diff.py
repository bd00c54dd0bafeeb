"""``windrow diff``."""

from __future__ import annotations

from difflib import unified_diff
from typing import TYPE_CHECKING, Any

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, show

if TYPE_CHECKING:
    from windrow.diff import Change
    from windrow.models.comparison import Difference


@declare(
    "windrow diff HEAD~1\nwindrow diff v1.0 v1.1\nwindrow diff ../other-project .\n"
    "windrow diff churn-3-2297fc churn-4-81d0aa"
)
@click.argument("before", metavar="A")
@click.argument("after", metavar="[B]", default=".")
def command(before: str, after: str, *, as_json: bool) -> None:
    """Show what two commits (or project folders) declare differently, or what two releases differ in.

    B is the working tree unless it is given; for a release, the one that is live. Of releases: features, data,
    metrics, gates, code, environment.
    """
    if (differences := _of_releases(before, after)) is not None:
        title, empty = f"Releases: {before} -> {after if after != '.' else 'live'}", "The releases are the same."
        rows = [_row(found, as_json=as_json) for found in differences]
        show(rows, as_json=as_json, title=title, empty=empty)
        return
    from windrow.diff import diff
    from windrow.settings import Settings

    with progress(f"reading the declarations of {before} and {after}"):
        changes = diff(before, after, project=Settings.read().project)
    rows = [_row(change, as_json=as_json) for change in changes]
    show(rows, as_json=as_json, title=f"Declarations: {before} -> {after}", empty="The declarations are the same.")


def _of_releases(before: str, after: str) -> list[Difference] | None:
    """Return what two releases differ in, or None where the names are not of releases."""
    from windrow.environment import is_there
    from windrow.models.comparison import compare_releases
    from windrow.models.registry import Registry
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    settings = Settings.read()
    if not is_there(settings.metadata):
        return None
    metadata = Metadata(settings.metadata)
    owners = {row.id: service for service in metadata.services() for row in metadata.releases(service)}
    if before not in owners and after not in owners:
        return None
    registry = Registry(metadata, settings.folder("releases"))
    with progress(f"comparing {before} with {after}"):
        old = registry.release(before)
        new = registry.live(old.service) if after == "." else registry.release(after)
        return compare_releases(old, new or old, metadata)


def _row(found: Change | Difference, *, as_json: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {name: getattr(found, name) for name in found.__struct_fields__}
    if as_json:
        return facts
    return {
        **{n: v for n, v in facts.items() if n not in ("before", "after")},
        "change": _told(found.before, found.after),
    }


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
