"""What two releases differ in: features, data, metrics, gates, code, environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.clock import from_micros
from windrow.models.release import GateResult, Release

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.stores.metadata import Metadata

Facts = dict[str, str]


class Difference(msgspec.Struct, frozen=True):
    """One fact that differs; `before` or `after` is None where a release has no such fact.

    `part` is ``features``, ``data``, ``metrics``, ``gates``, ``code``, ``environment`` or ``serving``.
    """

    part: str
    name: str
    before: str | None
    after: str | None


def compare_releases(before: Release, after: Release, metadata: Metadata | None = None) -> list[Difference]:
    """Return what differs from one release to another.

    Parameters
    ----------
    metadata
        Finds the files of the training datasets, whose statistics are compared as well.

    Examples
    --------
    A release does not differ from itself: ``compare_releases(release, release) == []``.
    """
    found = []
    for part, facts in _PARTS.items():
        found += _differences(part, facts(before), facts(after))
    if metadata is not None:
        found += _differences("data", *(dataset_statistics(release, metadata) for release in (before, after)))
    return found


def dataset_statistics(release: Release, metadata: Metadata) -> Facts:
    """Return what each column of a release's training rows looks like; nothing where the file is gone."""
    import pyarrow.parquet as pq

    paths = [Path(d["path"]) for d in metadata.datasets(release.service) if d["id"] == release.dataset.id]
    if not paths or not paths[0].is_file():
        return {}
    names = [n for n in pq.read_schema(paths[0]).names if n in {*release.contract.feature_names, "label"}]
    rows = pq.read_table(paths[0], columns=names, memory_map=False)
    return {f"statistics of {name}": _looks(rows[name]) for name in names}


def _differences(part: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    names = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
    return [Difference(part, name, before.get(name), after.get(name)) for name in names]


def _features(release: Release) -> Facts:
    contract = release.contract
    origin = {
        value: f"{lookup.group}.{column}" for lookup in contract.lookups for value, column in lookup.columns.items()
    }
    origin |= {made.name: f"{made.function}({', '.join(made.inputs.values())})" for made in contract.on_demand}
    facts = {
        f"feature {f.name}": f"{f.dtype}{'' if f.nullable else ' not null'} from {origin.get(f.name, 'request')}"
        for f in contract.features
    }
    facts |= {f"request {f.name}": f.dtype for f in contract.request}
    return facts | {"order": ", ".join(contract.feature_names), "label": _text(release.label)}


def _data(release: Release) -> Facts:
    data = release.dataset
    splits = {f"rows to {name}": f"{rows:,}" for name, rows in data.splits.items()}
    return {
        "dataset": data.id, "content hash": data.hash, "rows": f"{data.rows:,}", **splits, "made from": data.kind,
        "written up to": str(release.seq), "as of": from_micros(data.now).isoformat(),
    }  # fmt: skip


def _metrics(release: Release) -> Facts:
    sure: Mapping[str, Any] = release.evidence.get("intervals", {})
    facts = {name: _measured(value, sure.get(name)) for name, value in release.metrics.items()}
    return facts | {f"baseline {name}": f"{value:.6g}" for name, value in release.baseline.items()}


def _gates(release: Release) -> Facts:
    return {gate.name or gate.metric: _gate(gate, release) for gate in release.gates}


def _code(release: Release) -> Facts:
    groups = {f"group {name}": print_ for name, print_ in release.groups.items()}
    chosen = {f"parameter {name}": str(value) for name, value in release.evidence.get("parameters", {}).items()}
    facts = {"view": release.view_fingerprint, **groups, "on-demand functions": release.contract.on_demand_source}
    return {**facts, **_made(release), "estimator": str(release.evidence.get("estimator", "")), **chosen}


def _made(release: Release) -> Facts:
    """By what it was made: code of a trainer, a search of its own, a file from elsewhere."""
    named = {"code": "trainer", "onboarded": "made elsewhere", "file_sha256": "file made elsewhere"}
    facts = {words: str(release.evidence[name]) for name, words in named.items() if name in release.evidence}
    search: Mapping[str, Any] | None = release.evidence.get("search")
    return (
        facts if search is None else facts | {"search": f"{search['candidates']} candidates, {search['folds']} folds"}
    )


def _serving(release: Release) -> Facts:
    budget = "none" if release.p99_ms is None else f"{release.p99_ms:g}"
    return {
        "backend": release.backend,
        "p99 ms": budget,
        "unknown entity": release.unknown_entity,
        **{name.replace("_", " "): str(value) for name, value in msgspec.structs.asdict(release.policies).items()},
        "schedule": release.schedule,
    }


_PARTS: dict[str, Callable[[Release], Facts]] = {
    "features": _features,
    "data": _data,
    "metrics": _metrics,
    "gates": _gates,
    "code": _code,
    "environment": lambda release: dict(release.environment),
    "serving": _serving,
}


def _measured(value: float, sure: Mapping[str, Any] | None) -> str:
    if sure is None:
        return f"{value:.6g}"
    return f"{value:.6g} ({sure['low']:.4g} to {sure['high']:.4g}, {sure['rows']:,} rows)"


def _gate(gate: GateResult, release: Release) -> str:
    value = "" if gate.value is None else f" at {gate.value:.4g}"
    return f"{gate.verdict(release.created_at)}{value} (bar: {gate.bar})"


def _looks(values: pa.ChunkedArray) -> str:
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = values.null_count / max(len(values), 1)
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        known = pc.drop_null(values).cast("float64")
        known = known.filter(pc.is_finite(known))
        missing = 1 - len(known) / max(len(values), 1)
        middle, spread = (float(f(known).as_py() or 0.0) for f in (pc.mean, pc.stddev))
        return f"mean {middle:.4g}, sd {spread:.4g}, {missing:.1%} missing"
    return f"{pc.count_distinct(values).as_py()} values, {missing:.1%} missing"


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
