"""Cards: what groups, views, datasets, releases and services look like in a notebook.

Each card says what the thing is, how fresh it is, where it comes from, and what to do next. Every text
from a declaration or from data is escaped. Cards are small tables with inline styles: they look the
same in JupyterLab, in the Dagster UI and on paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from windrow.clock import from_micros, spoken
from windrow.errors import StoreError, WindrowError
from windrow.models.statistics import as_table

if TYPE_CHECKING:
    from windrow.features.aggregate import AggregateGroup
    from windrow.features.contract import Contract
    from windrow.features.group import FeatureGroup
    from windrow.features.view import FeatureView
    from windrow.models.dataset import TrainingDataset
    from windrow.models.release import GateResult, Release
    from windrow.models.service import PredictionService
    from windrow.notebook import StoredTable
    from windrow.stores.lake import TableStats

_CARD = "border:1px solid #8886;border-radius:6px;padding:8px 12px;max-width:760px;font-size:13px"
_CELL = "text-align:left;padding:2px 14px 2px 0;border:0;vertical-align:top"
_SHOWN = 40  # rows of a card; the rest is counted
_PREVIEW = 5

Cell = object


def group_card(group: FeatureGroup) -> str:
    """Return the card of a feature group: keys and features, freshness in the lake, lineage.

    Examples
    --------
    >>> import ibis
    >>> from windrow import Entity, Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def spend(payments): return payments.select("card_id", "amount")
    >>> spend.__globals__["payments"] = payments
    >>> "amount" in group_card(feature_group(Entity("card", card_id="int64"))(spend))
    True
    """
    keys = [(k.name, k.dtype, "key", "") for k in group.entity.keys]
    lineage = _lineage(group)
    rows = [*keys, *((n, d, "feature", lineage.get(n, "")) for n, d in group.features.items())]
    stats = _stats(group.key)
    facts = {
        "entity": group.entity.name,
        "expires after": spoken(group.ttl) if group.ttl else "never",
        "served online": "yes" if group.online else "no",
        "checks": str(group.checks or "keys and times"),
        "reads": ", ".join(item.key for item in group.inputs.values()),
        **_freshness(stats),
    }
    body = [_facts(facts), _table(("column", "dtype", "role", "from"), rows)]
    step = f'load("{group.key}")' if stats else "windrow run SERVICE, or materialize it in the Dagster UI"
    return _card(f"Feature group {group.table_name}", group.description, body, step)


def aggregate_card(group: AggregateGroup) -> str:
    """Return the card of an aggregate group: its functions, and the events they count."""
    keys = [(k.name, k.dtype, "key", "") for k in group.entity.keys]
    made = [(n, group.features[n], str(one), "") for n, one in group.aggregates.items()]
    stats = _stats(group.source.key)
    facts = {
        "entity": group.entity.name,
        "counts the events of": group.source.key,
        "stored offline": "nothing: the events are read where they are",
        "served online": "yes, as one state of each entity" if group.online else "no",
        **_freshness(stats),
    }
    body = [_facts(facts), _table(("column", "dtype", "function", ""), [*keys, *made])]
    step = "read it through a FeatureView" if stats else "windrow run SERVICE, or materialize it in the Dagster UI"
    return _card(f"Aggregate group {group.table_name}", group.description, body, step)


def view_card(view: FeatureView) -> str:
    """Return the card of a feature view: what a request brings and what a model is given."""
    contract = view.contract
    read = [(g.table_name, *_newest(g.key), ", ".join(i.key for i in g.inputs.values())) for g in view.groups]
    facts = {
        "spine": contract.spine,
        "request": ", ".join(f"{f.name}: {f.dtype}" for f in contract.request),
    }
    body = [_facts(facts), _table(("group", "rows", "newest", "reads"), read), _features(contract)]
    return _card(f"Feature view {view.name}", "", body, 'load("<service>/training_dataset") shows it over the past')


def dataset_card(dataset: TrainingDataset, contract: Contract | None = None) -> str:
    """Return the card of a training dataset: rows by split, what was left out, its time, and its features.

    With the `contract` of its view, each feature's dtype and origin too.
    """
    facts = {
        "service": dataset.service,
        "rows": f"{dataset.rows:,}",
        **{f"rows to {name}": f"{count:,}" for name, count in dataset.splits.items()},
        **{f"left out: {reason}": f"{count:,}" for reason, count in dataset.excluded.items()},
        "made from": "the prediction log" if dataset.kind == "log" else "the feature view",
        "as of": _moment(dataset.now),
        "content": dataset.content_hash[:16],
    }
    columns = _features(contract) if contract else _facts({"features": _some(dataset.features)})
    head, rows = as_table(dataset.statistics)
    body = [_facts(facts), columns, _table(head, rows) if rows else ""]
    return _card(f"Training dataset {dataset.id}", "", body, "fit on .train.X and .train.y, judge on .test")


def release_card(release: Release) -> str:
    """Return the card of a release: metrics beside the baseline, gates, what it is made of."""
    metrics = [(n, f"{v:.5g}", _number(release.baseline.get(n))) for n, v in release.metrics.items()]
    gates = [(g.name or g.metric, _verdict(g, release), g.bar, _number(g.value), _sure(g)) for g in release.gates]
    facts = {
        "service": release.service,
        "made": _moment(release.created_at),
        "answers with": release.backend + (f" ({release.backend_reason})" if release.backend_reason else ""),
        "dataset": f"{release.dataset.id} ({release.dataset.rows:,} rows, {release.dataset.kind})",
        "groups": ", ".join(release.groups),
        "takes": _some([f.name for f in release.contract.request]),
        "features": _some(release.contract.feature_names),
    }
    body = [_facts(facts), _table(("metric", "model", "baseline"), metrics)]
    body += [_table(("gate", "verdict", "bar", "value", "interval, rows"), gates)] if gates else []
    step = (
        f"windrow promote {release.service} {release.id}"
        if release.passed
        else "look at the failed gate, and train again"
    )
    return _card(f"Release {release.id}", "", body, step)


def service_card(service: PredictionService) -> str:
    """Return the card of a prediction service: what it predicts, from what, and how it is served and watched."""
    label = service.label
    facts = {
        "predicts": f"{'a class' if label.binary or label.multiclass else 'a number'} from {label.source.key}, known after {spoken(label.matures_after)}",
        "spine": service.view.spine.name,
        "model": str(service.trainer),
        "online": _online(service),
        "batch": f"{service.batch.schedule} to {', '.join(service.batch.every_sink)}" if service.batch else "no",
        **({"stream": f"each row once, to stream/{service.name}"} if service.stream else {}),
        "monitors": ", ".join(m.name for m in service.monitors) or "none",
        "owner": service.owner or "nobody",
    }
    request = [(f.name, f.dtype, "request") for f in service.view.contract.request]
    read = [
        (g.table_name, f"{len(g.features)} features", ", ".join(i.key for i in g.inputs.values()))
        for g in service.view.groups
    ]
    body = [_facts(facts), _table(("what it takes", "", "from"), [*request, *read])]
    return _card(f"Prediction service {service.name}", service.description, body, f"windrow run {service.name}")


def table_card(stored: StoredTable) -> str:
    """Return the card of a stored table: columns, rows, and the first of them."""
    preview = stored.table.limit(_PREVIEW).to_pyarrow()
    rows = [(n, d, _some([str(v) for v in preview.column(n).to_pylist()], 3)) for n, d in stored.dtypes.items()]
    facts = {"rows": f"{stored.table.count().execute():,}", **_freshness(_stats(stored.key), counted=True)}
    body = [_facts(facts), _table(("column", "dtype", "such as"), rows)]
    return _card(stored.key, "", body, ".to_pandas() for a DataFrame, .table for an Ibis expression")


def facts_card(title: str, facts: Mapping[str, Cell], *, next_step: str = "") -> str:
    """Return a card of named values.

    Examples
    --------
    >>> "&lt;b&gt;" in facts_card("Reported", {"x": "<b>"})
    True
    """
    return _card(title, "", [_facts(facts)], next_step)


def _card(title: str, text: str, body: Iterable[str], next_step: str) -> str:
    parts = [f'<div style="{_CARD}">', f"<b>{escape(title)}</b>"]
    parts += [f'<div style="opacity:.75">{escape(text)}</div>'] if text else []
    parts += [part for part in body if part]
    parts += [f'<div style="opacity:.75">Next: <code>{escape(next_step)}</code></div>'] if next_step else []
    return "\n".join([*parts, "</div>"])


def _facts(facts: Mapping[str, Cell]) -> str:
    return _table((), [(name, value) for name, value in facts.items() if value != ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = ['<table style="border-collapse:collapse;margin:6px 0">']
    lines += [_row("th", head)] if head else []
    lines += [_row("td", row) for row in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        lines.append(_row("td", [f"and {len(rows) - _SHOWN} more"]))
    return "\n".join([*lines, "</table>"])


def _row(tag: str, cells: Sequence[Cell]) -> str:
    return "<tr>" + "".join(f'<{tag} style="{_CELL}">{escape(str(cell))}</{tag}>' for cell in cells) + "</tr>"


def _freshness(stats: TableStats | None, *, counted: bool = False) -> dict[str, str]:
    if stats is None:
        return {} if counted else {"stored": "nothing yet"}
    rows = {} if counted else {"rows": f"{stats.rows:,}"}
    times = {"first event": stats.first, "newest event": stats.last, "newest known": stats.last_known}
    return {**rows, **{name: _moment(at) for name, at in times.items() if at is not None}}


def _stats(key: str) -> TableStats | None:
    from windrow.settings import Settings
    from windrow.stores.lake import Lake

    try:
        return Lake(Settings.read().lake).table(key).stats()
    except (StoreError, ImportError):
        return None  # a card describes the declaration also where nothing is stored, or no lake is installed


def _lineage(group: FeatureGroup) -> dict[str, str]:
    from windrow.features.lineage import column_lineage

    try:
        read = column_lineage(group)
    except WindrowError:
        return {}  # the card is about the group; its error is told where the group is used
    return {name: _some([f"{upstream}.{column}" for upstream, column in found], 3) for name, found in read.items()}


def _features(contract: Contract) -> str:
    origin = {v: f"{lookup.group}.{c}" for lookup in contract.lookups for v, c in lookup.columns.items()}
    origin |= {c.name: f"{c.function}({', '.join(c.inputs.values())})" for c in contract.on_demand}
    return _table(
        ("feature", "dtype", "from"), [(f.name, f.dtype, origin.get(f.name, "request")) for f in contract.features]
    )


def _newest(key: str) -> tuple[str, str]:
    stats = _stats(key)
    if stats is None or stats.last is None:
        return "0", "nothing yet"
    return f"{stats.rows:,}", _moment(stats.last)


def _online(service: PredictionService) -> str:
    if service.online is None:
        return "no"
    online = service.online
    told = [
        f"{name.replace('_', ' ')}: {getattr(online, name)}" for name in ("unknown_entity", "expired", "store_away")
    ]
    return "; ".join([f"p99 <= {online.p99_ms:g} ms", f"deadline {online.deadline_ms:g} ms", *told])


def _moment(micros: int) -> str:
    return from_micros(micros).strftime("%Y-%m-%d %H:%M UTC")


def _verdict(gate: GateResult, release: Release) -> str:
    verdict = gate.verdict(release.created_at)
    if verdict == "waived" and gate.waived is not None:
        return f"WAIVED until {_moment(gate.waived.until)}: {gate.waived.reason}"
    return verdict if verdict == "passed" else verdict.upper()


def _sure(gate: GateResult) -> str:
    spread = "" if gate.low is None else f"{_number(gate.low)} to {_number(gate.high)}"
    return ", ".join(part for part in (spread, "" if gate.rows is None else f"{gate.rows:,}") if part)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.5g}"


def _some(names: Sequence[str], shown: int = 12) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
