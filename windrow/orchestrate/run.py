"""Run a service's assets in this process, on the project's own Dagster instance, so that the UI shows the runs."""

import fnmatch
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from sqlalchemy.exc import DBAPIError

from windrow.discover import pick, record_streams
from windrow.errors import SettingsError, StoreError, UnknownNameError, WindrowError
from windrow.models.service import PredictionService
from windrow.orchestrate.facts import asset_key
from windrow.orchestrate.project import Project, definitions
from windrow.orchestrate.resources import OnStep, Stores, dagster_home
from windrow.orchestrate.sensors import logged, observed
from windrow.settings import Settings
from windrow.telemetry import switch_off

LATEST = "latest"
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PROCESS = "windrow/process"
_OPEN = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
# Dagster's log lines belong to the run, in the UI, and not to the terminal of who called.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Step(msgspec.Struct, frozen=True):
    """One asset that was materialised.

    Attributes
    ----------
    facts
        Its metadata as plain values; pictures and tables are left out.
    partitions
        Number of partitions written, 0 for an unpartitioned asset.
    """

    key: str
    facts: dict[str, Any]
    partitions: int
    run: str


class RunResult(msgspec.Struct, frozen=True):
    """What `run_service` did.

    Attributes
    ----------
    checks
        Asset key and check name -> whether it passed.
    """

    service: str
    steps: list[Step]
    checks: dict[str, bool]
    seconds: float

    def step(self, key: str) -> Step:
        """Return the step of an asset; raise `UnknownNameError` if it was not part of the run."""
        found = {step.key: step for step in self.steps}
        if key not in found:
            raise UnknownNameError("step", key, list(found), where=f"this run of service {self.service!r}")
        return found[key]


def run_service(
    name: str,
    settings: Settings,
    *,
    select: Sequence[str] | None = None,
    partitions: str | None = None,
    on_step: OnStep | None = None,
    package: str = "assets",
) -> RunResult:
    """Materialise a service's assets, inputs first.

    Parameters
    ----------
    select
        Asset keys or patterns, such as ``"churn/model"`` or ``"*/monitoring/*"``; default: everything
        below and of the service, monitors included.
    partitions
        Days to score in one run: ``2014-12-01..2014-12-31``, one day, ``30d`` (the newest thirty),
        ``all`` or ``latest`` (default). Dagster records each day by itself: about 25 ms a day.
    on_step
        Called with an asset's key and ``started``, ``done`` or ``failed``.

    Raises
    ------
    WindrowError
        The error that stopped an asset; what was finished before it stays.
    UnknownNameError
        If the service, an asset of `select` or a day of `partitions` does not exist.
    """
    begin, steps, checks = time.perf_counter(), list[Step](), dict[str, bool]()
    check_days(partitions or LATEST)
    project = Project(package, settings)
    record_streams(project.services.values(), settings)
    chosen = _select(_keys(project, pick(project.services, name)), select, where=f"service {name!r}")
    with _instance(settings) as instance:
        for keys in _phases(chosen):
            # Data may have brought new days: each phase is planned on definitions of its own.
            defs = definitions(package, settings, on_step=on_step)
            done = _run(defs, keys, instance, _range(defs, f"{name}/predictions", keys, partitions))
            steps += done.steps
            checks |= done.checks
    return RunResult(name, steps, checks, time.perf_counter() - begin)


def run_notebooks(settings: Settings, *, on_step: OnStep | None = None, package: str = "assets") -> list[Step]:
    """Run every notebook that reads what the project stored and is no service's model, as the UI would.

    See `run_service`. A notebook that reads nothing has a world of its own, and says nothing of this project.
    """
    defs = definitions(package, settings, on_step=on_step)
    graph = defs.resolve_asset_graph()
    reading = [key.to_user_string() for key in graph.materializable_asset_keys if graph.get(key).parent_keys]
    chosen = sorted(key for key in reading if key.startswith("notebooks/"))
    if not chosen:
        return []
    with _instance(settings) as instance:
        return _run(defs, chosen, instance, {}).steps


def observe_logs(services: Sequence[PredictionService], settings: Settings) -> None:
    """Tell Dagster how many rows the logs and outcomes have now; in the UI a sensor does it."""
    with _instance(settings) as instance:
        for one in logged(services, Stores(settings)):
            instance.report_runless_asset_event(observed(one))


def check_days(asked: str) -> None:
    """Raise `SettingsError` for what can be no choice of days: said before anything is made, not after the training.

    Examples
    --------
    >>> check_days("2014-12-01..2014-12-31")
    >>> check_days("december")
    Traceback (most recent call last):
    windrow.errors.SettingsError: 'december' names no days. Next: write latest, all, 30d, 2014-12-31 or 2014-12-01..2014-12-31.
    """
    first, dots, last = asked.partition("..")
    named = asked in ("all", LATEST) or re.fullmatch(r"[1-9][0-9]*d", asked)
    if not named and not all(_DAY.fullmatch(day) for day in ([first, last] if dots else [first])):
        step = "write latest, all, 30d, 2014-12-31 or 2014-12-01..2014-12-31"
        raise SettingsError(f"{asked!r} names no days", next_step=step)
    if dots and last < first:
        raise SettingsError(f"{asked!r} ends before it begins", next_step=f"write {last}..{first}")


def _keys(project: Project, service: PredictionService) -> list[str]:
    keys = [item.key for item in project.needed(service)] + [
        f"{service.name}/training_dataset",
        f"{service.name}/model",
    ]
    keys += [f"{service.name}/predictions"] if service.batch else []
    keys += [f"{service.name}/stream"] if service.stream else []
    return keys + [f"{service.name}/monitoring/{monitor.name}" for monitor in service.monitors]


def _select(keys: Sequence[str], select: Sequence[str] | None, *, where: str) -> list[str]:
    if select is None:
        return list(keys)
    for pattern in select:
        if not fnmatch.filter(keys, pattern):
            raise UnknownNameError("asset", pattern, list(keys), where=where)
    return [key for key in keys if any(fnmatch.fnmatch(key, pattern) for pattern in select)]


def _phases(keys: Sequence[str]) -> Iterator[list[str]]:
    data = [key for key in keys if key.startswith(("sources/", "features/"))]
    models = [key for key in keys if key.endswith(("/training_dataset", "/model")) and key not in data]
    rest = [key for key in keys if key not in data and key not in models]
    scored = [key for key in rest if key.endswith("/predictions")]
    # Monitors are not partitioned by day: a run over a range of days is theirs alone.
    phases = (data, models, scored, [key for key in rest if key not in scored])
    return (phase for phase in phases if phase)


def _range(defs: dg.Definitions, key: str, keys: Sequence[str], partitions: str | None) -> dict[str, str]:
    days = defs.resolve_asset_graph().get(asset_key(key)).partitions_def if key in keys else None
    if days is None:
        return {}
    known = list(days.get_partition_keys())
    first, last = _ends(known, partitions or LATEST)
    for day in (first, last):
        if day not in known:
            exists = f"{known[0]} to {known[-1]}" if known else "none: materialize the sources first"
            raise UnknownNameError("day", day, [exists], where=f"the partitions of {key!r}")
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


def _ends(known: Sequence[str], asked: str) -> tuple[str, str]:
    if asked in ("all", LATEST) and known:
        return (known[0] if asked == "all" else known[-1]), known[-1]
    if re.fullmatch(r"[1-9]\d*d", asked) and known:
        return known[-min(len(known), int(asked[:-1]))], known[-1]
    first, _, last = asked.partition("..")
    return first, last or first


@contextmanager
def _instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    switch_off()
    folder = str(dagster_home(settings))
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = folder  # what a step starts (a notebook) finds the same instance
    try:
        with dg.DagsterInstance.from_config(folder) as instance:
            end_dead_runs(instance)
            yield instance
    except DBAPIError as error:
        # Such as a full disk: Dagster writes what happens into files of its own, before and after each step.
        raise StoreError(
            f"Dagster's records in {folder} cannot be used: {error.orig}",
            next_step="free some space there, or set WINDROW_HOME to a writable folder; then run it again",
        ) from error
    finally:
        os.environ.pop("DAGSTER_HOME") if before is None else os.environ.update(DAGSTER_HOME=before)


def end_dead_runs(instance: dg.DagsterInstance) -> int:
    """Mark the runs failed that `run_service` left open when its process was killed; return how many.

    An open run counts as running: it would hold back every run that is started in the UI.
    """
    dead = [run for run in instance.get_runs(dg.RunsFilter(statuses=_OPEN)) if _abandoned(run.tags.get(_PROCESS))]
    for run in dead:
        instance.report_run_failed(run, "The process that ran it was ended.")
    return len(dead)


def _abandoned(process: str | None) -> bool:
    return process is not None and process != _process(int(process.partition("@")[0]))


def _process(pid: int) -> str:
    """Return the process with its start, so that a number that was given out again is another process."""
    try:
        os.kill(pid, 0)  # sends nothing, only asks
        state, *facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (ProcessLookupError, FileNotFoundError) as error:
        # Without /proc the number alone has to do.
        return f"{pid}@ended" if isinstance(error, ProcessLookupError) else f"{pid}@"
    return f"{pid}@ended" if state == "Z" else f"{pid}@{facts[18]}"


def _run(defs: dg.Definitions, keys: Sequence[str], instance: dg.DagsterInstance, tags: Mapping[str, str]) -> RunResult:
    job = defs.resolve_implicit_global_asset_job_def()
    try:
        done = job.execute_in_process(
            _QUIET,
            instance=instance,
            asset_selection=[asset_key(k) for k in keys],
            tags={**tags, _PROCESS: _process(os.getpid())},
        )
    except dg.Failure as failed:
        # The failure is for the UI; who called this function is told what windrow found.
        if isinstance(failed.__cause__, WindrowError):
            raise failed.__cause__ from None
        raise
    except DagsterExecutionInterruptedError:
        # Dagster's own word for Ctrl-C and for the signal to end.
        raise KeyboardInterrupt from None
    events = done.get_asset_materialization_events()
    steps = [_step(key, [e for e in events if e.asset_key == asset_key(key)], done.run_id) for key in keys]
    checks = {f"{c.asset_key.to_user_string()} {c.check_name}": c.passed for c in done.get_asset_check_evaluations()}
    return RunResult("", steps, checks, 0.0)


def _step(key: str, events: Sequence[dg.DagsterEvent], run: str) -> Step:
    last = events[-1].materialization.metadata if events else {}
    values = {name: value.value for name, value in last.items()}
    facts = {
        n: v for n, v in values.items() if isinstance(v, bool | int | float) or (isinstance(v, str) and len(v) < 500)
    }
    return Step(key, facts, sum(event.partition is not None for event in events), run)
