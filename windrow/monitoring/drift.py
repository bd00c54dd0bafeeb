"""Watch one service for drift: the window of its log against its training data, judged, drawn and stored."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.clock import duration, from_micros
from windrow.errors import NotFoundError, StoreError
from windrow.features.contract import Contract, Frame
from windrow.models.runtime import single
from windrow.models.service import Drift, PredictionService
from windrow.monitoring.history import Past
from windrow.monitoring.verdict import ColumnVerdict, compare
from windrow.monitoring.windows import Window, chosen, frame_of, micros, rows_within, thinned, window_at
from windrow.schema import Field

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.models.dataset import Split, TrainingDataset

PREDICTION = "prediction"
_SHORTEST = duration("1h")


class Vectors(Protocol):
    """The part of the prediction log that is watched."""

    def vectors(self, service: str, contract: Contract) -> pa.Table:
        """Return ``event_time``, one column per feature and, where known, ``output`` and ``release``."""


class Model(Protocol):
    """A release that answers, such as `windrow.models.bundle.Bundle`."""

    @property
    def id(self) -> str:
        """The release's id."""

    def predict(self, frame: Frame) -> NDArray[np.float64]:
        """Return float64 of shape (n,)."""


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the window found.

    Attributes
    ----------
    rows_reference, rows_current
        Rows compared: at most 100,000 of each side, drawn at random beyond that.
    window
        Start (excluded) and end (included) in UTC microseconds.
    columns
        One verdict per feature, and ``prediction`` where a release was given.
    ignored
        Features that the declaration says not to judge.
    passed
        False if a column drifted or lost its values. Too few rows pass: see `why` and `judged`.
    judged
        Columns with enough rows for a verdict.
    why
        One sentence.
    html
        The page, relative to the folder of the reports.
    html_bytes
        Its size.
    note
        Why the page has no distributions, "" if it has.
    made_at
        UTC microseconds of the wall clock.
    """

    service: str
    name: str
    rows_reference: int
    rows_current: int
    window: tuple[int, int]
    columns: list[ColumnVerdict]
    ignored: list[str]
    passed: bool
    judged: int
    why: str
    html: str
    html_bytes: int
    note: str
    made_at: int

    def found(self) -> list[ColumnVerdict]:
        """Return the columns that did not pass."""
        return [column for column in self.columns if not column.passed]


class Comparison(msgspec.Struct, frozen=True):
    """The two sides, as arrays; columns of one side may differ in length (predictions).

    `past` is the reference with its times, where they are known.
    """

    reference: Frame
    current: Frame
    fields: tuple[Field, ...]
    past: Past | None = None


def watch(
    service: PredictionService,
    monitor: Drift,
    *,
    dataset: TrainingDataset,
    log: Vectors,
    contract: Contract,
    now: int,
    reports: Path,
    bundle: Model | None = None,
) -> DriftReport:
    """Compare the log's newest window with the training split, and store the report.

    Parameters
    ----------
    service, monitor
        What is watched and how.
    dataset
        The training dataset of the live release.
    log
        The prediction log.
    contract
        The contract of the live release.
    now
        UTC microseconds of the service's clock; the window ends there.
    reports
        Folder of the reports: ``<service>/<name>.json`` and ``.html`` are replaced at once.
    bundle
        The live release. With it, its predictions for held-out rows are compared with the logged ones.

    Raises
    ------
    DataError
        If the training dataset has no rows, or the log lacks a feature.
    StoreError
        If the report cannot be written.
    """
    from windrow.models.dataset import load_split

    window = window_at(now, monitor)
    logged = log.vectors(service.name, contract)
    rows = rows_within(logged, window)
    rows = rows.take(chosen(rows.num_rows))
    sides = compared(rows, load_split(dataset, contract, "train"), contract.features, monitor)
    if bundle is not None:
        held_out = thinned(load_split(dataset, contract, "test").frame)
        sides = with_predictions(sides, bundle, held_out, outputs_of(rows, bundle.id))
    return store(reports, *judge(service.name, monitor, window, sides=sides, hint=_newest(logged)))


def compared(rows: pa.Table, training: Split, fields: Sequence[Field], monitor: Drift) -> Comparison:
    """Return logged rows and a split of the training data as the two sides of a comparison."""
    kept = chosen(training.rows.num_rows)
    reference = {name: values[kept] for name, values in training.frame.items()}
    times = micros(rows)
    # A service that was asked on one day is compared with days, whatever the length of its window.
    span = int(times.max() - times.min()) if len(times) else 0
    past = Past(reference, micros(training.rows)[kept], min(max(span, _SHORTEST), duration(monitor.window)))
    return Comparison(reference, frame_of(rows, fields), tuple(fields), past)


def judge(
    service: str, monitor: Drift, window: Window, *, sides: Comparison, hint: str = ""
) -> tuple[DriftReport, str]:
    """Return the report and its HTML page, storing nothing.

    `hint` says where logged rows are, for a window that has none.
    """
    from windrow.monitoring.page import draw

    columns = compare(sides.reference, sides.current, sides.fields, monitor, past=sides.past)
    why = _why(columns, hint)
    title = f"{service}: {monitor.name}, {window.spoken}"
    page = draw(title, columns, sides.reference, sides.current)
    report = DriftReport(
        service=service,
        name=monitor.name,
        rows_reference=_rows(sides.reference),
        rows_current=_rows(sides.current),
        window=(window.start, window.end),
        columns=columns,
        ignored=list(monitor.ignore),
        passed=all(column.passed for column in columns),
        judged=_judged(columns),
        why=why,
        html=f"{service}/{monitor.name}.html",
        html_bytes=len(page.html.encode()),
        note=page.note,
        made_at=time.time_ns() // 1000,
    )
    return report, page.html


def with_predictions(sides: Comparison, model: Model, held_out: Frame, outputs: NDArray[np.float64]) -> Comparison:
    """Add the column ``prediction``: what a release answers on held-out rows, and what was answered.

    Held-out rows, because a model is surer of the rows it was fitted on than of any other. How its
    answers vary with time anyway is taken from its answers to the reference.
    """
    name = PREDICTION if PREDICTION not in sides.reference else f"{PREDICTION} (output)"
    past = sides.past
    if past is not None:
        past = Past({**past.frame, name: single(model.predict(past.frame))}, past.times, past.window)
    reference, current = {**sides.reference, name: single(model.predict(held_out))}, {**sides.current, name: outputs}
    return Comparison(reference, current, (*sides.fields, Field(name, "float64")), past)


def outputs_of(rows: pa.Table, release: str) -> NDArray[np.float64]:
    """Return the logged outputs of one release, float64 of shape (n,), NaN where there was none."""
    from windrow.features.arrow import to_numpy

    mine = np.array([id_ == release for id_ in rows["release"].to_pylist()], dtype=bool)
    outputs: NDArray[np.float64] = to_numpy(rows["output"], "float64")[mine]
    return outputs


def store(reports: Path, report: DriftReport, page: str) -> DriftReport:
    """Write page and report beside each other, each replaced at once; the report last, as it names the page.

    Raises
    ------
    StoreError
        If the folder cannot be written to.
    """
    document = msgspec.json.format(msgspec.json.encode(report, order="deterministic"), indent=1)
    try:
        _replace(reports / report.html, page.encode())
        _replace((reports / report.html).with_suffix(".json"), document)
    except OSError as error:
        raise StoreError(
            f"the report of monitor {report.name!r} cannot be written to {reports}: {error.strerror}",
            next_step="free space or set WINDROW_HOME to a writable folder, then run the monitor again",
        ) from error
    return report


def load_report(reports: Path, service: str, name: str) -> DriftReport:
    """Return the newest stored report of a monitor.

    Raises
    ------
    NotFoundError
        If the monitor has not run yet.

    Examples
    --------
    >>> load_report(Path("nowhere"), "churn", "drift")
    Traceback (most recent call last):
    windrow.errors.NotFoundError: monitor 'drift' of service 'churn' has no report yet. Next: materialize ...
    """
    try:
        document = (reports / service / f"{name}.json").read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"monitor {name!r} of service {service!r} has no report yet",
            next_step=f"materialize {service}/monitoring/{name}",
        ) from None
    return msgspec.json.decode(document, type=DriftReport)


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(beside, 0o644)  # mkstemp's files are private; the online service may run as another user
        os.replace(beside, path)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise


def _newest(logged: pa.Table) -> str:
    if not logged.num_rows:
        return "the log has no prediction yet"
    newest = np.datetime64(int(micros(logged).max()), "us")  # any year, as requests may ask about any
    return f"the log has {logged.num_rows} rows, the newest of {newest}Z"


def _rows(frame: Frame) -> int:
    return len(next(iter(frame.values())))


def _judged(columns: list[ColumnVerdict]) -> int:
    return sum(column.verdict != "too few rows" for column in columns)


def _why(columns: list[ColumnVerdict], hint: str) -> str:
    found, judged = [column for column in columns if not column.passed], _judged(columns)
    if found:
        told = "; ".join(f"{column.feature}: {column.why}" for column in found[:5])
        return f"{len(found)} of {judged} columns changed: {told}" + (
            f"; and {len(found) - 5} more" if len(found) > 5 else ""
        )
    if judged:
        return f"{judged} columns are as in the training data" + (
            f", {len(columns) - judged} have too few rows" if judged < len(columns) else ""
        )
    return (
        f"nothing was judged: {columns[0].why}; {hint}" if columns else "nothing was judged: every feature is ignored"
    )


def as_metadata(report: DriftReport) -> dict[str, Any]:
    """Return the report as plain facts for an asset's metadata: figures, and one row per feature.

    Examples
    --------
    >>> report = DriftReport(service="s", name="drift", rows_reference=1, rows_current=0, window=(0, 1), columns=[],
    ...                      ignored=[], passed=True, judged=0, why="-", html="s/drift.html", html_bytes=1, note="", made_at=0)
    >>> as_metadata(report)["rows_current"]
    0
    """
    facts = msgspec.to_builtins(report)
    start, end = (from_micros(moment).isoformat() for moment in report.window)
    return {**facts, "window": f"after {start}, up to {end}"}
