"""What a notebook says of its model, held against what is measured: a figure has to be what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from windrow.errors import ModelError
from windrow.models.training import evaluate

if TYPE_CHECKING:
    from windrow.models.dataset import TrainingDataset
    from windrow.models.service import PredictionService

_CLOSE = 0.005  # of a share, or of the value where that is larger


def check_claims(
    service: PredictionService, dataset: TrainingDataset, estimator: Any, claimed: Mapping[str, Any]
) -> None:
    """Raise if a figure that is called as one of the service's metrics is not that metric on the test split.

    Parameters
    ----------
    claimed
        Name -> figure, as a notebook gave them to ``report(...)``; other names are its own business.

    Raises
    ------
    ModelError
        Naming the figure, the measured one, and the metric that the figure really is, if it is one.
    """
    names = [name for name in claimed if name in service.metrics]
    measured = evaluate(service, dataset, estimator)["metrics"] if names else {}
    for name in names:
        if name in measured and not _close(claimed[name], measured[name]):
            really = [other for other, value in measured.items() if _close(claimed[name], value)]
            raise ModelError(
                f"the notebook of service {service.name!r} reports {name} {claimed[name]:g}, but on the test split {name} is {measured[name]:g}",
                exists=f"{claimed[name]:g} is its {really[0]}" if really else "",
                next_step=f"report it by its own name, or leave it out: windrow measures {name} itself",
            )


def _close(claimed: float, measured: float) -> bool:
    return abs(claimed - measured) <= _CLOSE * max(1.0, abs(measured))
