"""The assets of one prediction service: training dataset, model, predictions, monitors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from windrow.clock import spoken
from windrow.errors import ModelError
from windrow.features.source import Source
from windrow.models.service import Drift, PredictionService
from windrow.orchestrate.checks import drift_check, drift_result, gate_checks, monitor_key
from windrow.orchestrate.factories import Events, Plan, build
from windrow.orchestrate.facts import (
    Metadata,
    counts,
    moment,
    report_address,
    schema_of,
    table_facts,
    table_fingerprint,
    table_of,
)
from windrow.orchestrate.lineage_facts import dataset_lineage, prediction_lineage
from windrow.orchestrate.notebook_file import NotebookFile
from windrow.orchestrate.notebooks import config_schema, inputs, run_notebook
from windrow.orchestrate.partitions import DAY, day_start
from windrow.orchestrate.releases import Made, dataset_of, live_bundle, make_release, newest_dataset, saved_estimator
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.tags import op_tags
from windrow.schema import EVENT_TIME, KNOWN_AT, fingerprint

if TYPE_CHECKING:
    from windrow.models.dataset import TrainingDataset
    from windrow.monitoring.drift import DriftReport
    from windrow.orchestrate.scoring import Scored

_ROWS = dg.Field(
    dg.Enum("TrainingRows", [dg.EnumValue("view"), dg.EnumValue("log")]),
    default_value="view",
    is_required=False,
    description="view: the past, recomputed; log: the vectors that were served, with the outcomes that came of them.",
)
# Where `windrow up` says that the online service listens; reports are opened there.


def service_assets(
    service: PredictionService,
    *,
    days: dg.DailyPartitionsDefinition | None,
    trainer: NotebookFile | None,
    known: Sequence[str],
) -> list[dg.AssetsDefinition]:
    """Return the assets of a service, upstream first.

    Parameters
    ----------
    days
        Partitions of its predictions, or None.
    trainer
        The notebook that is its model, or None.
    known
        Keys of all assets, for the inputs of the notebook.
    """
    made = [dataset_asset(service)]
    made.append(model_asset(service) if trainer is None else notebook_model_asset(service, trainer, known=known))
    made += [predictions_asset(service, days)] if service.batch else []
    made += [stream_asset(service)] if service.stream else []
    return [*made, *(monitor_asset(service, monitor) for monitor in service.monitors)]


def dataset_asset(service: PredictionService) -> dg.AssetsDefinition:
    """Return ``<service>/training_dataset``: spine, features as of each row's time, matured labels."""
    contract = service.view.contract
    columns: list[tuple[str, str, str | None]] = [(f.name, f.dtype, "feature") for f in contract.features]
    plan = Plan(
        key=f"{service.name}/training_dataset",
        deps=[*(group.key for group in service.view.groups), *_spine(service), service.label.source.key],
        group=service.name,
        code=fingerprint([service.view.fingerprint, service.label.fingerprint, service.describe()["split"]]),
        description=f"What was known at each time, and what came of it {spoken(service.label.matures_after)} later.",
        kinds={"parquet", "duckdb"},
        owner=service.owner,
        metadata={
            "dagster/column_schema": schema_of([*columns, ("label", "float64", "what came of it")]),
            **dataset_lineage(service),
        },
        options={"config_schema": {"rows": _ROWS}},
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        from windrow.models.dataset import build_dataset, dataset_from_log

        now, place = stores.now(service.sources), {"home": stores.settings.home}
        if context.op_execution_context.op_config["rows"] == "log":
            made = dataset_from_log(service, stores.lake, stores.log, stores.metadata, now=now, **place)
        else:
            made = build_dataset(service, stores.lake, stores.metadata, now=now, **place)
        yield dg.MaterializeResult(metadata=_dataset_facts(made), data_version=dg.DataVersion(made.content_hash[:16]))

    return build(plan, body)


def model_asset(service: PredictionService) -> dg.AssetsDefinition:
    """Return ``<service>/model``: fitted on the training split, compiled, proven, gated, released."""
    plan = _model_plan(service, {"python", "sklearn"}, code=str(service.trainer))

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        dataset = newest_dataset(service, stores)
        yield from make_release(service, dataset, stores, say=context.log.info)

    return build(plan, body)


def notebook_model_asset(
    service: PredictionService, notebook: NotebookFile, *, known: Sequence[str]
) -> dg.AssetsDefinition:
    """Return ``<service>/model`` trained by a notebook: it hands over a fitted estimator."""
    plan = _model_plan(
        service,
        {"jupyter", "sklearn"},
        code=fingerprint(notebook.code),
        deps=inputs(notebook, known),
        description=f"**{notebook.title}**\n\n{notebook.description}",
        options={"config_schema": config_schema(notebook)},
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        from windrow.models.claims import check_claims

        dataset = newest_dataset(service, stores)
        outcome = run_notebook(notebook, context, stores)
        if outcome.saved is None:
            raise ModelError(
                f"notebook {notebook.path.name!r} ended without a model",
                next_step="end it with save(model), from windrow.notebook",
            )
        fitted = saved_estimator(outcome.saved, service, trials=outcome.trials)
        check_claims(service, dataset, fitted.estimator, outcome.metrics)
        made = Made(fitted, fingerprint(notebook.code), outcome.facts)
        yield from make_release(service, dataset, stores, made=made)

    return build(plan, body)


def _model_plan(
    service: PredictionService, kinds: set[str], *, code: str, deps: Sequence[str] = (), **more: Any
) -> Plan:
    text = f"{service.description} Fitted on the training split only, compiled, proven equal, judged by its gates."
    return Plan(
        key=f"{service.name}/model",
        deps=[f"{service.name}/training_dataset", *deps],
        group=service.name,
        code=fingerprint([code, service.describe()["gates"], service.describe()["baseline"]]),
        description=more.pop("description", text),
        kinds={*kinds, "onnx"},
        owner=service.owner,
        checks=gate_checks(service),
        options={"op_tags": op_tags(service.resources), **more.pop("options", {})},
        **more,
    )


_SOME_DAYS = """

The graph shows it in yellow while it has days without predictions, as after `make demo`, which scores the newest ones: \
nothing is wrong then. Materialize its missing days here, or run \
`windrow run {service} --select {service}/predictions --partitions all`."""


def predictions_asset(service: PredictionService, days: dg.DailyPartitionsDefinition | None) -> dg.AssetsDefinition:
    """Return ``<service>/predictions``: the live release's answers in every sink, by day or for the newest rows."""
    assert service.batch is not None
    by_day = {"partitions_def": days, "backfill_policy": dg.BackfillPolicy.single_run()} if days else {}
    plan = Plan(
        key=f"{service.name}/predictions",
        deps=[f"{service.name}/model", *(group.key for group in service.view.groups), *_spine(service)],
        group=service.name,
        code=fingerprint([service.view.fingerprint, service.describe()["batch"]]),
        description=f"Answers of the live release, {_rows_words(service)}; sinks: {', '.join(service.batch.every_sink)}."
        + (_SOME_DAYS.format(service=service.name) if days else ""),
        kinds={"onnx", *service.batch.every_sink},
        owner=service.owner,
        metadata=_answer_columns(service),
        options=by_day,
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        from windrow.orchestrate.scoring import score_to_sinks

        now = stores.now(service.sources)
        scored = score_to_sinks(service, stores, span=_span(context) if days else None, now=now)
        yield dg.MaterializeResult(metadata=_scored_facts(scored, now), data_version=dg.DataVersion(scored.fingerprint))

    return build(plan, body)


def stream_asset(service: PredictionService) -> dg.AssetsDefinition:
    """Return ``<service>/stream``: each spine row answered once, as soon as it is due, and appended."""
    assert service.stream is not None
    plan = Plan(
        key=f"{service.name}/stream",
        deps=[f"{service.name}/model", *(group.key for group in service.view.groups), *_spine(service)],
        group=service.name,
        code=fingerprint([service.view.fingerprint, service.describe()["stream"]]),
        description="Answers of the live release, each row once as soon as it is due; a correction changes none.",
        kinds={"onnx", "delta"},
        owner=service.owner,
        metadata=_answer_columns(service),
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        from windrow.models.stream import score_stream, stream_key
        from windrow.stores.engine import engine

        now = stores.now(service.sources)
        bundle, table = live_bundle(service, stores), stores.lake.table(stream_key(service))
        made = score_stream(service, bundle, stores.lake, engine(), now=now)
        facts: Metadata = {"rows appended": made.num_rows, "release": bundle.id, **table_facts(table)}
        # Green with nothing inside is the trap: a run that scored nothing says so.
        facts |= {} if made.num_rows else {"skipped because": "every row that is due has its answer"}
        yield dg.MaterializeResult(metadata=facts, data_version=dg.DataVersion(table_fingerprint(table)))

    return build(plan, body)


def _answer_columns(service: PredictionService) -> Metadata:
    columns: list[tuple[str, str, str | None]] = [(f.name, f.dtype, None) for f in service.view.spine.spine_fields]
    columns += [(EVENT_TIME, "timestamp", "the time that was asked about"), (KNOWN_AT, "timestamp", "the clock's now")]
    columns += [("prediction", "float64", service.description), ("release", "string", "which model answered")]
    columns += [(f"probability_{c}", "float64", None) for c in service.label.classes if service.label.multiclass]
    columns += [("status", "int32", "the worst status of its features: 0 is present")]
    return {"dagster/column_schema": schema_of(columns), **prediction_lineage(service)}


def monitor_asset(service: PredictionService, monitor: Drift) -> dg.AssetsDefinition:
    """Return ``<service>/monitoring/<name>``: the log's newest window against the training data."""
    plan = Plan(
        key=monitor_key(service, monitor),
        deps=[f"{service.name}/log", f"{service.name}/training_dataset"],
        group=service.name,
        code=fingerprint([monitor.window, monitor.effect, monitor.min_rows, list(monitor.ignore)]),
        description=f"The newest {monitor.window} of the prediction log against the training data, by feature.",
        kinds={"evidently"},
        owner=service.owner,
        checks=[drift_check(service, monitor)],
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        from windrow.monitoring.drift import watch

        bundle = live_bundle(service, stores)
        report = watch(
            service,
            monitor,
            dataset=dataset_of(bundle.release, service, stores),
            log=stores.log,
            contract=bundle.contract,
            now=stores.now(service.sources),
            reports=stores.settings.folder("reports"),
            bundle=bundle,
        )
        yield drift_result(monitor, report)
        yield dg.MaterializeResult(metadata=_drift_facts(report, stores))

    return build(plan, body)


def _spine(service: PredictionService) -> list[str]:
    spine = service.view.spine
    return [spine.key] if isinstance(spine, Source) else []


def _rows_words(service: PredictionService) -> str:
    by_day = service.batch is not None and service.batch.rows == "day"
    return "every row of a day" if by_day else "for the newest row of each key"


def _span(context: dg.AssetExecutionContext) -> tuple[int, int]:
    keys = context.partition_key_range
    return day_start(keys.start), day_start(keys.end) + DAY


def _dataset_facts(dataset: "TrainingDataset") -> Metadata:
    from windrow.models.statistics import as_table

    left_out = {f"left out: {reason}": count for reason, count in dataset.excluded.items()}
    return {
        "dagster/row_count": dataset.rows,
        "rows by split": counts({**dataset.splits, **left_out}),
        "statistics": table_of(*as_table(dataset.statistics)),
        # Numbers, so that the UI plots them over the versions of the asset.
        **{f"label mean, {name}": of.label.mean for name, of in dataset.statistics.items()},
        "id": dataset.id,
        "features": len(dataset.features),
        "made from": dataset.kind,
        "as of": moment(dataset.now),
        "content hash": dataset.content_hash,
    }


def _scored_facts(scored: "Scored", now: int) -> Metadata:
    facts: Metadata = {"dagster/partition_row_count": scored.rows.num_rows, "release": scored.release}
    facts |= {f"sink {write.sink}": f"{write.rows} rows: {write.where}" for write in scored.writes}
    facts |= {f"sink {sink}": f"skipped because {why}" for sink, why in scored.left_out.items()}
    # Green with nothing inside is the trap: a run that scored nothing says so.
    facts |= {} if scored.rows.num_rows else {"skipped because": "the spine has no row in this time"}
    return {**facts, "as of": moment(now)}


def _drift_facts(report: "DriftReport", stores: Stores) -> Metadata:
    from windrow.monitoring.drift import as_metadata

    facts = as_metadata(report)
    columns = facts.pop("columns")
    shown = {name: value for name, value in facts.items() if value not in ("", None, [])}
    shown |= {} if report.judged else {"skipped because": report.why}
    return {
        **shown,
        "verdicts": dg.MetadataValue.json(columns),
        "report": dg.MetadataValue.url(f"{report_address(stores.settings)}/ui/reports/{report.html}"),
    }
