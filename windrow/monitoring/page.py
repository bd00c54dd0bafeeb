"""The report page: the only module that knows Evidently.

Evidently draws the distributions; the distance, its threshold and the verdict are windrow's, given to
Evidently as a statistical test of its own, so that page and verdict never differ. Importing Evidently
takes seconds and hundreds of megabytes: it is imported when a page is drawn, never before.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import MISSING_TEXT, Frame
from windrow.monitoring.verdict import ColumnVerdict
from windrow.telemetry import switch_off

if TYPE_CHECKING:
    import pandas as pd

TEST_NAME = "windrow_jensenshannon"
_SHOWN_CATEGORIES, _SHOWN_LETTERS = 30, 60

# Nothing may be fetched or sent by the page, whatever the libraries inside it would like to load.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
_STYLE = "font-family: sans-serif; padding: 2em; background: #fff; color: #111"
_EMPTY = "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='UTF-8'>\n</head>\n<body>\n</body>\n</html>\n"


class Page(msgspec.Struct, frozen=True):
    """One HTML page, and a note ("" if there is none) when the distributions could not be drawn."""

    html: str
    note: str = ""


def draw(title: str, verdicts: Sequence[ColumnVerdict], reference: Frame, current: Frame) -> Page:
    """Return one HTML page that needs no network: the verdicts as a table, and Evidently's distributions.

    Parameters
    ----------
    title
        Heading of the page.
    verdicts
        One row of the table each; those with a distance are drawn.
    reference, current
        The arrays that were compared; columns may differ in length.
    """
    drawn, note = [v for v in verdicts if v.distance is not None], ""
    try:
        page = _evidently_page(drawn, reference, current) if drawn else _EMPTY
    except Exception as error:  # noqa: BLE001 - drift must be reported even where another library cannot draw it
        page, note = (
            _EMPTY,
            f"Evidently could not draw the distributions ({type(error).__name__}); the verdicts do not need it",
        )
    page = page.replace("https://cdn.plot.ly/", "")  # only maps would load from there, and there are none
    head = f'<head>\n<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<title>{escape(title)}</title>'
    body = "<body>\n" + _table(title, verdicts, note)
    return Page(page.replace("<head>", head, 1).replace("<body>", body, 1), note)


def _evidently_page(drawn: Sequence[ColumnVerdict], reference: Frame, current: Frame) -> str:
    switch_off()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations, at import and while drawing
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        _register({v.feature: v.distance for v in drawn if v.distance is not None})
        numbers, words = ([v.feature for v in drawn if v.kind == kind] for kind in ("number", "text"))
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=words)
        shown = [_shown(v, reference[v.feature], current[v.feature]) for v in drawn]
        sides = [_pandas({v.feature: pair[side] for v, pair in zip(drawn, shown, strict=True)}) for side in (0, 1)]
        before, after = (Dataset.from_pandas(frame, data_definition=definition) for frame in sides)
        metrics = [ValueDrift(column=v.feature, method=TEST_NAME, threshold=v.threshold) for v in drawn]
        page: str = Report(metrics).run(after, before).get_html_str(as_iframe=False)
    return page


def _register(distances: dict[str, float]) -> None:
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def known(reference: pd.Series[Any], current: pd.Series[Any], kind: Any, threshold: float) -> tuple[float, bool]:
        distance = distances[str(reference.name)]
        return distance, distance > threshold

    kinds = [ColumnType.Numerical, ColumnType.Categorical]
    register_stattest(StatTest(TEST_NAME, "Jensen-Shannon distance over bins of equal share", kinds), known)


def _shown(verdict: ColumnVerdict, before: NDArray[Any], after: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if verdict.kind == "number":
        return _finite(before), _finite(after)
    frequent = Counter(before.tolist()) + Counter(after.tolist())
    kept = {word for word, _ in frequent.most_common(_SHOWN_CATEGORIES)}
    return _words(before, kept), _words(after, kept)


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    # float64, because a histogram of float32 values that lie close together has no room for its bins.
    return np.where(np.isfinite(values), values, np.nan).astype(np.float64)


def _words(values: NDArray[Any], kept: set[str]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = [_plain(v) if v in kept else "(other)" for v in values]
    array[values == MISSING_TEXT] = np.nan
    return array


def _plain(word: str) -> str:
    # Words come from requests, and Evidently writes them into a script element as they are.
    return word[:_SHOWN_LETTERS].translate({ord("<"): "‹", ord(">"): "›", ord("&"): "+"})


def _pandas(frame: Frame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: pd.Series(values) for name, values in frame.items()})  # shorter columns end in NaN


def _table(title: str, verdicts: Sequence[ColumnVerdict], note: str) -> str:
    head = "".join(
        f"<th align='left'>{name}</th>"
        for name in ("feature", "verdict", "distance", "no value (training, now)", "why")
    )
    rows = "\n".join(f"<tr>{_cells(v)}</tr>" for v in verdicts)
    table = f"<table cellpadding='4'>\n<tr>{head}</tr>\n{rows}\n</table>"
    return f"<div style='{_STYLE}'>\n<h1>{escape(title)}</h1>\n{table}\n<p>{escape(note)}</p>\n</div>\n"


def _cells(verdict: ColumnVerdict) -> str:
    distance = "" if verdict.distance is None else f"{verdict.distance:.3f}"
    nulls = f"{verdict.null_rate_reference:.1%}, {verdict.null_rate_current:.1%}"
    word = verdict.verdict if verdict.passed else f"<b>{verdict.verdict}</b>"
    return "".join(f"<td>{cell}</td>" for cell in (escape(verdict.feature), word, distance, nulls, escape(verdict.why)))
