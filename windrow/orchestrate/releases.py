"""Training datasets and releases as the assets need them: the newest, the live one, and a new one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import msgspec

from windrow.errors import ModelError, NotFoundError
from windrow.models.service import PredictionService
from windrow.orchestrate.checks import gate_results
from windrow.orchestrate.factories import Events
from windrow.orchestrate.facts import Metadata, comparison, report_address, table_of
from windrow.orchestrate.resources import Stores
from windrow.schema import fingerprint

Say = Callable[[str], None]

if TYPE_CHECKING:
    from windrow.models.bundle import Bundle
    from windrow.models.dataset import TrainingDataset
    from windrow.models.fitting import Fitted
    from windrow.models.registry import Registry
    from windrow.models.release import Release


def newest_dataset(service: PredictionService, stores: Stores) -> "TrainingDataset":
    """Return the service's newest training dataset; raise `NotFoundError` before the first."""
    from windrow.models.dataset import TrainingDataset

    documents = stores.metadata.datasets(service.name)
    if not documents:
        raise NotFoundError(
            f"service {service.name!r} has no training dataset yet",
            next_step=f"run `windrow run {service.name}`",
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
        next_step=f"run `windrow run {service.name}`, which makes both anew",
    )


def registry(stores: Stores) -> "Registry":
    """Return the project's registry."""
    from windrow.models.registry import Registry

    return Registry(stores.metadata, stores.settings.folder("releases"), clock=stores.settings.clock)


def bundle_of(service: PredictionService, stores: Stores, id: str) -> "Bundle":
    """Return one release of a service, loaded; raise `NotFoundError` with those that it has."""
    found = registry(stores)
    return found.load(found.of_service(service.name, id).id)


def live_bundle(service: PredictionService, stores: Stores) -> "Bundle":
    """Return the release that answers now, loaded; raise `NotFoundError` before the first."""
    found = registry(stores)
    release = found.live(service.name)
    if release is None:
        raise NotFoundError(
            f"service {service.name!r} has no release yet", next_step=f"run `windrow run {service.name}`"
        )
    return found.load(release.id)


def saved_estimator(path: Path, service: PredictionService, *, trials: Sequence[Any] = ()) -> "Fitted":
    """Return the fitted estimator that a notebook saved, with its trials; types that windrow does not trust are refused."""
    from windrow.models.fitting import Fitted, task_for
    from windrow.models.runtime import SklearnModel
    from windrow.models.search import Trial

    if not path.is_file():
        raise ModelError(f"the model that the notebook saved is gone ({path.name})", next_step="run the notebook again")
    estimator = SklearnModel.load(path.read_bytes(), task=task_for(service), where=path.name).estimator
    path.unlink()
    return Fitted(estimator, msgspec.convert(list(trials), list[Trial]))


class Made(NamedTuple):
    """What a notebook made: a fitted estimator, the fingerprint of the code that did, and what it reported."""

    estimator: Any = None
    code: str | None = None
    facts: Metadata = {}  # noqa: RUF012 - read only


def make_release(
    service: PredictionService,
    dataset: "TrainingDataset",
    stores: Stores,
    *,
    made: Made = Made(),  # noqa: B008 - immutable
    say: Say | None = None,
) -> Events:
    """Train (or take what a notebook `made`), compile, prove, judge and register; yield the gates' checks and the release.

    A candidate that fails a gate is kept in the registry with its figures, is not deployed, and leaves
    no materialisation.
    """
    from windrow.models.training import train

    release = train(
        service, dataset, registry=registry(stores), metadata=stores.metadata, estimator=made.estimator, code=made.code, say=say
    )  # fmt: skip
    yield from gate_results(service, release.gates, at=release.created_at)
    if not release.passed:
        failed = "; ".join(gate.why for gate in release.failed(release.created_at))
        raise ModelError(
            f"release {release.id!r} does not clear its gates: {failed}",
            exists=f"Live is {stores.metadata.live(service.name) or 'none'}",
            next_step="improve features or model and train again, or change the gate",
        )
    facts: Metadata = {
        "model card": dg.MetadataValue.url(f"{report_address(stores.settings)}/ui/releases/{release.id}")
    }
    facts |= {**_release_facts(release), **_picture(service, dataset, release, stores), **made.facts}
    yield dg.MaterializeResult(metadata=facts, data_version=dg.DataVersion(_content(release)))


def _content(release: "Release") -> str:
    # Training the same rows in the same way gives the same files: then nothing below is out of date.
    # Of several proven models the one that serves counts: the others say the same.
    from windrow.models.bundle import MODEL_FILES

    return fingerprint([release.files[MODEL_FILES[release.backend]], release.view_fingerprint])


def _release_facts(release: "Release") -> Metadata:
    numbers = {n: v for n, v in release.metrics.items() if isinstance(v, int | float)}
    shown = {name: dg.MetadataValue.float(float(value)) for name, value in numbers.items()}
    facts: Metadata = {"release": release.id, "metrics": comparison(numbers, _others(release)), **shown}
    # Numbers, so that the UI plots each over the versions of the asset.
    facts |= {
        f"{words} {name}": value
        for words, of in _others(release).items()
        for name, value in of.items()
        if name in numbers
    }
    facts |= {"code": release.evidence["code"], "data up to _seq": str(release.seq)}
    facts |= {"answers with": release.backend, "parity": dg.MetadataValue.json(release.parity)}
    facts |= {"answers batches with": release.batch_backend or release.backend}
    facts |= {f"{name}, rows/s in batch": way.rows_per_second for name, way in release.backends.items()}
    facts |= _search_facts(release.evidence.get("search"))
    facts |= {"why not compiled": release.backend_reason} if release.backend_reason else {}
    return {**facts, "dataset": release.dataset.id, "dataset rows": release.dataset.rows}


def _search_facts(found: Mapping[str, Any] | None) -> Metadata:
    if found is None:
        return {}
    names = list(dict.fromkeys(name for trial in found["best"] for name in trial["parameters"]))
    rows = [[str(t["rank"]), *(t["parameters"].get(n, "") for n in names), _score(t["mean"])] for t in found["best"]]
    return {"candidates": found["candidates"], "search": table_of(["rank", *names, "mean score"], rows)}


def _score(mean: float | None) -> str:
    return "could not be fitted" if mean is None else f"{mean:.5g}"


def _others(release: "Release") -> dict[str, dict[str, float]]:
    names = {"train": "train", "validation": "validation", "validation baseline": "validation_baseline"}
    found = {words: release.evidence.get(name, {}) for words, name in names.items()}
    return {"baseline": release.baseline, **{words: figures for words, figures in found.items() if figures}}


def _picture(service: PredictionService, dataset: "TrainingDataset", release: "Release", stores: Stores) -> Metadata:
    from windrow.models.dataset import load_split
    from windrow.orchestrate.plots import picture

    test = load_split(dataset, release.contract, "test")
    predicted = registry(stores).load(release.id).predict(test.frame)
    drawn = picture(predicted, test.y, task=release.task, classes=release.classes)
    return {} if drawn is None else {"test split": drawn}
