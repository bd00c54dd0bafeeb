"""Asset checks that are derived from declarations: gates, freshness, drift."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from windrow.clock import duration, spoken
from windrow.errors import NotFoundError
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.models.service import Drift, Gate, PredictionService
from windrow.orchestrate.factories import all_sources
from windrow.orchestrate.facts import asset_key, moment
from windrow.orchestrate.resources import Stores

if TYPE_CHECKING:
    from windrow.models.release import GateResult
    from windrow.monitoring.drift import DriftReport

# Twice the time between two scheduled runs: one missed run is a warning, not a false alarm.
_LATE = {"@hourly": duration("2h"), "@daily": duration("2d"), "@weekly": duration("14d")}


def gate_checks(service: PredictionService) -> list[dg.AssetCheckSpec]:
    """Return one blocking check per gate, on the service's model."""
    key, names = asset_key(f"{service.name}/model"), gate_names(service.gates)
    return [
        dg.AssetCheckSpec(name, asset=key, blocking=True, description=_bar(gate))
        for name, gate in zip(names, service.gates, strict=True)
    ]


def gate_names(gates: Sequence[Gate]) -> list[str]:
    """Return the names of the gates' checks, in order; a second gate of one metric is numbered.

    Examples
    --------
    >>> gate_names([Gate("auc", at_least=0.7), Gate("auc", of_baseline=1.1)])
    ['gate_auc', 'gate_auc_2']
    """
    metrics = [gate.metric for gate in gates]
    seen = [metrics[: place + 1].count(metric) for place, metric in enumerate(metrics)]
    return [f"gate_{metric}" + (f"_{n}" if n > 1 else "") for metric, n in zip(metrics, seen, strict=True)]


def gate_results(service: PredictionService, results: "list[GateResult]") -> Iterator[dg.AssetCheckResult]:
    """Yield what each gate made of the candidate."""
    for name, result in zip(gate_names(service.gates), results, strict=True):
        facts: dict[str, Any] = {"bar": result.bar, "why": result.why}
        facts |= {"value": result.value} if result.value is not None else {}
        yield dg.AssetCheckResult(
            asset_key=asset_key(f"{service.name}/model"),
            check_name=name,
            passed=result.passed,
            metadata=facts,
        )


def drift_check(service: PredictionService, monitor: Drift) -> dg.AssetCheckSpec:
    """Return the check of one monitor; it warns and does not block."""
    text = f"No feature of the newest {monitor.window} is further than {monitor.effect:g} from the training data."
    return dg.AssetCheckSpec(monitor.name, asset=asset_key(monitor_key(service, monitor)), description=text)


def monitor_key(service: PredictionService, monitor: Drift) -> str:
    """Return the asset key of a monitor."""
    return f"{service.name}/monitoring/{monitor.name}"


def drift_result(monitor: Drift, report: "DriftReport") -> dg.AssetCheckResult:
    """Return the verdict of one look at the log."""
    found = {column.feature: column.why for column in report.found()}
    return dg.AssetCheckResult(
        check_name=monitor.name, passed=report.passed, metadata={"why": report.why, "found": found}
    )


def group_freshness(group: FeatureGroup) -> dg.AssetChecksDefinition | None:
    """Return the check that a group's newest row is younger than its time to live, or None without one.

    Past it every value of the group is EXPIRED, and the model sees nothing of it.
    """
    if group.ttl is None or group.external is not None:
        return None
    allowed = group.ttl
    return _freshness(
        group.key, all_sources(group), allowed, f"The newest row is younger than {spoken(allowed)} (ttl)."
    )


def prediction_freshness(service: PredictionService) -> dg.AssetChecksDefinition | None:
    """Return the check that the newest prediction keeps up with the clock, or None without a daily table."""
    if service.batch is None or service.batch.rows != "day" or "delta" not in service.batch.sinks:
        return None
    allowed = _LATE.get(service.batch.schedule, duration("2d"))
    text = f"The newest prediction is less than {spoken(allowed)} behind the clock."
    key = f"{service.name}/predictions"
    return _freshness(key, service.sources, allowed, text, table=f"predictions/{service.name}")


def _freshness(
    key: str, sources: Sequence[Source], allowed: int, text: str, *, table: str = ""
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset_key(key), name="freshness", description=text, required_resource_keys={"stores"})
    def freshness(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        stores: Stores = context.resources.stores
        try:
            now = stores.now(sources)
            newest = stores.lake.table(table or key).stats().last
        except NotFoundError as error:
            severity = dg.AssetCheckSeverity.WARN
            return dg.AssetCheckResult(passed=False, severity=severity, metadata={"why": error.message})
        age = None if newest is None else now - newest
        facts: dict[str, Any] = {"now": moment(now), "allowed": spoken(allowed)}
        facts |= (
            {"newest": moment(newest), "age": spoken(age // 1_000_000 * 1_000_000)}
            if newest and age is not None
            else {}
        )
        return dg.AssetCheckResult(
            passed=age is not None and age <= allowed, severity=dg.AssetCheckSeverity.WARN, metadata=facts
        )

    return freshness


def _bar(gate: Gate) -> str:
    bars = {
        "at least": gate.at_least,
        "at most": gate.at_most,
        "at most this share of the baseline's:": gate.of_baseline,
    }
    return f"{gate.metric}: " + ", ".join(f"{words} {value:g}" for words, value in bars.items() if value is not None)
