"""The candidate against the golden model: the release that answers now, on the same test rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import WindrowError, listed
from windrow.models.candidate import Candidate
from windrow.models.gate import BetterThanGolden
from windrow.models.intervals import LOWER_IS_BETTER, Interval, improvement, interval_of
from windrow.models.judging import judged, measured
from windrow.models.release import GateResult, Release
from windrow.schema import EVENT_TIME

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.models.bundle import Bundle
    from windrow.models.dataset import Split
    from windrow.models.registry import Registry
    from windrow.stores.metadata import Metadata


def check_golden(gate: BetterThanGolden, candidate: Candidate) -> GateResult:
    """Return whether a candidate is better than the live release.

    Both answer the same rows where the live release's features are the candidate's too; rows that it was
    trained on are left out. Where its features are others, its recorded metric is all there is: then the
    candidate's own interval must lie beyond it. Metrics of other classes are no measure at all.
    """
    if candidate.live is None:
        return GateResult(gate.metric, None, gate.bar, True, "no golden yet: nothing is live to be compared with")
    if _kind(candidate.live) != _kind(candidate.bundle.release):
        return _failed(
            gate,
            f"not comparable with {candidate.live.id}, which answers with {_kind(candidate.live)} and this one with "
            f"{_kind(candidate.bundle.release)}: look at both, then sign for one of them (windrow promote --override)",
        )
    differs = why_not_comparable(candidate.live, candidate.bundle.release)
    if not differs and candidate.golden is not None:
        return _paired(gate, candidate, candidate.golden)
    return _unpaired(gate, candidate, candidate.live, differs or "it cannot be loaded here")


def against(candidate: Candidate, registry: Registry, metadata: Metadata) -> Candidate:
    """Return a candidate with the release that it is to be compared with, if there is one."""
    live = registry.live(candidate.bundle.release.service)
    if live is None:
        return candidate
    try:
        golden = registry.load(live.id)
    except WindrowError:  # what is broken must not keep its successor out; the gate says that it was not loaded
        golden = None
    return replace(candidate, live=live, golden=golden, seen=seen_rows(live, candidate.test, metadata))


def why_not_comparable(live: Release, candidate: Release) -> str:
    """Return why the live release cannot answer a candidate's test rows, or "" where it can.

    It can where each of its features is among the candidate's, from the same definitions.
    """
    ours = {feature.name: feature for feature in candidate.contract.features}
    gone = [f.name for f in live.contract.features if ours.get(f.name) != f]
    if gone:
        return f"its view has other features ({listed(gone)})"
    changed = [group for group, print_ in live.groups.items() if candidate.groups.get(group) != print_]
    if changed:
        return f"its feature groups are defined differently ({listed(changed)})"
    if live.contract.on_demand and live.on_demand_sha256 != candidate.on_demand_sha256:
        return "its on-demand functions are others"
    return "" if live.task == candidate.task and live.label == candidate.label else "its label is defined differently"


def seen_rows(live: Release, test: Split, metadata: Metadata) -> NDArray[np.bool_]:
    """Return which test rows a release was trained on, shape (n,); none where its dataset is gone."""
    learned = _learned(live, metadata)
    if learned is None or _before(learned, test.rows):
        return np.zeros(len(test.y), dtype=bool)
    names = [n for n in test.rows.column_names if n in learned.column_names]
    known = set(_rows_of(learned.select(names)))
    return np.array([row in known for row in _rows_of(test.rows.select(names))], dtype=bool)


def _kind(release: Release) -> str:
    if release.task == "regression":
        return "a number"
    return f"one of {len(release.classes)} classes" if release.task == "multiclass" else "one of 2 classes"


def _learned(live: Release, metadata: Metadata) -> pa.Table | None:
    """Return the identity of the rows that a release was trained on."""
    import pyarrow.parquet as pq

    from windrow.models.dataset import SPLIT, TrainingDataset
    from windrow.models.labels import LABEL
    from windrow.models.splits import TRAIN

    found = [d for d in metadata.datasets(live.service) if d["id"] == live.dataset.id]
    path = Path(msgspec.convert(found[0], TrainingDataset).path) if found else Path()
    if not path.is_file():
        return None
    inputs = {*live.contract.feature_names, LABEL, SPLIT}
    names = [n for n in pq.read_schema(path).names if n not in inputs or n == EVENT_TIME]
    return pq.read_table(path, columns=names, filters=[(SPLIT, "==", TRAIN)], memory_map=False)


def _before(learned: pa.Table, test: pa.Table) -> bool:
    """Return whether everything learned is older than every test row: so it is with a split by time."""
    import pyarrow.compute as pc

    latest, first = pc.max(learned[EVENT_TIME]).as_py(), pc.min(test[EVENT_TIME]).as_py()
    return latest is None or first is None or latest < first


def _rows_of(rows: pa.Table) -> list[tuple[Any, ...]]:
    columns = (rows[name].to_pylist() for name in rows.column_names)
    return list(zip(*columns, strict=True))


def _paired(gate: BetterThanGolden, candidate: Candidate, live: Bundle) -> GateResult:
    frame = {name: candidate.test.frame[name] for name in live.contract.feature_names}
    kept = ~live.refused(frame)
    refused = int((~kept).sum())
    if candidate.seen is not None:
        kept &= ~candidate.seen
    if not kept.any():
        return _failed(gate, "there is no test row that the live release can answer and was not trained on")
    before = live.predict({name: values[kept] for name, values in frame.items()})
    after, truth = candidate.answers[kept], candidate.truth[kept]
    sure = improvement(gate.metric, truth, before, after, confidence=gate.confidence)
    old = interval_of(gate.metric, truth, before)
    if sure is None or old is None:
        return _failed(gate, f"{gate.metric} could not be computed: the test rows do not define it")
    told = measured(f"the improvement of {gate.metric}", sure.value, sure, confidence=gate.confidence)
    why = f"{told}, over {old.value:.6g} of {live.id}{_left_out(candidate, refused)}; the bar is {gate.bar}"
    return judged(GateResult(gate.metric, sure.value, gate.bar, sure.low >= gate.margin, why), sure=sure)


def _unpaired(gate: BetterThanGolden, candidate: Candidate, live: Release, differs: str) -> GateResult:
    told = f"not comparable row by row with {live.id}: {differs}"
    own = interval_of(gate.metric, candidate.truth, candidate.answers, confidence=gate.confidence)
    recorded = live.metrics.get(gate.metric)
    if own is None or recorded is None:
        return _failed(gate, f"{told}; and {gate.metric} is not known of both")
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    edges = sorted(sign * (edge - recorded) for edge in (own.low, own.high))
    sure = Interval(sign * (own.value - recorded), edges[0], edges[1], own.rows)
    figure = measured(f"the improvement of {gate.metric}", sure.value, sure, confidence=gate.confidence)
    why = f"{told}, so decided by the {recorded:.6g} recorded with it: {figure}; the bar is {gate.bar}"
    return judged(GateResult(gate.metric, sure.value, gate.bar, sure.low >= gate.margin, why), sure=sure)


def _left_out(candidate: Candidate, refused: int) -> str:
    learned = 0 if candidate.seen is None else int(candidate.seen.sum())
    told = [f"{learned:,} rows that it was trained on"] if learned else []
    told += [f"{refused:,} rows that it refuses"] if refused else []
    return f" (left out: {' and '.join(told)})" if told else ""


def _failed(gate: BetterThanGolden, why: str) -> GateResult:
    return GateResult(gate.metric, None, gate.bar, False, why)
