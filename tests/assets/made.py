"""A service's rows in a lake of a test's own: read, materialised, and made into its training dataset."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.models.worlds import World
from windrow import PredictionService
from windrow.discover import groups
from windrow.features.aggregate import AggregateGroup
from windrow.models.dataset import Split, TrainingDataset, build_dataset, load_split
from windrow.stores.materialize import materialize_group, materialize_source


class Made(NamedTuple):
    """A world, the dataset of a service in it, and its two splits."""

    world: World
    dataset: TrainingDataset
    train: Split
    test: Split


def make(service: PredictionService, home: Path) -> Made:
    """Make the dataset of a service from its simulators."""
    world = World(home)
    for source in service.sources:
        materialize_source(source, world.lake, world.metadata, home)
    for group in groups([service]):
        if not isinstance(group, AggregateGroup):  # these read the events where they are
            materialize_group(group, world.lake, world.metadata)
    now = max(span.known for span in world.metadata.spans().values())
    dataset = build_dataset(service, world.lake, world.metadata, now=now, home=home)
    splits = (load_split(dataset, service.view.contract, name) for name in ("train", "test"))
    return Made(world, dataset, *splits)
