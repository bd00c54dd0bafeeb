"""The whole rig over HTTP against two model servers, MLServer and KServe, with the same model in scikit-learn.

Each runs in an environment of its own, if there is one: mlserver-requirements.txt and kserve-requirements.txt say how.
They are given the 20 floats of the vector; ours is given two keys and four values, and looks up, computes and logs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import joblib  # noqa: TID251 - the format that the peers load

from tests.benchmarks import rig
from tests.benchmarks.bench_http import CONNECTIONS, ROUNDS, SECONDS, serving
from tests.benchmarks.harness import Row
from tests.benchmarks.loader import Load, load
from windrow.serving.local_key import local_key
from windrow.serving.run import free_port, start
from windrow.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BAR = 3.0
_NOTE = f"median of {ROUNDS} rounds of {SECONDS} s; one process each; theirs get the vector, ours makes it, checks the key and logs"


class Server(NamedTuple):
    """A peer: its name, how it is started for (port, folder with model.joblib), where it is asked, and what."""

    name: str
    command: Callable[[int, Path], list[str]]
    path: str
    body: Callable[[list[float]], object]


def _mlserver(port: int, folder: Path) -> list[str]:
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_endpoint": None, "debug": False,
        "parallel_workers": 0, "gzip_enabled": False,
    }  # fmt: skip
    model = {"name": "peer", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "model.joblib"}}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return ["-m", "mlserver.cli.main", "start", str(folder)]


def _v2(values: list[float]) -> object:
    inputs = {"name": "rows", "shape": [1, len(values)], "datatype": "FP32", "data": values}
    return {"inputs": [inputs], "outputs": [{"name": "predict_proba"}]}


def _kserve(port: int, folder: Path) -> list[str]:
    return [str(ROOT / "tests" / "benchmarks" / "kserve_peer.py"), str(port), str(folder / "model.joblib")]


SERVERS = (
    Server("MLServer", _mlserver, "/v2/models/peer/infer", _v2),
    Server("KServe", _kserve, "/v1/models/peer:predict", lambda values: {"instances": [values]}),
)


def rows() -> list[Row]:
    """Load ours and each server that is installed in turn; ratios are taken within a round, then their median."""
    there = {server: python for server in SERVERS if (python := _python(server)).exists()}
    loads = _measured(there) if there else {}
    return [row for server in SERVERS for row in (_compared(server, loads) if server in there else [_absent(server)])]


def _measured(there: dict[Server, Path]) -> dict[tuple[str, int], list[Load]]:
    model, vectors = rig.fitted()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        settings = Settings.read({"WINDROW_HOME": f"{folder}/home", "WINDROW_PROJECT": str(ROOT)})
        rig.build(settings)
        key = local_key(settings)
        joblib.dump(model, f"{folder}/model.joblib")
        asked = {"windrow": (stack.enter_context(start(settings)).url + "/v1/fraud/predict", rig.BODY)}
        for server, python in there.items():
            asked[server.name] = stack.enter_context(_running(server, python, Path(folder), vectors[0].tolist()))
        return _loaded(asked, key)


@contextmanager
def _running(server: Server, python: Path, folder: Path, values: list[float]) -> Iterator[tuple[str, bytes]]:
    body = json.dumps(server.body(values)).encode()
    with serving(lambda port: server.command(port, folder), path=server.path, body=body, python=python) as url:
        yield url, body


def _loaded(asked: dict[str, tuple[str, bytes]], key: str) -> dict[tuple[str, int], list[Load]]:
    loads: dict[tuple[str, int], list[Load]] = {}
    for url, body in asked.values():
        load(url, body, connections=8, seconds=1, key=key)
    for _ in range(ROUNDS):
        for connections in CONNECTIONS:
            for name, (url, body) in asked.items():
                found = load(url, body, connections=connections, seconds=SECONDS, key=key)
                assert not found.failed, (name, found)
                loads.setdefault((name, connections), []).append(found)
    return loads


def _compared(server: Server, loads: dict[tuple[str, int], list[Load]]) -> list[Row]:
    made = []
    for connections in CONNECTIONS:
        ours, theirs = loads["windrow", connections], loads[server.name, connections]
        ratio = median(a.per_second / b.per_second for a, b in zip(ours, theirs, strict=True))
        made.append(
            Row(
                name=f"http requests/s against {server.name}, {connections} connection{'s' if connections > 1 else ''}",
                value=median(one.per_second for one in ours),
                unit="1/s",
                against=f"{server.name}: {median(one.per_second for one in theirs):,.0f} 1/s, {_quantiles(theirs)}; ours {_quantiles(ours)}",
                ratio=ratio,
                bar=f">= {BAR:g} x",
                holds=ratio >= BAR,
                note=_NOTE,
            )
        )
    return made


def _quantiles(loads: list[Load]) -> str:
    return f"p50 {median(one.p50_ms for one in loads):.2f} p99 {median(one.p99_ms for one in loads):.2f} ms"


def _absent(server: Server) -> Row:
    name = server.name.lower()
    install = f"python3.11 -m venv .windrow/{name} && .windrow/{name}/bin/pip install -r tests/benchmarks/{name}-requirements.txt"
    return Row(name=f"http against {server.name}", value=0.0, unit="1/s", against=f"not measured: {install}")


def _python(server: Server) -> Path:
    name = server.name.lower()
    return Path(os.environ.get(f"{name.upper()}_PYTHON") or Settings.read().home / name / "bin" / "python")
