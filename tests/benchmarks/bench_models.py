"""Models: how soon a release answers, one row against the scikit-learn pipeline, and batches by the fastest way.

``BENCH_SIZE=full`` scores 1M rows in a batch; the default is a tenth.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from msgspec.structs import replace

from tests.benchmarks.harness import Row, each, elapsed, quantile
from tests.models.making import contract_of, release_of
from windrow.clock import Clock
from windrow.features.arrow import to_pandas
from windrow.features.contract import Contract, Frame
from windrow.models.bundle import Bundle, load_bundle, write_bundle
from windrow.models.compile import Compiled, compile_estimator
from windrow.models.packing import pack
from windrow.models.registry import Registry
from windrow.models.release import encode_release
from windrow.models.runtime import batch_threads, few_threads
from windrow.stores.metadata import Metadata

WIDTH, TRAINED, TURNS, LISTED = 20, 5_000, 9, 1_000
BATCH = {"small": 100_000, "full": 1_000_000}[os.environ.get("BENCH_SIZE", "small")]
CONTRACT: Contract = contract_of(**{f"f{i}": "float64" for i in range(WIDTH)})


def rows() -> list[Row]:
    """Measure loading, one row and batches for gradient boosting, histogram boosting and a forest."""
    made: list[Row] = []
    with TemporaryDirectory(prefix="bench-models-") as folder:
        for name, (estimator, missing) in _models().items():
            frame = _frame(TRAINED, missing=missing)
            fitted = estimator.fit(to_pandas(frame), _labels(frame))
            compiled = compile_estimator(fitted, CONTRACT, frame)
            bundle = _bundle(Path(folder), name, compiled, frame)
            made += [_one_row(name, fitted, bundle, frame), _batch(name, fitted, compiled, bundle, missing=missing)]
        made += [_loads(path) for path in sorted(Path(folder).iterdir())]
        made.append(_side_process(Path(folder)))
        made.append(_listed(Path(folder)))
    return made


def _models() -> dict[str, tuple[Any, bool]]:
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    plain = FunctionTransformer  # a pipeline as it is usually written: one step before the model that changes nothing
    return {
        "GB": (make_pipeline(plain(), GradientBoostingClassifier(n_estimators=100, random_state=0)), False),
        "HistGB": (make_pipeline(plain(), HistGradientBoostingClassifier(max_iter=100, random_state=0)), True),
        "RF": (make_pipeline(plain(), RandomForestClassifier(50, random_state=0)), False),
        "RF with NaN": (make_pipeline(plain(), RandomForestClassifier(50, random_state=0)), True),
    }


def _frame(count: int, *, missing: bool, seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, WIDTH)).astype(np.float32)
    if missing:
        values[rng.random(values.shape) < 0.05] = np.nan
    return dict(zip(CONTRACT.feature_names, np.ascontiguousarray(values.T), strict=True))


def _labels(frame: Frame) -> Any:
    f = {name: np.nan_to_num(values) for name, values in frame.items()}
    return (f["f0"] + f["f1"] * f["f5"] + np.random.default_rng(1).normal(size=len(f["f0"])) > 0).astype(float)


def _bundle(folder: Path, name: str, compiled: Compiled, frame: Frame) -> Bundle:
    files = pack(compiled, CONTRACT, frame)
    return load_bundle(
        write_bundle(folder / name.lower().replace(" ", "-"), release_of(compiled, CONTRACT, files), files)
    )


def _one_row(name: str, fitted: Any, bundle: Bundle, frame: Frame) -> Row:
    one = {column: values[:1] for column, values in frame.items()}
    table = to_pandas(one)
    with few_threads():
        theirs = quantile(each(lambda: fitted.predict_proba(table), calls=200, warm=20), 0.5)
    ours = quantile(each(lambda: bundle.predict(one), calls=2000), 0.5)
    return Row(
        name=f"one row, {name}, p50", value=ours, unit="us", against=f"scikit-learn pipeline: {theirs:,.0f} us",
        ratio=theirs / ours, bar=">= 30 x faster", holds=theirs >= 30 * ours, note=f"{bundle.release.backend}, {WIDTH} floats",
    )  # fmt: skip


def _batch(name: str, fitted: Any, compiled: Compiled, bundle: Bundle, *, missing: bool) -> Row:
    frame = _frame(BATCH, missing=missing, seed=2)
    table = to_pandas(frame)
    ways = {"scikit-learn": lambda: fitted.predict_proba(table), "ours": lambda: bundle.predict_batch(frame)}
    if "onnx" in compiled.models:
        other = _onnx(compiled)
        ways["ONNX"] = lambda: other.predict(frame)
    with few_threads():  # by turns, and the middle one of each, so that other processes spoil all alike
        turns = [{way: elapsed(call) for way, call in ways.items()} for _ in range(TURNS)]
    peers = {way: median(turn[way] for turn in turns) for way in ways}
    ours = peers.pop("ours")
    peer = min(peers, key=lambda each: peers[each])
    return Row(
        name=f"batch, {name}", value=BATCH / ours, unit="rows/s", against=f"{peer}: {BATCH / peers[peer]:,.0f} rows/s",
        ratio=peers[peer] / ours, bar=">= 0.95 x the best of scikit-learn and ONNX", holds=ours <= peers[peer] / 0.95,
        note=f"by {bundle.release.batch_backend}, {BATCH:,} rows, {batch_threads()} native threads; ONNX only where it is proven",
    )  # fmt: skip


def _onnx(compiled: Compiled) -> Any:
    from windrow.models.runtime import OnnxModel

    form = compiled.models["onnx"]
    return OnnxModel(form.payload, CONTRACT, task=compiled.task, layout=form.layout, threads=batch_threads())


_LOADING = """
import sys, time
from pathlib import Path
import numpy, msgspec, windrow.models.bundle
begin = time.perf_counter()
windrow.models.bundle.load_bundle(Path(sys.argv[1])).replay_golden()
print(time.perf_counter() - begin)
"""


def _loads(folder: Path) -> Row:
    command = [sys.executable, "-c", _LOADING, str(folder)]
    told = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    backend = load_bundle(folder).release.backend
    return Row(
        name=f"compiled release loaded, {folder.name}", value=min(told), unit="s", bar="<= 1 s", holds=min(told) <= 1,
        note=f"{backend}, its runtime imported and the golden pairs answered, in a new process; best of 3",
    )  # fmt: skip


def _side_process(folder: Path) -> Row:
    from sklearn.neighbors import KNeighborsClassifier

    from windrow.serving.side_process import SidePredictor

    frame = _frame(TRAINED, missing=False)
    compiled = compile_estimator(KNeighborsClassifier(5).fit(to_pandas(frame), _labels(frame)), CONTRACT, frame)
    path = _path(folder, compiled, frame)
    spent = []
    for _ in range(3):
        begin = time.perf_counter()
        SidePredictor(path).close()
        spent.append(time.perf_counter() - begin)
    return Row(
        name="fallback ready in its side process", value=min(spent), unit="s", bar="<= 5 s", holds=min(spent) <= 5,
        note=f"nearest neighbours, {compiled.backend}; from start to its golden pairs answered; best of 3",
    )  # fmt: skip


def _listed(folder: Path) -> Row:
    release = load_bundle(min(folder.iterdir())).release
    metadata = Metadata(f"sqlite:///{folder / 'metadata.db'}")
    registry = Registry(metadata, folder / "releases", clock=Clock("real"))
    documents = [encode_release(replace(release, id=f"toy-{n}", number=n)) for n in range(LISTED)]
    for number, document in enumerate(documents):
        metadata.add_release("toy", f"toy-{number}", document)
    ours = min(elapsed(lambda: registry.list("toy")) for _ in range(5))
    theirs = min(elapsed(lambda: [json.loads(document) for document in documents]) for _ in range(5))
    return Row(
        name="1,000 releases listed", value=1000 * ours, unit="ms", against=f"json.loads of them: {1000 * theirs:.0f} ms",
        ratio=theirs / ours, bar="<= 100 ms", holds=ours <= 0.1, note=f"{len(documents[0]):,} bytes each, from SQLite; best of 5",
    )  # fmt: skip


def _path(folder: Path, compiled: Compiled, frame: Frame) -> Path:
    files = pack(compiled, CONTRACT, frame)
    return write_bundle(folder / "fallback", release_of(compiled, CONTRACT, files), files)


if __name__ == "__main__":
    for row in rows():
        print(row.name, round(row.value, 3), row.unit, row.against, row.ratio and round(row.ratio, 2), row.bar, row.holds, row.note)  # fmt: skip
