"""Followers of streams: one per service with a release, reported and begun again when it dies, gone with its parent."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.processes import processes_of
from windrow.followers import Followers
from windrow.settings import Settings
from windrow.stores.metadata import Metadata


@pytest.fixture
def told(settings: Settings) -> list[str]:
    return []


@pytest.fixture
def empty(tmp_path: Path) -> Settings:
    """A project that declares nothing: whoever follows there ends with an error."""
    return Settings.read({"WINDROW_HOME": str(tmp_path / "home"), "WINDROW_PROJECT": str(tmp_path)})


def released(settings: Settings) -> None:
    metadata = Metadata(settings.metadata)
    metadata.add_release("tiny", "tiny-1", b"{}")
    metadata.deploy("tiny", "tiny-1", reason="promoted", at=0)
    metadata.close()


def until(done: Callable[[], bool], followers: Followers, told: list[str]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        followers.look_after(told.append)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begun_and_ended(followers: Followers, settings: Settings, told: list[str]) -> None:
    """Wait until one is begun, and end it: nothing of it stays."""
    until(lambda: processes_of(settings.home) != {}, followers, told)
    followers.ask_to_end()
    followers.end(time.monotonic() + 5)
    assert processes_of(settings.home) == {}


def test_a_stream_without_a_release_is_not_begun(empty: Settings, told: list[str]) -> None:
    followers = Followers(["tiny"], empty)
    followers.look_after(told.append)
    assert (processes_of(empty.home), told) == ({}, [])
    followers.end(time.monotonic())


def test_a_store_that_does_not_answer_for_a_moment_ends_nothing(
    empty: Settings, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windrow.followers._LOOK", 0.0)
    released(empty)
    followers = Followers(["tiny"], empty)
    path = empty.home / "metadata.db"
    with closing(sqlite3.connect(path)) as file:
        file.execute("ALTER TABLE deployments RENAME TO away")
    for _ in range(3):
        followers.look_after(told.append)
    assert [line.partition(":")[0] for line in told] == ["the stream of 'tiny' has to wait"]
    assert processes_of(empty.home) == {}
    with closing(sqlite3.connect(path)) as file:
        file.execute("ALTER TABLE away RENAME TO deployments")
    begun_and_ended(followers, empty, told)


def test_a_follower_that_dies_is_told_with_what_it_said_and_begun_again(
    empty: Settings, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windrow.followers._FIRST_PAUSE", 0.05)
    released(empty)
    followers = Followers(["tiny"], empty)
    until(lambda: len(told) >= 2, followers, told)
    assert told[0].startswith("the stream of 'tiny' ended with exit code 1: DeclarationError: There is no package")
    assert told[1] == f"it begins again in 0.1 s; read {empty.home}/service/follow-tiny.log"
    begun_and_ended(followers, empty, told)
