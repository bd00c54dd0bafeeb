"""Pictures of a model's held-out answers, small enough to live in an event log."""

import base64
from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import dagster as dg
import numpy as np
from numpy.typing import NDArray

_SIZE, _DPI = (4.5, 3.2), 80
_POINTS = 2000
_NAMED = 10


def picture(
    predicted: NDArray[np.float64], actual: NDArray[np.float64], *, task: str, classes: Sequence[str] = ()
) -> dg.MarkdownMetadataValue | None:
    """Return a ROC curve (classes) or predicted against actual (numbers), or None without matplotlib.

    Of three classes or more: the ROC curve of each against all others, and how often each was named as which.

    Parameters
    ----------
    predicted
        Probability of class 1 or value, shape (n,); of three classes or more probabilities, (n, classes).
    actual
        Label, shape (n,).
    task
        Of the release.
    classes
        Names of three classes or more, in the order of their places.
    """
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    if task == "multiclass":
        figure = Figure(figsize=(2 * _SIZE[0], _SIZE[1]), layout="constrained")
        _rocs(figure.add_subplot(1, 2, 1), predicted, actual, classes)
        _confusion(figure.add_subplot(1, 2, 2), predicted, actual, classes)
    else:
        figure = Figure(figsize=_SIZE, layout="constrained")
        (_roc if task == "classification" else _scatter)(figure.add_subplot(), predicted, actual)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()})")


def _roc(axes: Any, predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> None:
    from windrow.models.curves import roc

    axes.plot(*roc(predicted, actual), color="tab:orange")
    _frame_roc(axes)


def _rocs(axes: Any, predicted: NDArray[np.float64], actual: NDArray[np.float64], classes: Sequence[str]) -> None:
    from windrow.models.curves import rocs_of

    for name, rates in rocs_of(actual, predicted, classes):
        axes.plot(*rates, label=_plain(name), linewidth=1)
    if len(classes) <= _NAMED and axes.lines:
        axes.legend(title="against all others", fontsize="small", title_fontsize="small")
    _frame_roc(axes)


def _confusion(axes: Any, predicted: NDArray[np.float64], actual: NDArray[np.float64], classes: Sequence[str]) -> None:
    from windrow.models.curves import confusion

    counts = confusion(actual, predicted)
    axes.imshow(counts, cmap="Oranges", vmin=0)
    axes.set(title="Rows of the test split", xlabel="predicted", ylabel="actual")
    if len(classes) > _NAMED:
        return
    names = [_plain(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (row, column), count in np.ndenumerate(counts):
        dark = count > counts.max() / 2
        axes.text(column, row, f"{count:,}", ha="center", va="center", color="white" if dark else "black")


def _plain(name: str) -> str:
    """Return a name as text: matplotlib reads dollars as mathematics, and leaves a line out that starts with ``_``."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _frame_roc(axes: Any) -> None:
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":")
    axes.set(title="ROC on the test split", xlabel="false positive rate", ylabel="true positive rate")


def _scatter(axes: Any, predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> None:
    step = max(1, len(actual) // _POINTS)
    axes.scatter(actual[::step], predicted[::step], s=4, alpha=0.4, color="tab:orange", edgecolors="none")
    ends = [float(actual.min()), float(actual.max())]
    axes.plot(ends, ends, color="gray", linewidth=0.8, linestyle=":")
    axes.set(title="Test split", xlabel="actual", ylabel="predicted")
