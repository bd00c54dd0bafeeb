"""The point-in-time join by Feast's DuckDB offline store; run by an environment of its own, see feast-requirements.txt.

    FEAST_PYTHON -m tests.benchmarks.feast_peer FOLDER TABLES FEATURES

Prints seconds, peak memory and the digest of the answer as JSON. Feast promises no order: the rows are put into
the spine's for the comparison, outside of what is measured.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
from feast.value_type import ValueType


def main(folder: Path, tables: int, features: int) -> None:
    """Join what `tests.benchmarks.bench_point_in_time` made."""
    store = FeatureStore(config=_config(folder))
    views = [_view(folder, table, features) for table in range(tables)]
    store.apply([_key(), *views])
    spine = pd.read_parquet(folder / "spine.parquet").rename(columns={"event_time": "event_timestamp"})
    wanted = [f"table_{table}:t{table}_f{i}" for table in range(tables) for i in range(features)]
    begin, worked = time.perf_counter(), time.process_time()
    made = store.get_historical_features(entity_df=spine, features=wanted).to_arrow()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    names = ["row", *(name.partition(":")[2] for name in wanted)]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak, "answer": _digest(made, names)}))


def _config(folder: Path) -> RepoConfig:
    return RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
    )


def _key() -> Entity:
    return Entity(name="k", join_keys=["k"], value_type=ValueType.INT64)


def _view(folder: Path, table: int, features: int) -> FeatureView:
    source = FileSource(path=str(folder / f"table_{table}.parquet"), timestamp_field="event_time")
    schema = [Field(name=f"t{table}_f{i}", dtype=Float64) for i in range(features)]
    return FeatureView(
        name=f"table_{table}", entities=[_key()], ttl=timedelta(0), schema=schema, source=source, online=False
    )


def _digest(made: pa.Table, names: list[str]) -> str:
    ordered = made.sort_by("row")
    digest = hashlib.sha256(ordered["row"].cast("int64").combine_chunks().to_numpy().tobytes())
    for name in names[1:]:
        values = ordered[name].cast("float64")
        missing = pc.or_kleene(pc.is_null(values), pc.is_nan(values))
        digest.update(pc.if_else(missing, -1.0, values).combine_chunks().to_numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
