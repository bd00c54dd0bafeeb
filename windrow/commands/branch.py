"""``windrow branch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show, show_json

if TYPE_CHECKING:
    from windrow.models.prediction_diff import PredictionDiff
    from windrow.settings import Settings
    from windrow.stores.branching import Branch

_MEBIBYTE = 1 << 20


@declare(
    "windrow branch trial\nWINDROW_BRANCH=trial windrow run churn\nwindrow branch trial --diff churn\nwindrow branch trial --remove"
)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--diff", "service", metavar="SERVICE", help="Compare its predictions with the branch's, row by row.")
@click.option("--days", type=click.IntRange(1), help="With --diff: rows of so many days, not the newest of each key.")
@click.option("--remove", is_flag=True, help="Remove the branch and all that was written in it.")
@click.pass_context
def command(
    ctx: click.Context, name: str | None, service: str | None, *, days: int | None, remove: bool, as_json: bool
) -> None:
    """Make a trial of everything stored, or list the branches there are.

    A branch reads the tables as they stand now, without a copy, and writes only its own. Every command
    works in it with WINDROW_BRANCH=NAME.
    """
    from windrow.settings import Settings

    if name is None and (remove or service is not None):
        raise click.UsageError("name the branch: windrow branch NAME --remove, or --diff SERVICE", ctx)
    if remove and service is not None:
        raise click.UsageError("--remove and --diff ask for two things: give one of them", ctx)
    if days is not None and service is None:
        raise click.UsageError("--days says how much --diff SERVICE compares: give both", ctx)
    settings = Settings.read()
    if name is None:
        _list(settings, as_json=as_json)
    elif remove:
        _remove(settings, name, as_json=as_json)
    elif service is not None:
        _diff(settings, name, service, days=days, as_json=as_json)
    else:
        _make(settings, name, as_json=as_json)


def _list(settings: Settings, *, as_json: bool) -> None:
    from windrow.stores.branching import branches

    rows = [_row(branch) for branch in branches(settings)]
    show(rows, as_json=as_json, title=f"Branches of {settings.home}", empty="None yet. Next: windrow branch NAME")


def _row(branch: Branch) -> dict[str, Any]:
    from windrow.clock import from_micros

    made = from_micros(branch.made_at).isoformat(timespec="seconds")
    shared = round(branch.linked / _MEBIBYTE, 1)
    return {
        "branch": branch.name,
        "made": made,
        "tables": len(branch.tables),
        "shared_mib": shared,
        "home": branch.home,
    }


def _make(settings: Settings, name: str, *, as_json: bool) -> None:
    from windrow.stores.branching import make_branch

    with progress(f"branching {settings.home}"):
        made = make_branch(settings, name)
    if as_json:
        show_json(made)
    shared = f"{len(made.tables)} tables, {made.linked / _MEBIBYTE:.1f} MiB shared and not copied"
    say(f"Branch {name}: {shared}. Next: WINDROW_BRANCH={name} windrow run SERVICE", as_json=as_json)


def _remove(settings: Settings, name: str, *, as_json: bool) -> None:
    from windrow.stores.branching import remove_branch

    removed = remove_branch(settings, name)
    if as_json:
        show_json(removed)
    say(f"Branch {name} is removed.", as_json=as_json)


def _diff(settings: Settings, name: str, service: str, *, days: int | None, as_json: bool) -> None:
    with progress(f"scoring {service} with both releases"):
        found = _compared(settings, name, service, days=days)
    if as_json:
        show_json(found)
        return
    if found.before == found.after:
        say(f"Branch {name} answers with {found.after} too. Next: WINDROW_BRANCH={name} windrow run {service}")
        return
    crossed = "" if found.classes is None else f", {found.classes} to another class"
    say(f"{found.before} -> {found.after}: {found.changed} of {found.rows} predictions differ{crossed}.")
    say(
        f"By {found.mean:.3g} on average and {found.most:.3g} at most; {found.unanswered} rows only one of them answers."
    )
    if found.by_class:
        rows = [
            {"class": name, "mean": f"{of.mean:.3g}", "most": f"{of.most:.3g}"} for name, of in found.by_class.items()
        ]
        show(rows, as_json=False, title="By class", empty="")
    show(found.largest, as_json=False, title="The largest differences", empty="Every answer is the same.")


def _compared(settings: Settings, name: str, service: str, *, days: int | None) -> PredictionDiff:
    from windrow.clock import duration
    from windrow.discover import pick, services
    from windrow.models.prediction_diff import prediction_diff
    from windrow.stores.branching import branch_of
    from windrow.stores.engine import engine
    from windrow.stores.lake import Lake

    branch_of(settings, name)
    trial = settings.branch(name)
    declared = pick(services(project=settings.project), service)
    before, after = _live(settings, service), _live(trial, service)
    now = _now(trial, declared)
    start = None if days is None else now - days * duration("1d")
    # Both on the branch's tables: what differs is the definition and the model, and not the data.
    return prediction_diff(declared, before, after, Lake(trial.lake), engine(), now=now, start=start)


def _live(settings: Settings, service: str) -> Any:
    from windrow.errors import NotFoundError
    from windrow.models.registry import Registry
    from windrow.stores.metadata import Metadata

    metadata = Metadata(settings.metadata)
    try:
        registry = Registry(metadata, settings.folder("releases"))
        live = registry.live(service)
        if live is None:
            raise NotFoundError(f"service {service!r} has no live release", next_step=f"run windrow run {service}")
        return registry.load(live.id)
    finally:
        metadata.close()


def _now(settings: Settings, service: Any) -> int:
    from windrow.orchestrate.resources import Stores

    return Stores(settings).now(service.sources)
