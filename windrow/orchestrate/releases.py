"""Training datasets and releases as the assets need them: the newest, the live one, and a new one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.errors import ModelError, NotFoundError
from windrow.models.service import PredictionService
from windrow.orchestrate.factories import Events
from windrow.orchestrate.facts import Metadata
from windrow.orchestrate.resources import Stores

if TYPE_CHECKING:
    from windrow.models.bundle import Bundle
    from windrow.models.dataset import TrainingDataset
    from windrow.models.registry import Registry
    from windrow.models.release import Release


def newest_dataset(service: PredictionService, stores: Stores) -> "TrainingDataset":
    """Return the service's newest training dataset; raise `NotFoundError` before the first."""
    from windrow.models.dataset import TrainingDataset

    documents = stores.metadata.datasets(service.name)
    if not documents:
        raise NotFoundError(
            f"service {service.name!r} has no training dataset yet",
            next_step=f"materialize {service.name}/training_dataset",
        )
    return msgspec.convert(documents[-1], TrainingDataset)


def dataset_of(release: "Release", service: PredictionService, stores: Stores) -> "TrainingDataset":
    """Return the training dataset that a release was made from."""
    from windrow.models.dataset import TrainingDataset

    for document in stores.metadata.datasets(service.name):
        if document["id"] == release.dataset.id:
            return msgspec.convert(document, TrainingDataset)
    raise NotFoundError(
        f"training dataset {release.dataset.id!r} of release {release.id!r} is gone",
        next_step=f"materialize {service.name}/training_dataset and {service.name}/model",
    )


def registry(stores: Stores) -> "Registry":
    """Return the project's registry."""
    from windrow.models.registry import Registry

    return Registry(stores.metadata, stores.settings.folder("releases"))


def live_bundle(service: PredictionService, stores: Stores) -> "Bundle":
    """Return the release that answers now, loaded; raise `NotFoundError` before the first."""
    found = registry(stores)
    release = found.live(service.name)
    if release is None:
        raise NotFoundError(
            f"service {service.name!r} has no release yet", next_step=f"materialize {service.name}/model"
        )
    return found.load(release.id)


def saved_estimator(path: Path, service: PredictionService) -> Any:
    """Return the fitted estimator that a notebook saved; types that windrow does not trust are refused."""
    from windrow.models.runtime import SklearnModel

    if not path.is_file():
        raise ModelError(f"the model that the notebook saved is gone ({path.name})", next_step="run the notebook again")
    task = "classification" if service.label.binary else "regression"
    estimator = SklearnModel.load(path.read_bytes(), task=task, where=path.name).estimator  # type: ignore[arg-type]
    path.unlink()
    return estimator


def make_release(
    service: PredictionService,
    dataset: "TrainingDataset",
    stores: Stores,
    *,
    estimator: Any = None,
    extra: Metadata | None = None,
) -> Events:
    """Train (or take `estimator`), compile, judge and register; deploy the release if every gate is cleared."""
    yield NotImplemented
