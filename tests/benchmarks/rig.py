"""The rig of the serving benchmarks: 2 keys and 4 raw values in, 20 floats, 100-tree gradient boosting."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import numpy as np
import skops.io
from numpy.typing import NDArray

from windrow.features.contract import Contract, Lookup, OnDemand
from windrow.models.bundle import MODEL_FILES, golden_pairs
from windrow.models.compile import compile_estimator
from windrow.models.policies import Policies
from windrow.models.promotion import Override
from windrow.models.registry import Registry
from windrow.models.release import Backend, DatasetRef, Release, sha256
from windrow.schema import Field
from windrow.settings import Settings
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online

ENTITIES = 10_000
NOW = 1_700_000_000_000_000
SOURCE = """
import numpy as np

def km(lat, lon, home_lat, home_lon):
    x = (lon - home_lon) * np.cos(np.radians(home_lat))
    return 111.2 * np.hypot(x, lat - home_lat)
"""
CARD = [f"card_{i}" for i in range(10)]
MERCHANT = [f"merchant_{i}" for i in range(5)]
RAW = ("amount", "lat", "lon", "hour")
REQUEST = {"card_id": 77, "merchant_id": 123, "amount": 12.5, "lat": 48.1, "lon": 11.5, "hour": 7}
BODY = json.dumps(REQUEST).encode()


def contract() -> Contract:
    """Return the contract: 10 + 5 stored values, 4 of the request, 1 computed from the request and two stored ones."""
    card = Lookup("card_v1", "f", {"card_id": "card_id"}, _own(CARD), _floats(CARD), ttl=400 * 86_400_000_000)
    home = Lookup(
        "card_v1",
        "f",
        {"card_id": "card_id"},
        {"card.lat": "lat", "card.lon": "lon"},
        _floats(["card.lat", "card.lon"]),
        ttl=card.ttl,
    )
    merchant = Lookup("merchant_v1", "f", {"merchant_id": "merchant_id"}, _own(MERCHANT), _floats(MERCHANT))
    inputs = {"lat": "request.lat", "lon": "request.lon", "home_lat": "stored.card.lat", "home_lon": "stored.card.lon"}
    keys = (Field("card_id", "int64"), Field("merchant_id", "int64"))
    return Contract(
        view="fraud",
        spine="payments",
        request=(*keys, *(Field(name, "float64") for name in RAW)),
        optional=(),
        lookups=(card, home, merchant),
        on_demand=(OnDemand("km", "km", "float32", inputs, dict.fromkeys(inputs, "float64")),),
        features=tuple(Field(name, "float64") for name in (*CARD, *MERCHANT, *RAW)) + (Field("km", "float32"),),
        on_demand_source=SOURCE,
    )


def fitted() -> tuple[Any, NDArray[np.float32]]:
    """Return a gradient boosting of 100 trees, and the rows of shape (n, 20) it was fitted on."""
    from sklearn.ensemble import GradientBoostingClassifier

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 20)).astype(np.float32)
    labels = rows[:, 0] + rows[:, 1] * rows[:, 15] + rng.normal(size=4000) > 0
    return GradientBoostingClassifier(n_estimators=100, random_state=0).fit(rows, labels), rows


def build(settings: Settings, *, policies: Policies | None = None, backend: Backend = "onnx") -> None:
    """Publish the entities and release the model under `settings`, compiled or as scikit-learn has it."""
    import pandas as pd

    rng, agreed = np.random.default_rng(1), contract()
    with open_online(settings.online, write=True) as store:
        for group, columns in (("card_v1", [*CARD, "lat", "lon"]), ("merchant_v1", MERCHANT)):
            values = rng.normal(size=(ENTITIES, len(columns))).tolist()
            store.write(group, columns, [((key,), Row(NOW, NOW, key, tuple(row))) for key, row in enumerate(values)])
    model, rows = fitted()
    # The columns get names only now: scikit-learn on bare NumPy is what the peers are given.
    model.fit(pd.DataFrame(rows, columns=list(agreed.feature_names)), model.predict(rows))
    frame = dict(zip(agreed.feature_names, rows.T, strict=True))
    compiled = compile_estimator(model, agreed, frame)
    assert compiled.backend == "onnx", compiled.reason
    few = {name: values[:16] for name, values in frame.items()}
    payload = compiled.payload if backend == "onnx" else skops.io.dumps(model)
    files = {
        MODEL_FILES[backend]: payload,
        "contract.json": msgspec.json.encode(agreed),
        "golden.json": msgspec.json.encode(golden_pairs(few, compiled.model(agreed).predict(few))),
        "environment.txt": b"",
    }
    release = Release(
        id="fraud-1", service="fraud", number=1, created_at=time.time_ns() // 1000, task="classification",
        contract=agreed, label={}, view_fingerprint=agreed.fingerprint, groups={}, sources=(), seq=0,
        dataset=DatasetRef(id="d", hash="h", rows=len(rows), kind="view", now=NOW, splits={}), backend=backend,
        policies=policies or Policies(), layout=compiled.layout, parity=compiled.parity, metrics={}, baseline={}, gates=[],
        files={name: sha256(data) for name, data in files.items()},
        on_demand_sha256=sha256(SOURCE.encode()), environment={},
    )  # fmt: skip
    metadata = Metadata(settings.metadata)
    metadata.record_span("payments", first=0, last=NOW, known=NOW, rows=1)
    registry = Registry(metadata, settings.folder("releases"))
    registry.register(release, files)
    registry.promote("fraud", "fraud-1", reason="benchmark", override=Override(by="bench", reason="made to be timed"))
    metadata.close()


def _own(names: list[str]) -> dict[str, str]:
    return {name: name for name in names}


def _floats(names: list[str]) -> dict[str, str]:
    return dict.fromkeys(names, "float64")
