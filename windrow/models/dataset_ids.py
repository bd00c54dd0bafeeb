"""Training datasets by their ids, which are no ids of releases: a model and the rows that it learned from are two things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from windrow.errors import DataError, NotFoundError, UnknownNameError
from windrow.models.dataset import TrainingDataset
from windrow.models.release import decode_release

if TYPE_CHECKING:
    from windrow.stores.metadata import Metadata


def dataset_with(metadata: Metadata, service: str, id: str | None) -> TrainingDataset:
    """Return a training dataset of a service by its id, or the newest.

    Raises
    ------
    NotFoundError
        If the service has none yet.
    DataError
        If the id is that of a release; says which dataset that release was made from.
    UnknownNameError
        If it is nobody's.
    """
    made = {document["id"]: document for document in metadata.datasets(service)}
    if not made:
        raise NotFoundError(f"service {service!r} has no training dataset yet", next_step=f"run windrow run {service}")
    if id is not None and id not in made:
        _refuse_release(metadata, service, id)
        raise UnknownNameError("training dataset", id, list(made), where=f"service {service!r}")
    return msgspec.convert(made[id] if id is not None else list(made.values())[-1], TrainingDataset)


def _refuse_release(metadata: Metadata, service: str, id: str) -> None:
    documents = {row.id: row.document for row in metadata.releases(service)}
    if id in documents:
        of = decode_release(documents[id], where=f"release {id!r}").dataset.id
        raise DataError(
            f"{id!r} is a release of service {service!r}, and no training dataset",
            exists=f"It was made from the training dataset {of!r}",
            next_step=f"give id={of!r}",
        )
