"""Promises of the metadata store."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from windrow.errors import NotFoundError, SettingsError, StoreError
from windrow.stores.metadata import Definition, Deployment, Metadata, Span


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/deep/metadata.db"


@pytest.fixture
def store(url: str) -> Iterator[Metadata]:
    made = Metadata(url)
    yield made
    made.close()


def test_the_newest_span_of_each_source_counts(store: Metadata) -> None:
    store.record_span("payments", first=1, last=5, known=6, rows=10)
    store.record_span("demand", first=2, last=3, known=3, rows=1)
    store.record_span("payments", first=1, last=9, known=9, rows=12)
    assert store.spans() == {"demand": Span(2, 3, 3, 1), "payments": Span(1, 9, 9, 12)}


def test_the_same_span_again_adds_no_row(store: Metadata, url: str) -> None:
    for _ in range(3):
        store.record_span("payments", first=1, last=5, known=6, rows=10)
    assert _count(url, "spans") == 1


def test_an_unknown_definition_is_none(store: Metadata) -> None:
    assert store.definition("features/a_v1") is None


def test_the_newest_definition_of_a_key_is_returned(store: Metadata, url: str) -> None:
    store.record_definition("features/a_v1", "aa", {"x": 1})
    store.record_definition("features/a_v1", "bb", {"x": 2})
    store.record_definition("features/a_v1", "bb", {"x": 2})
    found = store.definition("features/a_v1")
    assert found is not None
    assert found == Definition("features/a_v1", "bb", {"x": 2}, found.at)
    assert _count(url, "definitions") == 2


def test_a_dataset_built_again_is_listed_once_and_newest(store: Metadata) -> None:
    store.add_dataset("d1", "churn", {"id": "d1", "now": 1})
    store.add_dataset("d2", "churn", {"id": "d2", "now": 2})
    store.add_dataset("d1", "churn", {"id": "d1", "now": 3})
    store.add_dataset("d1", "fraud", {"id": "d1", "now": 4})
    assert store.datasets("churn") == [{"id": "d2", "now": 2}, {"id": "d1", "now": 3}]


def test_runs_of_a_service_are_kept_in_order(store: Metadata) -> None:
    store.add_run("churn", {"auc": 0.8})
    store.add_run("fraud", {"auc": 0.5})
    store.add_run("churn", {"auc": 0.9})
    assert store.runs("churn") == [{"auc": 0.8}, {"auc": 0.9}]


def test_a_release_is_returned_as_the_bytes_that_were_given(store: Metadata) -> None:
    store.add_release("churn", "churn-1", b"\x00\xff{}")
    assert store.release("churn-1") == b"\x00\xff{}"
    assert [(r.service, r.id, r.document) for r in store.releases("churn")] == [("churn", "churn-1", b"\x00\xff{}")]


def test_registering_the_same_release_twice_changes_nothing(store: Metadata) -> None:
    store.add_release("churn", "churn-1", b"a")
    store.add_release("churn", "churn-1", b"a")
    assert len(store.releases("churn")) == 1


def test_a_release_never_changes_its_contents(store: Metadata) -> None:
    store.add_release("churn", "churn-1", b"a")
    with pytest.raises(StoreError, match="release 'churn-1' exists with other contents"):
        store.add_release("churn", "churn-1", b"b")
    assert store.release("churn-1") == b"a"


def test_an_unknown_release_error_lists_what_there_is(store: Metadata) -> None:
    store.add_release("churn", "churn-1", b"a")
    with pytest.raises(NotFoundError, match="no release 'churn-2'. There are 'churn-1'"):
        store.release("churn-2")


def test_services_are_those_that_ever_had_a_release(store: Metadata) -> None:
    for service, id in (("fraud", "f-1"), ("churn", "c-1"), ("churn", "c-2")):
        store.add_release(service, id, b"a")
    assert store.services() == ["churn", "fraud"]


def test_nothing_is_live_before_the_first_deployment(store: Metadata) -> None:
    assert store.live("churn") is None


def test_rolling_back_appends_a_row_that_points_to_the_older_release(store: Metadata) -> None:
    store.add_release("churn", "churn-1", b"a")
    store.add_release("churn", "churn-2", b"b")
    store.deploy("churn", "churn-1", reason="first", at=10)
    store.deploy("churn", "churn-2", reason="better", at=20)
    store.deploy("churn", "churn-1", reason="rollback", at=30)
    assert store.live("churn") == "churn-1"
    assert store.deployments("churn") == [
        Deployment("churn", "churn-1", "first", 1, 10),
        Deployment("churn", "churn-2", "better", 2, 20),
        Deployment("churn", "churn-1", "rollback", 3, 30),
    ]


def test_an_override_stays_with_the_deployment_that_it_was_signed_for(store: Metadata) -> None:
    store.add_release("churn", "churn-1", b"a")
    store.deploy("churn", "churn-1", reason="anyway", at=10, override={"by": "ada", "reason": "anyway"})
    store.deploy("churn", "churn-1", reason="again", at=20)
    assert [d.override for d in store.deployments("churn")] == [{"by": "ada", "reason": "anyway"}, None]


def test_the_last_materialization_of_a_group_counts_with_what_its_sources_knew(store: Metadata) -> None:
    assert store.materialization("features/card_v1") is None
    store.record_materialization("features/card_v1")
    store.record_span("payments", first=1, last=2, known=3, rows=4)
    store.record_materialization("features/card_v1")
    store.record_materialization("features/other_v1")
    found = store.materialization("features/card_v1")
    assert found is not None
    assert (found.key, found.known) == ("features/card_v1", {"payments": 3})
    assert found.at > 1_600_000_000_000_000


def test_a_release_of_another_service_cannot_be_deployed(store: Metadata) -> None:
    store.add_release("fraud", "fraud-1", b"a")
    with pytest.raises(NotFoundError, match="service 'churn' has no release 'fraud-1'. It has none"):
        store.deploy("churn", "fraud-1", reason="oops", at=1)
    assert store.live("churn") is None


def test_the_counter_changes_when_another_process_deploys(store: Metadata, url: str) -> None:
    store.add_release("churn", "churn-1", b"a")
    before = store.change_counter()
    assert store.change_counter() == before
    code = f"from windrow.stores.metadata import Metadata; Metadata({url!r}).deploy('churn','churn-1',reason='r',at=1)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert store.change_counter() != before
    assert store.live("churn") == "churn-1"


def test_the_counter_changes_when_the_same_object_writes(store: Metadata) -> None:
    before = store.change_counter()
    store.add_run("churn", {})
    assert store.change_counter() != before


def test_a_poll_of_the_counter_costs_less_than_half_a_millisecond(store: Metadata) -> None:
    store.change_counter()
    started = time.perf_counter()
    for _ in range(200):
        store.change_counter()
    assert (time.perf_counter() - started) / 200 < 0.0005


_OPEN_AND_WRITE = """
import sys
from windrow.stores.metadata import Metadata
store = Metadata(sys.argv[1])
for i in range(10):
    store.add_run(sys.argv[2], {"i": i})
"""


def test_processes_that_start_together_make_one_store_and_lose_no_row(url: str) -> None:
    children = [subprocess.Popen([sys.executable, "-c", _OPEN_AND_WRITE, url, f"s{n}"]) for n in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    store = Metadata(url)
    assert [len(store.runs(f"s{n}")) for n in range(3)] == [10, 10, 10]
    store.close()


def test_a_url_that_is_not_sqlite_is_refused_with_the_form_to_write() -> None:
    with pytest.raises(SettingsError, match="WINDROW_METADATA names 'postgresql'.*write sqlite:////"):
        Metadata("postgresql://localhost/x")


def test_text_that_is_no_url_is_refused_without_being_repeated() -> None:
    with pytest.raises(SettingsError, match="WINDROW_METADATA is not a URL"):
        Metadata("not a url")


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "m.db").write_bytes(b"x" * 4096)
    with pytest.raises(StoreError, match="m.db cannot be used: file is not a database"):
        Metadata(f"sqlite:///{tmp_path}/m.db")


def test_a_store_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "m.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="has format 99. This windrow reads format 3"):
        Metadata(f"sqlite:///{tmp_path}/m.db")


def test_importing_the_store_loads_no_engine() -> None:
    heavy = "{'pyarrow', 'ibis', 'duckdb', 'pandas', 'deltalake', 'numpy'}"
    code = f"import sys, windrow.stores.metadata; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _count(url: str, table: str) -> int:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        connection.close()
