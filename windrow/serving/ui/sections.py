"""The parts of a service's page that say how it is: latest predictions, release, experiments, drift, latencies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from windrow.clock import from_micros
from windrow.models.experiment import Experiment
from windrow.models.release import Release
from windrow.serving.ui.look import Html, facts, link, note, safe, section, table
from windrow.stores.log import LogRecord

SHOWN = 20  # predictions; what is counted over are all that are kept
_STAGES = ("validate", "features", "model")


class _Column(msgspec.Struct, frozen=True):
    feature: str
    verdict: str
    why: str


class _Report(msgspec.Struct, frozen=True):
    """What monitoring leaves of a look at the log, as far as it is shown here."""

    name: str
    passed: bool
    why: str
    html: str
    made_at: int
    judged: int
    columns: list[_Column]


def latest(service: str, records: Sequence[LogRecord], output: Callable[[LogRecord], str]) -> str:
    """Return the newest predictions, each with the way to its explanation; `output` speaks of what was predicted."""
    if not records:
        return section("Latest predictions", note("None in the last ten minutes, by this worker."), id="latest", wide=True)  # fmt: skip
    rows = [
        (
            link(from_micros(r.received_at).strftime("%H:%M:%S"), address(service, r)), _pairs(r.keys), output(r),
            r.answered_by or r.release, _pairs(r.arms), marked(r.degraded), _micros(sum(r.stages_us.values())),
        )
        for r in records[:SHOWN]
    ]  # fmt: skip
    head = ("time (UTC)", "keys", "prediction", "answered by", "arms", "degraded", "latency")
    said = note("The newest of this worker's last ten minutes. Its time leads to why.")
    return section("Latest predictions", table(head, rows, name="Latest predictions") + said, id="latest", wide=True)


def live_release(release: Release) -> str:
    """Return the live release: metrics beside the baseline, gates, and the way to its model card."""
    told = {
        "release": link(release.id, f"/ui/releases/{release.id}"),
        "made": f"{from_micros(release.created_at):%Y-%m-%d %H:%M} UTC",
        "answers with": release.backend,
        "comes from": link("its lineage", f"/ui/lineage?{urlencode({'service': release.service})}"),
    }
    metrics = [(n, _number(v), _number(release.baseline.get(n))) for n, v in release.metrics.items()]
    now = time.time_ns() // 1000
    gates = [(g.name or g.metric, _verdict(g.verdict(now)), g.why) for g in release.gates]
    body = facts(told) + table(("metric", "model", "baseline"), metrics, name="Metrics")
    body += table(("gate", "verdict", "what was found"), gates, name="Gates") if gates else ""
    return section("Live release", body, id="release")


def experiments(
    running: Sequence[Experiment], arms: Mapping[tuple[str, str, str], int], paused: Mapping[str, str], service: str
) -> str:
    """Return what is tried: each arm with its share and its rows, shadows, and what does not run, and why."""
    body = "".join(_experiment(one, arms) for one in running)
    for name, why in sorted(paused.items()):
        if name.startswith(f"{service}/"):
            body += f'<p class="error">{safe(name.partition("/")[2])} does not run: {safe(why)}.</p>'
    return section("Experiments", body or note("None runs: golden answers every request."), id="experiments")


def drift(folder: Path, service: str) -> str:
    """Return the newest verdict of each monitor, from the reports that monitoring left."""
    body = "".join(_monitor(report) for file in sorted((folder / service).glob("*.json")) for report in _read(file))
    return section("Drift", body or note("No monitor has looked yet."), id="drift")


def latencies(records: Sequence[LogRecord], p99_ms: float | None) -> str:
    """Return how long the stages of the newest predictions took."""
    if not records:
        return section("Latency", note("No prediction in the last ten minutes."), id="latency")
    spent = {stage: sorted(r.stages_us.get(stage, 0.0) for r in records) for stage in _STAGES}
    spent["all of them"] = sorted(sum(r.stages_us.values()) for r in records)
    rows = [(stage, _micros(_at(values, 0.5)), _micros(_at(values, 0.99))) for stage, values in spent.items()]
    budget = f" Its budget is {p99_ms:g} ms at p99." if p99_ms is not None else ""
    said = note(f"Over this worker's newest predictions ({len(records)}).{budget}")
    return section("Latency", table(("stage", "p50", "p99"), rows, name="Latency by stage") + said, id="latency")


def address(service: str, record: LogRecord, kind: str = "shap") -> str:
    """Return where one prediction is shown."""
    asked = {"request": record.request_id, "row": str(record.row), "kind": kind}
    return f"/ui/{service}?{urlencode(asked)}#prediction"


def marked(text: str) -> Html:
    """Return words that should be seen; nothing where there are none."""
    return Html(f'<span class="mark">{safe(text)}</span>' if text else "")


def _experiment(one: Experiment, counts: Mapping[tuple[str, str, str], int]) -> str:
    rows = [
        (arm.name, arm.release or "the live release", f"{arm.weight:.0%}", f"{counts.get((one.service, one.name, arm.name), 0):,}")
        for arm in one.arms
    ]  # fmt: skip
    told = {
        "experiment": one.name,
        "unit": ", ".join(one.unit),
        "held out": f"{one.holdout:.0%}" if one.holdout else "",
        "shadows": ", ".join(one.shadows),
    }
    return facts(told) + table(("arm", "release", "weight", "rows here"), rows, name=f"Arms of {one.name}")


def _monitor(report: _Report) -> str:
    found = [(c.feature, _verdict(c.verdict), c.why) for c in report.columns if c.verdict in ("drift", "missing")]
    told = {
        "monitor": link(report.name, f"/ui/reports/{report.html}"),
        "verdict": _verdict("passed" if report.passed else "drift"),
        "looked": f"{from_micros(report.made_at):%Y-%m-%d %H:%M} UTC",
        "why": report.why,
    }
    return facts(told) + (table(("column", "verdict", "why"), found, name=f"What {report.name} found") if found else "")


def _read(file: Path) -> list[_Report]:
    try:
        return [msgspec.json.decode(file.read_bytes(), type=_Report)]
    except (OSError, msgspec.MsgspecError):  # replaced at this moment, or a file of somebody else
        return []


def _verdict(word: str) -> Html:
    return Html(f'<span class="{safe(word)}">{safe(word)}</span>')


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _micros(value: float) -> str:
    return f"{value / 1000:,.2f} ms" if value >= 1000 else f"{value:.0f} µs"


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
