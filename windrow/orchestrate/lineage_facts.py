"""Column lineage in the form that Dagster keeps: of groups, training datasets and predictions."""

from collections.abc import Iterable

import dagster as dg

from windrow.features.group import FeatureGroup
from windrow.features.lineage import column_lineage, contract_lineage, lineage, origins
from windrow.features.query_lineage import Read
from windrow.features.source import Source
from windrow.models.service import PredictionService
from windrow.orchestrate.facts import Metadata, asset_key
from windrow.orchestrate.resources import Stores

_LINEAGE = "dagster/column_lineage"
_DECIDING = {"filter": "filters", "join": "joins", "group": "grouping", "key": "keys", "time": "times"}


def group_lineage(group: FeatureGroup) -> Metadata:
    """Return which columns each feature comes from, and which ones decide the rows."""
    found = column_lineage(group)
    facts: Metadata = {_LINEAGE: _columns(found)}
    told = _deciding(lineage(group).rows)
    return {**facts, "rows are decided by": dg.MetadataValue.md(told)} if told else facts


def probed_lineage(group: FeatureGroup, stores: Stores) -> Metadata:
    """Probe a group that a Python function makes, now that its inputs have rows; nothing for other groups."""
    from windrow.stores.probing import learn, opaque

    found = learn(group, stores.lake, stores.metadata) if opaque(group) else None
    if found is None:
        return {}
    columns = {name: origins(reads) or origins(found.rows) for name, reads in found.features.items()}
    return {_LINEAGE: _columns(columns), "lineage": "found by changing one input column at a time"}


def dataset_lineage(service: PredictionService) -> Metadata:
    """Return which columns each feature of a training dataset, and its label, come from."""
    return {_LINEAGE: _columns({**_inputs(service), "label": _label(service)})}


def prediction_lineage(service: PredictionService) -> Metadata:
    """Return which columns go into a prediction, and which ones the spine's fields are."""
    inputs = _inputs(service)
    spine = service.view.spine
    fields = (
        {field.name: [(spine.key, field.name)] for field in spine.spine_fields} if isinstance(spine, Source) else {}
    )
    return {_LINEAGE: _columns({**fields, "prediction": sorted({o for found in inputs.values() for o in found})})}


def _inputs(service: PredictionService) -> dict[str, list[tuple[str, str]]]:
    spine = service.view.spine
    made = contract_lineage(service.view.contract, spine if isinstance(spine, Source) else None)
    # A clock is no asset: what comes from its ticks alone comes from nowhere.
    return {name: [o for o in origins(reads) if not o[0].startswith("clock/")] for name, reads in made.items()}


def _label(service: PredictionService) -> list[tuple[str, str]]:
    label = service.label
    column = label.column or label.on
    when = label.source.event_time if isinstance(label.source, Source) else None
    named = column or (when if isinstance(when, str) else None)
    return [(label.source.key, named)] if named else []


def _columns(found: dict[str, list[tuple[str, str]]]) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(asset_key(key), column) for key, column in read] for name, read in found.items()}
    )


def _deciding(reads: Iterable[Read]) -> str:
    lines = []
    for kind, word in _DECIDING.items():
        columns = sorted({f"`{r.table}.{r.column}`" for r in reads if r.kind == kind})
        lines += [f"- {word}: {', '.join(columns)}"] if columns else []
    return "\n".join(lines)
