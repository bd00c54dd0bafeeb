"""windrow: notebook-first prediction services whose features, training and inference agree in time.

One rule: a feature view is a function from (entity keys, time) to rows; training asks it about the
past, serving asks it about now.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windrow.errors import WindrowError
    from windrow.features import agg
    from windrow.features.aggregate import AggregateGroup, aggregate
    from windrow.features.external import external_group
    from windrow.features.group import FeatureGroup, feature_group
    from windrow.features.label import Label
    from windrow.features.on_demand import on_demand
    from windrow.features.place import IbisTable, Parquet, Postgres
    from windrow.features.source import Constant, CsvFile, Every, Source
    from windrow.features.sql import sql_group
    from windrow.features.view import FeatureView
    from windrow.models.cache import Cache
    from windrow.models.columns import columns
    from windrow.models.gate import BetterThanGolden, Calibration, Fairness, Gate, Latency, Slices, Waiver
    from windrow.models.online import Online
    from windrow.models.runs import runs, trials
    from windrow.models.service import Batch, Drift, Notebook, PredictionService, Stream
    from windrow.models.split import GroupSplit, RandomSplit, StratifiedSplit, TimeSplit
    from windrow.retrieval import history, latest, point_in_time
    from windrow.schema import Entity, Field, Status
    from windrow.settings import Settings

__version__ = "0.1.0"

_HOMES = {
    "windrow.errors": ("WindrowError",),
    "windrow.features.agg": ("agg",),
    "windrow.features.aggregate": ("AggregateGroup", "aggregate"),
    "windrow.features.external": ("external_group",),
    "windrow.features.group": ("FeatureGroup", "feature_group"),
    "windrow.features.label": ("Label",),
    "windrow.features.on_demand": ("on_demand",),
    "windrow.features.place": ("IbisTable", "Parquet", "Postgres"),
    "windrow.features.source": ("Constant", "CsvFile", "Every", "Source"),
    "windrow.features.sql": ("sql_group",),
    "windrow.features.view": ("FeatureView",),
    "windrow.models.cache": ("Cache",),
    "windrow.models.columns": ("columns",),
    "windrow.models.gate": ("BetterThanGolden", "Calibration", "Fairness", "Gate", "Latency", "Slices", "Waiver"),
    "windrow.models.online": ("Online",),
    "windrow.models.runs": ("runs", "trials"),
    "windrow.models.service": ("Batch", "Drift", "Notebook", "PredictionService", "Stream"),
    "windrow.models.split": ("GroupSplit", "RandomSplit", "StratifiedSplit", "TimeSplit"),
    "windrow.retrieval": ("history", "latest", "point_in_time"),
    "windrow.schema": ("Entity", "Field", "Status"),
    "windrow.settings": ("Settings",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AggregateGroup", "Batch", "BetterThanGolden", "Cache", "Calibration", "Constant", "CsvFile", "Drift", "Entity", "Every",
    "Fairness", "FeatureGroup", "FeatureView", "Field", "Gate", "GroupSplit", "IbisTable", "Label", "Latency",
    "Notebook", "Online", "Parquet", "Postgres", "PredictionService", "RandomSplit", "Settings", "Slices", "Source",
    "Status", "StratifiedSplit", "Stream", "TimeSplit", "Waiver", "WindrowError", "agg", "aggregate", "columns",
    "external_group", "feature_group", "history", "latest", "on_demand", "point_in_time", "runs", "sql_group", "trials",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Lazy, so that an online worker that needs one struct does not pay for Ibis.
    if name not in _HOME_OF:
        raise AttributeError(f"module 'windrow' has no attribute {name!r}")
    home = importlib.import_module(_HOME_OF[name])
    return getattr(home, name, home)  # `agg` is itself the module: agg.sum, agg.count


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
