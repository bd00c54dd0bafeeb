"""A release is visible when all of it is there, and a switch is one row."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import msgspec
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from tests.models.making import NUMBERS, fitted, frame_of, release_of
from windrow.errors import ModelError, NotFoundError, StoreError
from windrow.models.bundle import write_bundle
from windrow.models.compile import compile_estimator
from windrow.models.packing import pack
from windrow.models.registry import Registry
from windrow.models.release import decode_release, encode_release
from windrow.models.unfinished import signed
from windrow.stores.metadata import Metadata


@pytest.fixture(scope="module")
def made():
    frame = frame_of(NUMBERS)
    compiled = compile_estimator(fitted(HistGradientBoostingClassifier(max_iter=5), frame), NUMBERS, frame)
    files = pack(compiled, NUMBERS, frame)
    return release_of(compiled, NUMBERS, files), files


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(Metadata(f"sqlite:///{tmp_path / 'metadata.db'}"), tmp_path / "releases")


def left(home):
    """What is in the folder of releases, besides the lock that all who register hold."""
    return sorted(path.name for path in (home / "releases").iterdir() if path.name != ".registering")


def numbered(release, number):
    return msgspec.structs.replace(release, id=f"toy-{number}", number=number)


def test_a_registered_release_is_listed_and_loads_and_is_not_live(registry, made):
    registry.register(*made)
    assert [r.id for r in registry.list("toy")] == ["toy-1"]
    assert registry.services() == ("toy",)
    assert registry.load("toy-1").replay_golden() <= 1e-7
    assert registry.live("toy") is None


def test_numbers_count_the_releases_of_a_service(registry, made):
    release, files = made
    other = msgspec.structs.replace(release, service="other")
    found = [registry.register_next(one, lambda numbered: (numbered, files)) for one in (release, release, other)]
    assert [(r.service, r.number) for r in found] == [("toy", 1), ("toy", 2), ("other", 1)]
    assert [registry.release(r.id) for r in found] == found


def test_a_number_is_never_given_twice_to_trainings_that_end_at_once(tmp_path, made):
    release, files = made

    def register(_):
        store = Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")
        mine = Registry(store, tmp_path / "releases")
        try:
            return [mine.register_next(release, lambda numbered: (numbered, files)).number for _ in range(3)]
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for found in pool.map(register, range(4)) for number in found]
    assert sorted(numbers) == list(range(1, 13))
    assert len([path for path in (tmp_path / "releases").iterdir() if not path.name.startswith(".")]) == 12


def test_promoting_and_going_back_append_to_the_history(registry, made):
    release, files = made
    for number in (1, 2):
        registry.register(numbered(release, number), files)
    registry.promote("toy", "toy-1", reason="first", at=1)
    registry.promote("toy", "toy-2", reason="better", at=2)
    registry.promote("toy", "toy-1", reason="rollback", at=3)
    assert registry.live("toy").id == "toy-1"


def test_nothing_is_visible_when_the_row_cannot_be_written(tmp_path, registry, made):
    with closing(
        sqlite3.connect(tmp_path / "metadata.db")
    ) as store:  # so that the insert fails, after the files are there
        store.execute("CREATE TRIGGER full BEFORE INSERT ON releases BEGIN INSERT INTO nowhere VALUES (1); END")
    with pytest.raises(StoreError, match="cannot be used: no such table"):
        registry.register(*made)
    assert registry.list("toy") == []
    assert left(tmp_path) == []


def test_the_id_of_another_service_is_not_taken(tmp_path, registry, made):
    release, files = made
    registry.register(msgspec.structs.replace(release, service="other"), files)
    with pytest.raises(StoreError, match="release 'toy-1' exists already"):
        registry.register(release, files)
    assert registry.load("toy-1").release.service == "other"


def test_nothing_is_visible_when_the_files_cannot_be_written(tmp_path, made):
    registry = Registry(Metadata(f"sqlite:///{tmp_path / 'metadata.db'}"), tmp_path / "releases")
    (tmp_path / "releases").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="release 'toy-1' cannot be written"):
        registry.register(*made)
    assert registry.list("toy") == []


def test_a_folder_left_by_a_dead_process_is_replaced(registry, made, tmp_path):
    left = tmp_path / "releases" / "toy-1"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    registry.register(*made)
    assert registry.load("toy-1").replay_golden() <= 1e-7


_KILLED = """
import os, signal, sys
from pathlib import Path
from windrow.models import bundle
from windrow.models.registry import Registry
from windrow.stores.metadata import Metadata

home, given, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class Deadly(Metadata):
    def add_release(self, *given, **more):
        if moment == "after its row":
            super().add_release(*given, **more)
        die()

if moment == "amid its files":
    bundle.os.rename = die
release = bundle.read_release(given)
files = {name: (given / name).read_bytes() for name in release.files}
Registry(Deadly(f"sqlite:///{home / 'metadata.db'}"), home / "releases").register(release, files)
"""


def killed(home, folder, moment):
    """Register the release of a folder in a process that is killed at a moment of it."""
    command = [sys.executable, "-c", _KILLED, str(home), str(folder), moment]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["amid its files", "before its row", "after its row"])
def test_what_a_killed_registration_left_is_swept_by_the_next_one(tmp_path, registry, made, moment):
    release, files = made
    killed(tmp_path, write_bundle(tmp_path / "given", release, files), moment)
    assert left(tmp_path) != []
    registry.register(numbered(release, 2), files)
    kept = ["toy-1", "toy-2"] if moment == "after its row" else ["toy-2"]
    assert (left(tmp_path), [r.id for r in registry.list("toy")]) == (kept, kept)
    assert all(registry.load(id).replay_golden() <= 1e-7 for id in kept)


def test_a_registration_at_work_is_not_swept(tmp_path, registry, made):
    release, files = made
    with signed(tmp_path / "releases", "toy-9", registered=lambda id: False):
        half = tmp_path / "releases" / "toy-9"
        half.mkdir()
        registry.register(numbered(release, 7), files)
        assert half.is_dir()
    registry.register(numbered(release, 8), files)
    assert left(tmp_path) == ["toy-7", "toy-8", "toy-9"]  # it gave its sign back: nobody's to remove


def test_a_folder_without_a_sign_is_never_swept(tmp_path, registry, made):
    release, files = made
    kept = write_bundle(tmp_path / "releases" / "toy-5", numbered(release, 5), files)
    registry.register(*made)
    assert kept.is_dir()


def test_promoting_what_is_live_adds_nothing(registry, made):
    registry.register(*made)
    registry.promote("toy", "toy-1", reason="first", at=1)
    assert registry.promote("toy", "toy-1", reason="again", at=2) is None
    assert [(d.release, d.reason) for d in registry.history("toy")] == [("toy-1", "first")]


def test_a_release_is_never_registered_twice(registry, made):
    registry.register(*made)
    with pytest.raises(StoreError, match=r"release 'toy-1' exists already.*releases never change"):
        registry.register(*made)


def test_a_release_that_is_damaged_on_disk_is_not_promoted(registry, made, tmp_path):
    registry.register(*made)
    (tmp_path / "releases" / "toy-1" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"model\.onnx is not the file that was released"):
        registry.promote("toy", "toy-1", reason="why not")
    assert registry.live("toy") is None


def test_an_unknown_release_is_not_promoted(registry):
    with pytest.raises(NotFoundError, match="service 'toy' has no release 'toy-9'"):
        registry.promote("toy", "toy-9", reason="typo")


def test_an_id_cannot_point_out_of_the_folder(registry):
    with pytest.raises(ModelError, match=r"'\.\./secret' is no id of a release"):
        registry.path("../secret")


def test_a_release_survives_writing_and_reading(made):
    release, _ = made
    assert decode_release(encode_release(release), where="release.json") == release


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no json", "is not a release"),
        (b'{"format": 1}', "is not a release: "),
        (b'{"format": 2}', "release format 2"),
    ],
)
def test_what_is_not_a_release_is_refused(data, message):
    with pytest.raises(ModelError, match=message):
        decode_release(data, where="release.json")
