"""Asset checks that are derived from declarations: gates, freshness, drift."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from windrow.clock import duration, spoken
from windrow.errors import NotFoundError
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.models.gate import gate_names
from windrow.models.service import Drift, PredictionService
from windrow.orchestrate.factories import all_sources
from windrow.orchestrate.facts import Metadata, asset_key, moment
from windrow.orchestrate.resources import Stores

if TYPE_CHECKING:
    from windrow.models.release import GateResult
    from windrow.monitoring.drift import DriftReport

# Twice the time between two scheduled runs: one missed run is a warning, not a false alarm.
_LATE = {"@hourly": duration("2h"), "@daily": duration("2d"), "@weekly": duration("14d")}

# What every release must show, whatever the service declares; see `windrow.models.gates`.
_ALWAYS = {
    "parity": "The served model answers as the fitted one, on held-out and hostile rows.",
    "golden_pairs": "The model's file, read back, answers its golden inputs as it did.",
}


def gate_checks(service: PredictionService) -> list[dg.AssetCheckSpec]:
    """Return one blocking check per gate on the service's model, and those that every release must pass."""
    key = asset_key(f"{service.name}/model")
    bars = dict(zip(gate_names(service.gates), (gate.bar for gate in service.gates), strict=True))
    return [
        dg.AssetCheckSpec(name, asset=key, blocking=True, description=bar) for name, bar in {**bars, **_ALWAYS}.items()
    ]


def gate_results(service: PredictionService, results: "list[GateResult]", *, at: int) -> Iterator[dg.AssetCheckResult]:
    """Yield what each gate made of the candidate; one that is waived at a time (UTC microseconds) warns."""
    for result in results:
        verdict = result.verdict(at)
        yield dg.AssetCheckResult(
            asset_key=asset_key(f"{service.name}/model"),
            check_name=result.name,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.WARN if verdict == "waived" else dg.AssetCheckSeverity.ERROR,
            metadata=_gate_facts(result),
        )


def _gate_facts(result: "GateResult") -> Metadata:
    facts: Metadata = {"bar": result.bar, "why": result.why}
    measured = {"value": result.value, "low": result.low, "high": result.high, "rows": result.rows}
    facts |= {name: value for name, value in measured.items() if value is not None}
    if result.waived is not None and not result.passed:
        facts |= {"waived because": result.waived.reason, "waived until": moment(result.waived.until)}
    return facts


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
