"""A version of a group stays declared while a release may be called back to it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.models.making import bare_release
from windrow import Entity, FeatureGroup, Source, feature_group
from windrow.errors import VersionError
from windrow.models.release import Release, encode_release
from windrow.models.versions import Kept, check_kept, groups_kept, kept_versions
from windrow.stores.metadata import Metadata

payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})


def spend(payments):
    return payments.select("card_id", "amount")


def version(number: int) -> FeatureGroup:
    return feature_group(Entity("card", card_id="int64"), version=number, name="spend")(spend)


@pytest.fixture(scope="module")
def release() -> Release:
    return bare_release()


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    return Metadata(f"sqlite:///{tmp_path}/metadata.db")


def add(metadata: Metadata, release: Release, *reads: str) -> None:
    for number, group in enumerate(reads, 1):
        made = msgspec.structs.replace(release, id=f"toy-{number}", number=number, groups={group: "f"})
        metadata.add_release("toy", made.id, encode_release(made))


def test_the_last_releases_keep_what_they_read(metadata: Metadata, release: Release) -> None:
    add(metadata, release, "spend_v1", "spend_v2", "spend_v2", "spend_v3")
    assert kept_versions(metadata, ["toy"], keep=3) == [
        Kept("toy", "spend_v3", ("toy-4",)),
        Kept("toy", "spend_v2", ("toy-3", "toy-2")),
    ]


def test_the_live_release_keeps_what_it_reads_however_old_it_is(metadata: Metadata, release: Release) -> None:
    add(metadata, release, "spend_v1", "spend_v2", "spend_v2")
    metadata.deploy("toy", "toy-1", reason="it was better", at=0)
    assert kept_versions(metadata, ["toy"], keep=1)[1] == Kept("toy", "spend_v1", ("toy-1",))


def test_a_version_taken_away_too_early_is_told_with_the_releases_and_the_line_to_write() -> None:
    kept = [Kept("toy", "spend_v1", ("toy-2", "toy-1"))]
    with pytest.raises(
        VersionError,
        match=r"version 1 of feature group 'spend' is not declared any more, but service 'toy' needs it for 'toy-1', 'toy-2'. "
        r'.*did you mean .spend_v2.*keep it: @feature_group\(..., name="spend", version=1\).*WINDROW_KEEP_RELEASES',
    ):
        check_kept(kept, [version(2)])
    check_kept(kept, [version(1), version(2)])


def test_a_kept_version_is_fed_beside_the_new_one() -> None:
    old, new = version(1), version(2)
    assert groups_kept([Kept("toy", "spend_v1", ("toy-1",))], [old, new], "toy") == [old]
    assert groups_kept([Kept("toy", "spend_v1", ("toy-1",))], [old, new], "other") == []
