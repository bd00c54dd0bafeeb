"""The real BentoML process, from the outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.conftest import ROOT
from tests.processes import processes_of
from tests.serving import world
from tests.serving.conftest import Served, eventually, settings_for
from tests.serving.world import GOOD
from windrow.errors import SettingsError, StoreError
from windrow.serving.keys import make_key
from windrow.serving.local_key import local_key
from windrow.serving.run import SERVICE, free_port, start
from windrow.stores.log import records
from windrow.stores.metadata import Metadata

pytestmark = pytest.mark.xdist_group("bento")


def _children(pid: int) -> list[int]:
    """The process and everything below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def port_is_free(port: int | None) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError:
            return False
        return True


def test_the_service_is_ready_only_with_its_warm_releases(served: Served) -> None:
    assert served("GET", "/readyz") == (200, {"status": "ready", "releases": {"fraud": "fraud-1"}})


def test_an_explanation_comes_over_http_by_its_ticket(served: Served) -> None:
    status, answer = served("POST", "/v1/fraud/predict?explain=shap", GOOD)
    assert status in (200, 202)
    address, found = f"/v1/requests/{answer['request_id']}/explanation?kind=shap&row=0", list[Any]()

    def there() -> bool:
        found.append(served("GET", address))
        return found[-1][0] != 202

    eventually(there, seconds=240)
    status, made = found[-1]
    assert status == 200
    added = made["base"] + sum(c["contribution"] for c in made["contributions"])
    assert added == pytest.approx(made["raw"], abs=1e-4)
    assert made["raw"] == pytest.approx(answer["predictions"][0]["value"], abs=1e-6)


def test_a_prediction_is_answered_over_http_and_in_the_log(served: Served) -> None:
    status, answer = served("POST", "/v1/fraud/predict", GOOD)
    assert status == 200
    assert answer["predictions"][0]["value"] == pytest.approx(0.7211152, abs=1e-6)
    found = [r for _, r in records(served.settings.home / "log") if r.request_id == answer["request_id"]]
    # The committer may have taken it over already: then it is in the lake.
    assert [r.output for r in found] == [answer["predictions"][0]["value"]] or (
        served.settings.home / "lake" / "log"
    ).exists()


def test_bentoml_answers_nothing_itself(served: Served) -> None:
    for path in ("/", "/docs.json", "/healthz", "/livez", "/metrics", "/v1/openapi.json"):
        status, body = served("GET", path)
        assert status == 200, path
        assert "bento" not in json.dumps(body).lower(), path
    for path in ("/schema.json", "/static_content/index.css", "/predict"):
        status, body = served("GET", path)
        assert (status, body["type"]) == (404, "urn:windrow:problem:no-page"), path


def test_a_connection_is_kept_over_answers_and_problems(served: Served) -> None:
    bodies = (GOOD, {}, {"x": "y"}, GOOD)
    with closing(served.connect()) as connection:
        statuses = [served("POST", "/v1/fraud/predict", body, connection)[0] for body in bodies]
    assert statuses == [200, 422, 422, 200]


def test_a_body_over_one_mebibyte_is_413_over_http(served: Served) -> None:
    status, answer = served("POST", "/v1/fraud/predict", {"x": "y" * 1_100_000})
    assert (status, answer["type"]) == (413, "urn:windrow:problem:body-too-large")


def test_a_slow_body_is_our_problem_and_not_bentomls(served: Served) -> None:
    address = urlsplit(served.running.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as client:
        signed = b"authorization: Bearer " + local_key(served.settings).encode()
        client.sendall(b"POST /v1/fraud/predict HTTP/1.1\r\nhost: x\r\n" + signed + b"\r\ncontent-length: 10\r\n\r\n{")
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer


def test_the_service_listens_on_the_loopback_only(served: Served) -> None:
    port = f":{urlsplit(served.running.url).port:04X}"
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [address for address in listening if address.endswith(port)] == ["0100007F" + port]


def test_the_committer_runs_beside_the_service_and_commits_its_log(served: Served) -> None:
    served("POST", "/v1/fraud/predict", GOOD)
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _children(served.running.process.pid)]
    assert sum(b"windrow.stores.committer" in command for command in commands) == 1


def test_promoting_another_release_changes_answers_within_a_second_and_fails_none(served: Served) -> None:
    seen: list[tuple[float, int, str, float]] = []
    stop = threading.Event()

    def ask() -> None:
        with closing(served.connect()) as connection:
            while not stop.is_set():
                status, answer = served("POST", "/v1/fraud/predict", GOOD, connection)
                value = answer["predictions"][0]["value"] if status == 200 else -1.0
                seen.append((time.monotonic(), status, answer.get("release", ""), value))

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(0.3)
    world.release_fraud(served.settings, 2, shift=-3.0)
    promoted = time.monotonic()
    eventually(lambda: seen[-1][2] == "fraud-2")
    time.sleep(0.3)
    stop.set()
    for caller in callers:
        caller.join()
    assert {status for _, status, _, _ in seen} == {200}
    assert {(release, round(value, 4)) for _, _, release, value in seen} == {("fraud-1", 0.7211), ("fraud-2", 0.1141)}
    assert max(at for at, _, release, _ in seen if release == "fraud-1") - promoted < 1.0


def test_a_taken_port_is_refused_with_the_next_step(served: Served, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used: Address already in use. Next: choose another port"):
        start(settings_for(tmp_path), urlsplit(served.running.url).port)


def test_stopping_ends_every_process_and_hands_the_log_over(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with start(settings, wait_for="/livez") as running:
        family = _children(running.process.pid)
        assert Served(settings, running)("GET", "/readyz")[0] == 503
    assert not any(map(_alive, family))
    assert not list((settings.home / "log").glob("*.open"))


def test_without_a_key_the_service_as_it_starts_by_itself_answers_health_only(served: Served) -> None:
    with closing(served.connect()) as kept:
        # The bodies that are not read do not disturb the connection.
        answers = [served("POST", "/v1/fraud/predict", {"x": "y" * size}, kept, key="") for size in (1, 500_000, 1)]
        assert [(status, told["type"]) for status, told in answers] == [(401, "urn:windrow:problem:no-key")] * 3
        assert served("GET", "/livez", None, kept, key="")[0] == 200
    assert served("POST", "/v1/fraud/predict", GOOD, key="wr_0123456789_" + "0" * 64)[0] == 401


def test_a_key_is_revoked_under_a_running_service_within_a_second(served: Served) -> None:
    metadata = Metadata(served.settings.metadata)
    kept, key = make_key(metadata, "till", scopes=["predict"])
    eventually(lambda: served("POST", "/v1/fraud/predict", GOOD, key=key)[0] == 200)
    metadata.revoke_key(kept.id)
    revoked = time.monotonic()
    eventually(lambda: served("POST", "/v1/fraud/predict", GOOD, key=key)[0] == 401)
    assert time.monotonic() - revoked < 5  # 0.2 s on a quiet machine
    metadata.close()


def test_insecure_on_other_addresses_than_this_machines_starts_nothing(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(settings_for(tmp_path), insecure=True)
    with pytest.raises(SettingsError, match=r"this machine only, not on '0\.0\.0\.0'. Next: leave out --insecure"):
        start(settings, host="0.0.0.0")
    assert not (settings.home / "service").exists()


def test_insecure_by_the_environment_alone_ends_with_an_error_before_it_answers_other_machines(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(settings_for(tmp_path), insecure=True)
    port, environ = free_port(), {**os.environ, **settings.environ(), "BENTOML_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", "0.0.0.0", "--port", str(port)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert (
        "SettingsError: without access keys the service listens on this machine only, not on '0.0.0.0'" in done.stderr
    )
    assert processes_of(settings.home) == {}


IN_ONE_PROCESS = """
import asyncio, sys
from bento.service import WindrowService, worker
app = WindrowService.to_asgi()
scope = {"type": "http", "method": "POST", "path": "/v1/fraud/predict", "raw_path": b"/v1/fraud/predict", "query_string": b"",
         "headers": [], "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "root_path": ""}

async def main():
    events, started, sent = asyncio.Queue(), asyncio.Event(), []
    async def told(message): started.set()
    async def body(): return {"type": "http.request", "body": b'{"card_id": 1, "amount": 20, "x": 4}'}
    async def send(message): sent.append(message)
    await events.put({"type": "lifespan.startup"})
    life = asyncio.create_task(app({"type": "lifespan", "state": {}}, events.get, told))
    await started.wait()
    while not worker.live.ready: await asyncio.sleep(0.01)
    await app(scope, body, send)
    assert sent[0]["status"] == 200, sent
    heavy = "dagster evidently papermill ibis pandas sklearn shap pyarrow duckdb deltalake skops onnx pandera".split()
    print(type(app.middleware_stack).__name__, [name for name in heavy if name in sys.modules])
    await events.put({"type": "lifespan.shutdown"})
    await life

asyncio.run(main())
"""


def test_with_a_release_loaded_and_answering_no_heavy_package_is_imported_and_nothing_stands_before_us(
    tmp_path: Path,
) -> None:
    settings = msgspec.structs.replace(settings_for(tmp_path), insecure=True)
    world.publish(settings)
    world.release_fraud(settings)
    environ = {**os.environ, **settings.environ()}
    command = [sys.executable, "-c", IN_ONE_PROCESS]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.strip().splitlines()[-1:] == ["WindrowMiddleware []"], done.stderr[-2000:]


def test_the_image_has_the_bounds_of_the_package() -> None:
    import yaml

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {*declared["dependencies"], *declared["optional-dependencies"]["serve"]}
    packages = yaml.safe_load((ROOT / "bento" / "bentofile.yaml").read_text())["python"]["packages"]
    assert set(packages) <= bounds
    assert {p for p in bounds if not p.startswith(("click", "rich"))} == set(packages)


@pytest.mark.slow
def test_the_bento_builds_from_the_root(tmp_path: Path) -> None:
    environ = {**os.environ, "BENTOML_HOME": str(tmp_path), "WINDROW_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "bentoml", "build", "-f", "bento/bentofile.yaml", "."]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.glob("bentos/windrow/*/src/bento/service.py"))
