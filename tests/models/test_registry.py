"""A release is visible when all of it is there, and a switch is one row."""

from __future__ import annotations

import msgspec
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from tests.models.making import NUMBERS, fitted, frame_of, release_of
from windrow.errors import ModelError, NotFoundError, StoreError
from windrow.models.compile import compile_estimator
from windrow.models.packing import pack
from windrow.models.registry import Registry
from windrow.models.release import decode_release, encode_release
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


def numbered(release, number):
    return msgspec.structs.replace(release, id=f"toy-{number}", number=number)


def test_a_registered_release_is_listed_and_loads_and_is_not_live(registry, made):
    registry.register(*made)
    assert [r.id for r in registry.list("toy")] == ["toy-1"]
    assert registry.services() == ("toy",)
    assert registry.load("toy-1").replay_golden() <= 1e-7
    assert registry.live("toy") is None


def test_numbers_count_the_releases_of_a_service(registry, made):
    assert registry.next_number("toy") == 1
    registry.register(*made)
    assert (registry.next_number("toy"), registry.next_number("other")) == (2, 1)


def test_promoting_and_going_back_append_to_the_history(registry, made):
    release, files = made
    for number in (1, 2):
        registry.register(numbered(release, number), files)
    registry.promote("toy", "toy-1", reason="first", at=1)
    registry.promote("toy", "toy-2", reason="better", at=2)
    registry.promote("toy", "toy-1", reason="rollback", at=3)
    assert registry.live("toy").id == "toy-1"


def test_nothing_is_visible_when_the_row_cannot_be_written(tmp_path, made):
    metadata = Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")
    registry = Registry(metadata, tmp_path / "releases")
    metadata.add_release("another", "toy-1", b"{}")  # so that the insert fails, after the files are there
    with pytest.raises(StoreError, match="release 'toy-1' exists with other contents"):
        registry.register(*made)
    assert registry.list("toy") == []
    assert list((tmp_path / "releases").iterdir()) == []


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
