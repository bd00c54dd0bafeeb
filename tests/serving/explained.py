"""Releases of small models, made to be explained."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.models.making import MIXED, frame_of, labels, release_of
from windrow.features.arrow import to_pandas
from windrow.features.contract import Contract, Frame
from windrow.models.background import FILE, Background, sampled
from windrow.models.bundle import MODEL_FILES, Bundle, open_bundle
from windrow.models.compile import Compiled, Form, compile_estimator, task_of
from windrow.models.packing import pack
from windrow.models.release import Proven

ORIGINS = {"a": ["rows.a"], "b": ["rows.a"], "plan": ["plans.name", "plans.price"]}


def bundle_of(
    estimator: Any, *, classes: int = 2, contract: Contract = MIXED, seed: int = 0, immutable: tuple[str, ...] = (),
    original: bool = True, missing: bool = True,
) -> Bundle:  # fmt: skip
    """Fit, compile and release an estimator for two classes, more, or (0) for a value."""
    frame = frame_of(contract, missing=missing, seed=seed)
    estimator.fit(to_pandas(frame), labels(frame, classes))
    compiled = compile_estimator(estimator, contract, frame) if not original else _as_it_is(estimator)
    files = pack(compiled, contract, frame)
    facts = Background(rows=sampled(frame), origins=ORIGINS, immutable=list(immutable))
    files[FILE] = msgspec.json.encode(facts)
    if not original:
        files = {name: data for name, data in files.items() if name != MODEL_FILES["sklearn"]}
    release = msgspec.structs.replace(release_of(compiled, contract, files), batch_backend=compiled.backend)
    return open_bundle(release, files)


def _as_it_is(estimator: Any) -> Compiled:
    """Leave an estimator in scikit-learn, without the proofs that take seconds."""
    from skops.io import dumps

    form = Form(payload=dumps(estimator), layout="columns", parity={"refused_by_the_original": {}})
    proven = Proven(max_difference={}, rows_per_second=1, us_per_row=1)
    return Compiled(backend="sklearn", task=task_of(estimator), models={"sklearn": form}, backends={"sklearn": proven})


def rows(frame: Frame, count: int) -> Frame:
    """The first rows of a frame."""
    return {name: values[:count] for name, values in frame.items()}


def one_hot(**options: Any) -> Any:
    """Preprocessing that models of any kind can stand behind."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    encoder = OneHotEncoder(handle_unknown="ignore", **options)
    return make_column_transformer((numbers, ["a", "b"]), (encoder, ["plan"]))


def kept_missing() -> Any:
    """Preprocessing that leaves missing numbers to the model."""
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer((encoder, ["plan"]), remainder="passthrough")
