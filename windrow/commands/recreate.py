"""``windrow recreate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show_json

if TYPE_CHECKING:
    from windrow.models.dataset import TrainingDataset
    from windrow.models.service import PredictionService
    from windrow.orchestrate.resources import Stores


@declare("windrow recreate churn\nwindrow recreate churn --release churn-3-f00d42 --json")
@click.argument("service", metavar="SERVICE")
@click.option(
    "--release",
    metavar="ID",
    help="The dataset that this release learned from. Default: the live one, else the newest dataset.",
)
@click.option("--dataset", metavar="ID", help="This training dataset, whether or not a release learned from it.")
@click.pass_context
def command(ctx: click.Context, service: str, *, release: str | None, dataset: str | None, as_json: bool) -> None:
    """Make a training dataset of SERVICE again, from the tables as they stood then, and say what differs and why.

    The stored dataset stays as it is. Exits with 1 if a row differs and no forgotten entity explains it.
    """
    import msgspec

    from windrow.discover import service as declared
    from windrow.models.recreate import recreate
    from windrow.orchestrate.resources import Stores
    from windrow.settings import Settings

    if release is not None and dataset is not None:
        raise click.UsageError("--release and --dataset name one dataset each: give one of them", ctx)
    stores = Stores(Settings.read())
    with progress(f"making a training dataset of {service} again"):
        found = declared(service, project=stores.settings.project)
        made = recreate(_chosen(found, stores, release=release, dataset=dataset), found, stores.lake, stores.metadata)
    if as_json:
        show_json({**msgspec.to_builtins(made), "passed": made.passed})
    else:
        say(f"  {made}")
    ctx.exit(0 if made.passed else 1)


def _chosen(service: PredictionService, stores: Stores, *, release: str | None, dataset: str | None) -> TrainingDataset:
    from windrow.orchestrate.releases import dataset_of, newest_dataset, registry

    if dataset is not None:
        return _named(dataset, service, stores)
    found = registry(stores)
    live = found.live(service.name)
    if release is not None:
        return dataset_of(found.of_service(service.name, release), service, stores)
    # Before the first release the newest dataset is what the next one will learn from.
    return newest_dataset(service, stores) if live is None else dataset_of(live, service, stores)


def _named(id: str, service: PredictionService, stores: Stores) -> TrainingDataset:
    import msgspec

    from windrow.errors import NotFoundError, closest, listed
    from windrow.models.dataset import TrainingDataset

    known = {document["id"]: document for document in stores.metadata.datasets(service.name)}
    if id not in known:
        raise NotFoundError(
            f"service {service.name!r} has no training dataset {id!r}",
            exists=f"It has {listed(known)}",
            next_step=closest(id, known) or "leave it out for the newest",
        )
    return msgspec.convert(known[id], TrainingDataset)
