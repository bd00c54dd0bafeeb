"""``windrow materialize``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from windrow.commands.run import show_run, told
from windrow.commands.screen import command as declare
from windrow.commands.screen import progress

if TYPE_CHECKING:
    from windrow.features.group import FeatureGroup
    from windrow.models.service import PredictionService


@declare("windrow materialize customer_account")
@click.argument("group", metavar="GROUP")
def command(group: str, *, as_json: bool) -> None:
    """Bring one feature GROUP up to date: its sources are read, its rows checked, committed and published online."""
    from windrow.discover import services
    from windrow.orchestrate.run import run_service
    from windrow.settings import Settings

    settings = Settings.read()
    service, wanted = _owner(services(project=settings.project), group)
    with progress(f"materializing {wanted.key}") as step:
        done = run_service(service.name, settings, select=_below(wanted), on_step=told(step))
    show_run(done, as_json=as_json)


def _owner(found: dict[str, PredictionService], name: str) -> tuple[PredictionService, FeatureGroup]:
    from windrow.discover import groups
    from windrow.errors import UnknownNameError

    known: list[str] = []
    for service in found.values():
        for group in groups([service]):
            if name in (group.name, group.table_name, group.key):
                return service, group
            known.append(group.name)
    raise UnknownNameError("feature group", name, known, where="the project")


def _below(group: FeatureGroup) -> list[str]:
    """Return the keys of a group and of all that it is made from."""
    from windrow.features.group import FeatureGroup as Group

    keys = [group.key]
    for item in group.inputs.values():
        keys += _below(item) if isinstance(item, Group) else [item.key]
    return list(dict.fromkeys(keys))
