"""``windrow forget``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show, show_json

if TYPE_CHECKING:
    from windrow.settings import Settings
    from windrow.stores.forgetting.erasure import Values
    from windrow.stores.forgetting.forget import Forgotten, Places


@declare("windrow forget customer 7590-VHVEG --dry-run\nwindrow forget card 4021 --yes --json")
@click.argument("entity", metavar="ENTITY")
@click.argument("key", metavar="KEY...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Show what would go; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(entity: str, key: tuple[str, ...], *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Erase the ENTITY with this KEY (one value per part) from every table, file and store, for good.

    Sources, feature groups, quarantine, training datasets, predictions, sinks, the prediction log and the
    online store are written again without it; old versions of tables go at once. A tombstone with a hash of
    the key stays. Models that learned from it, aggregates of other entities, backups and the files that
    sources are read from are not touched.
    """
    from windrow.settings import Settings
    from windrow.stores.forgetting.forget import forget, look
    from windrow.stores.metadata import Metadata

    settings = Settings.read()
    with progress("reading the project"):
        one, where = _meant(entity, key, settings)
    if dry_run:
        with progress(f"looking for the {entity}"):
            found = look(one, where, settings)
    else:
        # Programs have no one to answer: they say --yes.
        if not yes:
            click.confirm(f"Erase this {entity} everywhere? It cannot be taken back", abort=True, err=True)
        with progress(f"erasing the {entity}"):
            found = forget(one, where, settings, Metadata(settings.metadata))
    _tell(found, dry_run=dry_run, as_json=as_json)


def _meant(name: str, given: tuple[str, ...], settings: Settings) -> tuple[Values, Places]:
    """Return whom somebody means, and where they may be; nothing is asked before both are known."""
    from windrow.discover import groups, services
    from windrow.models.places import entity, places
    from windrow.stores.forgetting.forget import typed_key

    found = services(project=settings.project)
    declared = groups(found.values())
    one = entity(name, declared)
    return typed_key(one, given), places(one, found.values(), declared)


def _tell(found: Forgotten, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        show_json({field: getattr(found, field) for field in found.__struct_fields__} | {"dry_run": dry_run})
        return
    rows = [{"where": place, "rows": count} for place, count in sorted(found.rows.items())]
    title = f"{'Would go' if dry_run else 'Gone'}: {found.entity}"
    show(rows, as_json=False, title=title, empty=f"Nothing of this {found.entity} is stored.")
    if not found.searched and not dry_run:
        say("The key is too short to be searched for in notebooks and reports: look through them.")
    if found.remains and not dry_run:
        say("The key can still be read in these files, which windrow cannot take apart; look at them and remove them:")
        for path in found.remains:
            say(f"  {path}")
