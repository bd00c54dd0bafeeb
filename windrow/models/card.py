"""The model card (Mitchell et al., 2019): one page that says what a release is, how good, and what not to ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from windrow.clock import from_micros, spoken
from windrow.features.contract import Contract
from windrow.models.policies import Policy
from windrow.models.release import Release
from windrow.models.style import STYLE

FILE = "card.html"
# The page is one file: nothing may be fetched or run by it, whatever a name in it looks like.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = STYLE + "main{max-width:56rem}h2{margin-top:1.8rem}"

_DURATIONS = ("window", "matures_after")  # of a label, in microseconds

_Cells = Sequence[object]


def card(release: Release) -> str:
    """Return the card of a release as an HTML page that needs no network.

    Parameters
    ----------
    release
        With its metrics, baseline and gates.
    """
    sections = {
        "What it is": _facts(_what(release)),
        "Data": _facts(_data(release)),
        "How good it is": _table(("metric", "model", "baseline"), _metrics(release)) + _meant(release),
        "Candidates of its search": _search(release.evidence.get("search")),
        "Gates": _gates(release),
        "Ways to answer, each proven equal to the original": _ways(release) + _facts(_parity(release)),
        "Features": _table(("feature", "dtype", "may be missing", "from"), _features(release.contract)),
        "Limits": _list(_limits(release)),
        "Parameters": _facts(_top(release.evidence.get("parameters", {}))),
        "Environment": _facts(release.environment),
    }
    body = "".join(f"<h2>{escape(title)}</h2>{html}" for title, html in sections.items() if html)
    title = escape(f"Release {release.id}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    )


def _what(release: Release) -> dict[str, object]:
    evidence = release.evidence
    return {
        "service": release.service,
        "answers": _answers(release),
        "made": from_micros(release.created_at).strftime("%Y-%m-%d %H:%M UTC"),
        "estimator": evidence.get("estimator", ""),
        "made elsewhere": evidence.get("onboarded", ""),
        "label": ", ".join(
            f"{name} {_said(name, value)}" for name, value in release.label.items() if value not in (None, "")
        ),
    }


def _said(name: str, value: object) -> object:
    return spoken(value) if name in _DURATIONS and isinstance(value, int) else value


def _top(parameters: Mapping[str, str]) -> dict[str, str]:
    """Leave out what whole parts of a pipeline look like: their own parameters follow by name."""
    return {name: value for name, value in parameters.items() if len(value) <= 40}


def _answers(release: Release) -> str:
    if release.task == "multiclass":
        return f"a probability for each of {', '.join(release.classes)}"
    return "a number" if release.task == "regression" else "the probability of class 1"


def _data(release: Release) -> dict[str, object]:
    dataset = release.dataset
    return {
        "training dataset": dataset.id,
        "made from": "the prediction log" if dataset.kind == "log" else "the feature view, as of each row's own time",
        **{f"rows to {name}": f"{count:,}" for name, count in dataset.splits.items()},
        "known up to": from_micros(dataset.now).strftime("%Y-%m-%d %H:%M UTC"),
        "content": dataset.hash,
        "feature groups": ", ".join(release.groups),
        "sources": ", ".join(release.sources),
    }


def _metrics(release: Release) -> list[_Cells]:
    baseline = release.baseline
    return [(name, _number(value), _number(baseline.get(name))) for name, value in release.metrics.items()]


def _meant(release: Release) -> str:
    if release.task != "multiclass":
        return ""
    return "<p>auc is the mean over classes of each against all others; brier sums over classes.</p>"


def _search(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    best = found["best"]
    shown = "" if len(best) == found["candidates"] else f" The best {len(best)} are named here."
    rows = [(trial["rank"], _number(trial["mean"]), _assigned(trial["parameters"])) for trial in best]
    told = f"<p>{found['candidates']:,} were tried on {found['folds']} folds of the training split; the first won.{shown}</p>"
    return told + _table(("rank", "mean score, higher is better", "parameters"), rows)


def _assigned(parameters: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def _gates(release: Release) -> str:
    rows = "".join(
        f'<tr><td>{escape(g.metric)}<td class="{"passed" if g.passed else "failed"}">{"passed" if g.passed else "FAILED"}'
        f"<td>{escape(g.bar)}<td>{escape(g.why)}"
        for g in release.gates
    )
    return f"<table><tr><th>gate<th>verdict<th>bar<th>what was found{rows}</table>" if rows else "<p>None declared.</p>"


def _ways(release: Release) -> str:
    roles = {release.backend: "requests"}
    roles[release.batch_backend or release.backend] = (
        "requests and batches" if release.batch_backend in (None, release.backend) else "batches"
    )
    rows = [
        (name, roles.get(name, ""), f"{max(way.max_difference.values(), default=0.0):.2g}", f"{way.rows_per_second:,.0f}", f"{way.us_per_row:,.1f}")
        for name, way in release.backends.items()
    ]  # fmt: skip
    return _table(("way", "answers", "largest difference", "rows a second in batch", "µs for one row"), rows)


def _parity(release: Release) -> dict[str, object]:
    parity = release.parity
    compared = ", ".join(f"{count:,} {kind}" for kind, count in parity.get("rows", {}).items())
    return {
        "compared on": f"{compared} rows" if compared else "",
        "measure": parity.get("measure", ""),
        "compared with": parity.get("original", ""),
        "why not an earlier way": release.backend_reason,
    }


def _features(contract: Contract) -> list[_Cells]:
    origin = {v: f"{lookup.group}.{c}" for lookup in contract.lookups for v, c in lookup.columns.items()}
    origin |= {c.name: f"{c.function}({', '.join(c.inputs.values())})" for c in contract.on_demand}
    return [
        (f.name, f.dtype, "yes" if f.nullable else "no", origin.get(f.name, "the request")) for f in contract.features
    ]


_DONE: dict[Policy, str] = {
    "predict": "answered with missing values", "fallback": "answered by the fallback", "refuse": "refused",
}  # fmt: skip


def _limits(release: Release) -> list[str]:
    refused = release.parity.get("refused_by_the_original", {})
    told = [f"It refuses {kind} values of {', '.join(names)}." for kind, names in refused.items() if names]
    told.append(f"An entity that was never published is {_DONE[release.unknown_entity]}.")
    told.append(f"While the online store is away, a request that needs it is {_DONE[release.policies.store_away]}.")
    told += [
        f"Values of {lookup.group} older than {spoken(lookup.ttl)} count as missing."
        for lookup in release.contract.lookups
        if lookup.ttl
    ]
    told.append(f"It was judged on {release.dataset.splits.get('test', 0):,} rows; what differs from them is not vouched for.")  # fmt: skip
    return told


def _facts(facts: Mapping[str, object]) -> str:
    return _table((), [(name, value) for name, value in facts.items() if value not in ("", None)])


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}" for line in lines) + "</ul>"


def _table(head: Sequence[str], rows: Sequence[_Cells]) -> str:
    if not rows:
        return ""
    top = "<tr>" + "".join(f"<th>{escape(cell)}" for cell in head) if head else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}" for cell in row) for row in rows)
    return f"<table>{top}{body}</table>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
