"""Lineage that is kept between processes: the same answer, no compiler, and a bad file is as good as none."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from windrow import Entity, FeatureGroup, Source, feature_group
from windrow.features.lineage import GroupLineage, lineage, remember
from windrow.features.query_lineage import Read
from windrow.stores import lineage_file
from windrow.stores.lineage_file import FILE, read_off_once

ROOT = Path(__file__).resolve().parents[2]
card = Entity("card", card_id="int64")

_LOADED = """
import sys, assets.definitions
print(any(name.startswith("ibis.backends.sql.compilers") for name in sys.modules))
"""


def spend(*, times: int = 100, event_time: str = "ts") -> FeatureGroup:
    """A new declaration of a group, as another process would make it."""
    payments = Source(
        "payments", event_time=event_time, columns={"card_id": "int64", "amount": "float64", "abroad": "bool"}
    )

    def card_spend(payments):  # type: ignore[no-untyped-def]
        return payments.filter(payments.abroad).select("card_id", cents=payments.amount * times)

    card_spend.__globals__["payments"] = payments
    return feature_group(card)(card_spend)


def wrong(group: FeatureGroup) -> GroupLineage:
    return GroupLineage(dict.fromkeys(group.features, frozenset({Read("sources/other", "x", "value")})), frozenset())


def kept_wrong(home: Path) -> None:
    """Keep an answer that only a process which believes the file can give."""
    group = spend()
    remember(group, wrong(group))
    read_off_once([group], home)


def edited(home: Path, **changes: object) -> None:
    file = msgspec.json.decode((home / FILE).read_bytes())
    (home / FILE).write_bytes(msgspec.json.encode({**file, **changes}))


def test_what_was_read_off_once_is_not_read_off_again(tmp_path: Path) -> None:
    kept_wrong(tmp_path)
    group = spend()
    read_off_once([group], tmp_path)
    assert lineage(group) == wrong(group)


def test_what_is_kept_is_what_was_read_off(tmp_path: Path) -> None:
    first, second = spend(), spend()
    read_off_once([first], tmp_path)
    written = (tmp_path / FILE).stat().st_mtime_ns
    read_off_once([second], tmp_path)
    assert lineage(second) == lineage(first) == lineage(spend())
    assert (tmp_path / FILE).stat().st_mtime_ns == written


@pytest.mark.parametrize("changed", [{"times": 99}, {"event_time": "booked"}], ids=["definition", "source"])
def test_another_definition_is_read_off(tmp_path: Path, changed: dict[str, object]) -> None:
    kept_wrong(tmp_path)
    group = spend(**changed)  # type: ignore[arg-type]
    read_off_once([group], tmp_path)
    assert lineage(group) == lineage(spend(**changed))  # type: ignore[arg-type]
    assert Read("sources/payments", "amount", "value") in lineage(group).features["cents"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"made_by": "x"}', b'{"made_by": 1, "groups": {}}']
)
def test_a_broken_file_is_written_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    group = spend()
    read_off_once([group], tmp_path)
    assert lineage(group) == lineage(spend())
    assert list(msgspec.json.decode((tmp_path / FILE).read_bytes())["groups"]) == [group.fingerprint]


def test_a_file_of_another_version_is_written_anew(tmp_path: Path) -> None:
    kept_wrong(tmp_path)
    edited(tmp_path, made_by="another version")
    group = spend()
    read_off_once([group], tmp_path)
    assert lineage(group) == lineage(spend())
    assert b"another version" not in (tmp_path / FILE).read_bytes()


def test_an_entry_that_lacks_a_feature_is_written_anew(tmp_path: Path) -> None:
    group = spend()
    read_off_once([group], tmp_path)
    edited(tmp_path, groups={group.fingerprint: {"features": {}, "rows": []}})
    again = spend()
    read_off_once([again], tmp_path)
    assert set(lineage(again).features) == {"cents"}
    assert b"cents" in (tmp_path / FILE).read_bytes()


def test_definitions_that_are_gone_stay_for_those_that_go_back_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage_file, "_KEPT", 2)
    groups = [spend(times=times) for times in (1, 2, 3)]
    for group in groups:
        read_off_once([group], tmp_path)
    kept = msgspec.json.decode((tmp_path / FILE).read_bytes())["groups"]
    assert list(kept) == [groups[2].fingerprint, groups[1].fingerprint]


def test_a_home_that_cannot_be_written_does_without(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    group = spend()
    read_off_once([group], tmp_path / "home")
    assert lineage(group) == lineage(spend())


def _writes(home: Path, times: int) -> None:
    for again in range(20):
        read_off_once([spend(times=times * 100 + again)], home)


def test_processes_that_write_at_once_leave_a_whole_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_writes, args=(tmp_path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    msgspec.json.decode((tmp_path / FILE).read_bytes(), type=lineage_file._File)


def test_a_second_load_of_the_projects_definitions_imports_no_sql_compiler(tmp_path: Path) -> None:
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    settings = Settings.read({"WINDROW_HOME": str(tmp_path)})
    Metadata(settings.metadata).close()
    command = [sys.executable, "-c", _LOADED]
    environ = {**os.environ, "WINDROW_HOME": str(tmp_path)}
    said = [
        subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert said == ["True", "False"]
