"""A branch reads what its parent had, writes only its own, and outlives the parent's cleaning."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from windrow.errors import NotFoundError, SettingsError, StoreError
from windrow.settings import Settings
from windrow.stores.branching import branches, make_branch, refuse_branches, remove_branch
from windrow.stores.compaction import compact
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.maintenance import maintain
from windrow.stores.metadata import Metadata
from windrow.stores.metadata.copying import copy_metadata
from windrow.stores.online.store import Row, open_online

KEY = "features/card_v1"


@pytest.fixture
def parent(tmp_path: Path) -> Settings:
    """A home with a table of 60 rows in 30 files, a release and a dataset with its file."""
    settings = Settings.read({"WINDROW_HOME": str(tmp_path / "home"), "WINDROW_DATA": str(tmp_path)})
    table = Lake(settings.lake).table(KEY)
    for n in range(30):
        table.append(pa.table({"card_id": [n, n + 100]}))
    table.delete(pa.table({"card_id": [7]}))
    for name in ("releases/churn-1/model.onnx", "datasets/churn/d1.parquet"):
        settings.folder(Path(name).parent.as_posix()).joinpath(Path(name).name).write_text(name)
    store = Metadata(settings.metadata)
    store.add_release("churn", "churn-1", b"{}")
    store.deploy("churn", "churn-1", reason="first", at=5)
    store.add_dataset("d1", "churn", {"id": "d1", "path": str(settings.home / "datasets/churn/d1.parquet")})
    store.close()
    with open_online(settings.online, write=True) as online:
        online.write("card_v1", ["limit"], [((1,), Row(1, 1, 1, (5.0,)))])
    return settings


def hashes(home: Path) -> dict[str, str]:
    """SHA-256 of every file of a home, branches left out."""
    files = (file for file in home.rglob("*") if file.is_file() and "branches" not in file.relative_to(home).parts)
    return {str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def cards(settings: Settings) -> list[int]:
    found: list[int] = Lake(settings.lake).table(KEY).scan(engine()).card_id.to_pyarrow().to_pylist()
    return sorted(found)


def test_a_branch_reads_its_parents_rows_and_copies_none(parent: Settings) -> None:
    made = make_branch(parent, "trial")
    trial = parent.branch("trial")
    assert cards(trial) == cards(parent)
    assert (len(cards(trial)), made.tables) == (59, {KEY: 31})
    for file in Path(trial.lake, KEY).glob("*.parquet"):
        assert file.stat().st_ino == Path(parent.lake, KEY, file.name).stat().st_ino
    assert made.linked > 0


def test_what_is_written_in_a_branch_leaves_every_byte_of_its_parent(parent: Settings) -> None:
    before = hashes(parent.home)
    make_branch(parent, "trial")
    trial = parent.branch("trial")
    table = Lake(trial.lake).table(KEY)
    table.append(pa.table({"card_id": [1000]}))
    table.delete(pa.table({"card_id": [1, 2]}))
    compact(table, everything=True)
    maintain(table, small=0, keep_hours=0)
    store = Metadata(trial.metadata)
    store.add_release("churn", "churn-2", b"{}")
    store.deploy("churn", "churn-2", reason="trial", at=6)
    store.close()
    with open_online(trial.online, write=True) as online:
        online.write("card_v1", ["limit"], [((1,), Row(2, 2, 2, (9.0,)))])
    (trial.folder("releases") / "churn-1" / "model.onnx").unlink()
    assert (len(cards(trial)), hashes(parent.home) == before) == (58, True)


def test_compaction_and_vacuum_of_the_parent_leave_a_branch_whole(parent: Settings) -> None:
    make_branch(parent, "trial")
    trial, table = parent.branch("trial"), Lake(parent.lake).table(KEY)
    table.append(pa.table({"card_id": [1000]}))
    compact(table, everything=True)
    assert maintain(table, small=0, keep_hours=0).files_removed > 20
    assert (len(cards(parent)), len(cards(trial)), 1000 in cards(trial)) == (60, 59, False)


def test_a_branch_knows_the_past_of_its_parent(parent: Settings) -> None:
    table = Lake(parent.lake).table(KEY)
    seen = table.stats().seq
    table.append(pa.table({"card_id": [1000]}))
    make_branch(parent, "trial")
    rows = Lake(parent.branch("trial").lake).table(KEY).scan(engine(), as_of=seen)
    assert rows.count().execute() == 59


def test_a_branch_has_its_own_metadata_that_begin_as_the_parents(parent: Settings) -> None:
    make_branch(parent, "trial")
    trial = parent.branch("trial")
    store = Metadata(trial.metadata)
    assert (store.live("churn"), [row.at for row in store.deployments("churn")]) == ("churn-1", [5])
    (dataset,) = store.datasets("churn")
    assert dataset["path"] == str(trial.home / "datasets/churn/d1.parquet")
    assert Path(dataset["path"]).read_text() == "datasets/churn/d1.parquet"
    store.close()


def test_metadata_are_copied_as_of_one_moment_whatever_is_written_meanwhile(parent: Settings) -> None:
    store, target = Metadata(parent.metadata), f"sqlite:///{parent.home}/copy.db"

    def changed(table: str, row: dict[str, Any]) -> dict[str, Any]:
        if not store.spans():
            store.record_span("sales", first=1, last=2, known=2, rows=1)
            store.add_release("late", "late-1", b"{}")
            store.deploy("late", "late-1", reason="meanwhile", at=6)
            store.add_dataset("late", "late", {"id": "late"})
        return row

    copy_metadata(parent.metadata, target, changed=changed)
    made = Metadata(target)
    assert store.live("late") == "late-1"
    assert (made.spans(), made.services(), made.deployments("late"), made.datasets("late")) == ({}, ["churn"], [], [])
    assert made.live("churn") == "churn-1"
    made.close()
    store.close()


def test_a_branch_takes_no_events_and_shares_no_place(parent: Settings) -> None:
    given = msgspec.structs.replace(parent, streams="redis://h:1")
    make_branch(given, "trial")
    trial = given.branch("trial")
    assert trial.streams == ""
    for place in ("home", "lake", "online", "metadata"):
        assert f"{parent.home}/branches/trial" in str(getattr(trial, place)), place


def test_commands_work_in_a_branch_by_one_variable(parent: Settings) -> None:
    make_branch(parent, "trial")
    environ = {**parent.environ(), "WINDROW_BRANCH": "trial"}
    read = Settings.read(environ)
    assert read == parent.branch("trial")
    assert Settings.read({**environ, **read.environ()}) == read


def test_a_branch_that_nobody_made_is_refused_with_the_command(parent: Settings) -> None:
    with pytest.raises(
        SettingsError, match="there is no branch 'trail' of .* Next: make it with `windrow branch trail`"
    ):
        Settings.read({**parent.environ(), "WINDROW_BRANCH": "trail"})


def test_a_branch_is_made_once(parent: Settings) -> None:
    make_branch(parent, "trial")
    with pytest.raises(StoreError, match="there is a branch 'trial' already. Next: run windrow branch trial --remove"):
        make_branch(parent, "trial")


def test_a_branch_of_a_branch_is_refused_because_no_variable_could_name_it(parent: Settings) -> None:
    make_branch(parent, "trial")
    with pytest.raises(StoreError, match="is a branch itself.*unset WINDROW_BRANCH, then windrow branch inner"):
        make_branch(parent.branch("trial"), "inner")


def test_a_name_that_leaves_the_folder_is_refused(parent: Settings) -> None:
    with pytest.raises(StoreError, match="'../x' is no name of a branch"):
        make_branch(parent, "../x")


def test_a_removed_branch_leaves_its_parent_and_nothing_else(parent: Settings) -> None:
    before = hashes(parent.home)
    make_branch(parent, "trial")
    assert [branch.name for branch in branches(parent)] == ["trial"]
    remove_branch(parent, "trial")
    assert (branches(parent), list((parent.home / "branches").iterdir())) == ([], [])
    assert (hashes(parent.home) == before, len(cards(parent))) == (True, 59)
    with pytest.raises(
        NotFoundError, match="has no branch 'trial'. It has none. Next: make it with `windrow branch trial`"
    ):
        remove_branch(parent, "trial")


def test_nothing_is_erased_everywhere_while_a_branch_holds_it(parent: Settings) -> None:
    refuse_branches(parent)
    make_branch(parent, "trial")
    with pytest.raises(
        StoreError, match="branch 'trial' holds rows.*Next: run windrow branch trial --remove, then erase"
    ):
        refuse_branches(parent)


def test_half_a_branch_of_a_process_that_died_is_told_before_anything_is_erased(parent: Settings) -> None:
    make_branch(parent, "trial")
    (parent.home / "branches" / "trial").rename(parent.home / "branches" / ".trial.4711")
    assert branches(parent) == []
    with pytest.raises(StoreError, match=r"\.trial\.4711 holds rows.*or remove that folder, then erase"):
        refuse_branches(parent)
