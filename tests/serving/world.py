"""A tiny project that was trained, released and published: what a worker needs to answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from windrow.features.contract import Contract, Lookup, OnDemand
from windrow.models.background import Background
from windrow.models.bundle import MODEL_FILES, Golden, golden_pairs
from windrow.models.card import card
from windrow.models.registry import Registry
from windrow.models.release import DatasetRef, Release, sha256
from windrow.models.runtime import MATRIX_INPUT, SklearnModel
from windrow.schema import Field
from windrow.settings import Settings
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online

NOW = 1_000_000_000
DAY = 86_400_000_000
SOURCE = """
import numpy as np

def distance(x, y):
    return np.abs(x - y)
"""
CARD = Lookup(
    "card_v1",
    "f",
    {"card_id": "card_id"},
    {"limit": "limit", "card.x": "x"},
    {"limit": "float64", "card.x": "float64"},
    ttl=DAY,
)
DISTANCE = OnDemand(
    "distance", "distance", "float32", {"x": "request.x", "y": "stored.card.x"}, {"x": "float64", "y": "float64"}
)
FRAUD = Contract(
    view="fraud",
    spine="payments",
    request=(Field("card_id", "int64"), Field("amount", "float64"), Field("x", "float64")),
    optional=(Field("payment_id", "int64"),),
    lookups=(CARD,),
    on_demand=(DISTANCE,),
    features=(Field("limit", "float64"), Field("amount", "float64"), Field("distance", "float32")),
    on_demand_source=SOURCE,
)
CHURN = Contract(
    view="churn",
    spine="customers",
    request=(Field("customer_id", "string"),),
    optional=(),
    lookups=(
        Lookup(
            "customer_v1",
            "f",
            {"customer_id": "customer_id"},
            {"plan": "plan", "months": "months"},
            {"plan": "string", "months": "int64"},
        ),
    ),
    on_demand=(),
    features=(Field("plan", "string"), Field("months", "int64")),
)
GOOD = {"card_id": 1, "amount": 20.0, "x": 4.0}


def publish(settings: Settings) -> None:
    """Fill the online store: cards 1 (ordinary), 2 (a null limit), 3 (expired); customers anna and ben."""
    with open_online(settings.online, write=True) as store:
        cards = {
            1: Row(NOW, NOW, 1, (500.0, 1.5)),
            2: Row(NOW, NOW, 2, (None, 1.5)),
            3: Row(NOW - 2 * DAY, NOW - 2 * DAY, 3, (9.0, 0.0)),
        }
        store.write("card_v1", ["limit", "x"], [((key,), row) for key, row in cards.items()])
        customers = {"anna": Row(NOW, NOW, 1, (24, "gold")), "ben": Row(NOW, NOW, 2, (1, None))}
        store.write("customer_v1", ["months", "plan"], [((key,), row) for key, row in customers.items()])
    metadata = Metadata(settings.metadata)
    metadata.record_span("payments", first=0, last=NOW, known=NOW, rows=3)
    metadata.record_span("other", first=0, last=NOW, known=NOW + 10**15, rows=1)
    metadata.close()


def release_fraud(
    settings: Settings, number: int = 1, *, shift: float = 0.0, promote: bool = True, **facts: Any
) -> str:
    """Release a logistic regression in ONNX whose answer moves with `shift`."""
    return release_like(settings, FRAUD, number, shift=shift, promote=promote, **facts)


def release_like(settings: Settings, contract: Contract, number: int, *, shift: float = 0.0, promote: bool = True, **facts: Any) -> str:  # fmt: skip
    """Release the same model for another contract of three numbers."""
    payload, golden = _compiled(shift, contract.feature_names)
    return _register(
        settings, contract, f"{contract.view}-{number}", payload, golden, promote=promote, number=number, **facts
    )


def release_raising(settings: Settings, number: int = 1, *, promote: bool = True, **facts: Any) -> str:
    """Release an ONNX model that answers 0.25, and raises for an amount of 100 or more."""
    from onnx import TensorProto, helper, numpy_helper

    share = np.tile(np.array([[0.75, 0.25]], dtype=np.float32), (100, 1))
    given = {"answers": share, "first": np.array([1]), "end": np.array([2]), "axis": np.array([1])}
    nodes = [
        helper.make_node("Slice", [MATRIX_INPUT, "first", "end", "axis"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["amounts"]),
        helper.make_node("Cast", ["amounts"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["answers", "places"], ["probabilities"]),
    ]
    inputs = [helper.make_tensor_value_info(MATRIX_INPUT, TensorProto.FLOAT, [None, 3])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])]
    held = [numpy_helper.from_array(values, name) for name, values in given.items()]
    graph = helper.make_graph(nodes, "raising", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    frame = {name: np.array([1, 2], dtype=np.float32) for name in FRAUD.feature_names}
    golden = golden_pairs(frame, np.array([0.25, 0.25]))
    id = f"fraud-{number}"
    return _register(settings, FRAUD, id, model.SerializeToString(), golden, promote=promote, number=number, **facts)


def release_churn(
    settings: Settings,
    number: int = 1,
    *,
    promote: bool = True,
    more: dict[str, bytes] | None = None,
    strength: float = 1.0,
    **facts: Any,
) -> str:
    """Release a pipeline with one-hot encoding that stays in scikit-learn, regularised by `strength`."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from skops.io import dumps

    frame = {
        "plan": np.array(["gold", "basic", "(missing)", "gold"], dtype=object),
        "months": np.array([24, 1, 2, 30], dtype=np.float32),
    }
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    model = make_pipeline(encoder, LogisticRegression(C=strength)).fit(pd.DataFrame(frame), [0, 1, 1, 0])
    outputs = SklearnModel(model, task="classification").predict(frame)
    return _register(
        settings,
        CHURN,
        f"churn-{number}",
        dumps(model),
        golden_pairs(frame, outputs),
        backend="sklearn",
        layout="columns",
        promote=promote,
        number=number,
        **{"unknown_entity": "predict", **facts},
        more=more,
    )


def release_explained(settings: Settings) -> None:
    """Release fraud with its original pipeline and its background, and churn with features that nobody can change."""
    from skops.io import dumps

    payload, golden = _compiled(-1.0)
    random = np.random.default_rng(0)
    columns = {
        "limit": random.uniform(0, 900, 120),
        "amount": random.gamma(2, 20, 120),
        "distance": random.gamma(1, 3, 120),
    }
    origins = {"limit": ["customers.limit"], "amount": ["payments.amount"], "distance": ["customers.x", "payments.x"]}
    files = {
        "model.skops": dumps(_logistic(-1.0)),
        "background.json": msgspec.json.encode(
            Background(rows={n: v.tolist() for n, v in columns.items()}, origins=origins, immutable=["limit"])
        ),
    }
    _register(settings, FRAUD, "fraud-1", payload, golden, promote=True, number=1, more=files)
    fixed = Background(rows={"plan": ["gold", "basic"], "months": [24.0, 1.0]}, immutable=["plan", "months"])
    release_churn(settings, more={"background.json": msgspec.json.encode(fixed)})


@lru_cache
def _compiled(shift: float, names: Sequence[str] = FRAUD.feature_names) -> tuple[bytes, Golden]:
    import warnings

    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    model = _logistic(shift)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = convert_sklearn(
            model, initial_types=[(MATRIX_INPUT, FloatTensorType([None, 3]))], options={id(model): {"zipmap": False}}
        )
    inputs = np.array([[500, 20, 2.5], [1, 2, 3]], dtype=np.float32)
    frame = dict(zip(names, inputs.T, strict=True))
    return made.SerializeToString(), golden_pairs(frame, model.predict_proba(inputs)[:, 1])


def _logistic(shift: float) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    inputs = np.array([[0, 0, 0], [500, 20, 2.5]], dtype=np.float32)
    model = make_pipeline(SimpleImputer(strategy="constant", fill_value=0), LogisticRegression()).fit(inputs, [0, 1])
    model[-1].coef_ = np.array([[0.001, 0.01, 0.1]])
    model[-1].intercept_ = np.array([shift])
    return model


def _register(
    settings: Settings,
    contract: Contract,
    id: str,
    payload: bytes,
    golden: Any,
    *,
    promote: bool,
    number: int,
    backend: Any = "onnx",
    layout: Any = "matrix",
    more: dict[str, bytes] | None = None,
    **facts: Any,
) -> str:
    files = {
        MODEL_FILES[backend]: payload,
        "contract.json": msgspec.json.encode(contract),
        "golden.json": msgspec.json.encode(golden),
        "environment.txt": b"windrow\n",
        **(more or {}),
    }
    values: dict[str, Any] = {
        "parity": {},
        "metrics": {"auc": 0.9},
        "baseline": {"auc": 0.5},
        "sources": ("payments",),
        "gates": [],
        "groups": {},
        **facts,
    }
    release = Release(
        id=id, service=contract.view, number=number, created_at=time.time_ns() // 1000, task="classification", contract=contract, label={},
        view_fingerprint=contract.fingerprint, seq=0, dataset=DatasetRef(id="d", hash="h", rows=2, kind="view", now=NOW, splits={}),
        backend=backend, layout=layout, files={name: sha256(data) for name, data in files.items()},
        on_demand_sha256=sha256(contract.on_demand_source.encode()), environment={}, **values,
    )  # fmt: skip
    metadata = Metadata(settings.metadata)
    registry = Registry(metadata, settings.folder("releases"))
    registry.register(release, files)
    if promote:
        registry.promote(contract.view, id, reason="test")
    metadata.close()
    return id


def release_with_card(settings: Settings, like: str, id: str) -> Release:
    """Register a copy of a release that has a model card."""
    metadata = Metadata(settings.metadata)
    registry = Registry(metadata, settings.folder("releases"))
    old = registry.release(like)
    files = {name: (registry.path(like) / name).read_bytes() for name in old.files}
    release = msgspec.structs.replace(old, id=id, number=9)
    files["card.html"] = card(release).encode()
    release = msgspec.structs.replace(release, files={name: sha256(data) for name, data in files.items()})
    registry.register(release, files)
    metadata.close()
    return release
