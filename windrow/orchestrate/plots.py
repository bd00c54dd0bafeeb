"""Pictures of a model's held-out answers, small enough to live in an event log."""

import base64
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import dagster as dg
import numpy as np
from numpy.typing import NDArray

_SIZE, _DPI = (4.5, 3.2), 80
_POINTS = 2000


def picture(
    predicted: NDArray[np.float64], actual: NDArray[np.float64], *, binary: bool
) -> dg.MarkdownMetadataValue | None:
    """Return a ROC curve (classes) or predicted against actual (numbers), or None without matplotlib.

    Parameters
    ----------
    predicted
        Probability of class 1 or value, shape (n,).
    actual
        Label, shape (n,).
    """
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    (_roc if binary else _scatter)(axes, predicted, actual)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()})")


def _roc(axes: Any, predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> None:
    from windrow.models.curves import roc

    axes.plot(*roc(predicted, actual), color="tab:orange")
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":")
    axes.set(title="ROC on the test split", xlabel="false positive rate", ylabel="true positive rate")


def _scatter(axes: Any, predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> None:
    step = max(1, len(actual) // _POINTS)
    axes.scatter(actual[::step], predicted[::step], s=4, alpha=0.4, color="tab:orange", edgecolors="none")
    ends = [float(actual.min()), float(actual.max())]
    axes.plot(ends, ends, color="gray", linewidth=0.8, linestyle=":")
    axes.set(title="Test split", xlabel="actual", ylabel="predicted")
