"""What every test shares: an environment of its own, found programs, found data files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.needs import data_folder, need
from windrow.settings import Settings
from windrow.telemetry import switch_off

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    switch_off()
    # Numerical libraries start one thread per core each; two test workers share two cores.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            need(program)
    for marker in item.iter_markers("data"):
        for name in marker.args:
            if not (data_folder() / name).is_file():
                pytest.skip(f"{name} is not in WINDROW_DATA ({data_folder()})")


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own WINDROW_HOME and nothing of the caller's settings."""
    for name in [n for n in os.environ if n.startswith("WINDROW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WINDROW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WINDROW_DATA", str(tmp_path / "no-data"))
    monkeypatch.setenv("DAGSTER_HOME", "")


@pytest.fixture
def settings() -> Settings:
    """Settings whose every writable place is in this test's own folder; no data files, so simulators answer."""
    return Settings.read()


@pytest.fixture
def data() -> Path:
    """The folder of real data files (`WINDROW_DATA`); mark the test `@pytest.mark.data("file.csv")`."""
    return data_folder()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return ports of the loopback that nothing listens on; no port twice in one test."""
    given: set[int] = set()

    def take() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port in given:
            return take()
        given.add(port)
        return port

    return take
