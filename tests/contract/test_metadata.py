"""Promises of the metadata store, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from timeit import repeat

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.postgres import free_port, postgres, run
from windrow.errors import NotFoundError, StoreError
from windrow.stores.metadata import AccessKey, Definition, Deployment, Metadata, Span
from windrow.stores.metadata.copying import copy_metadata
from windrow.stores.metadata.database import Database, open_database
from windrow.stores.metadata.migrate import migrate
from windrow.stores.metadata.tables import FORMAT, TABLES

_schemas = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres(free_port()) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store of this test alone, that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/metadata.db"
    return f"{request.getfixturevalue('server')}?schema=test_{next(_schemas)}"


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


@pytest.mark.parametrize(
    "text", ["fraud-1\0", "\0", "\udcff", "\U0001f52e" * 3000], ids=["nul", "only nul", "surrogate", "long"]
)
def test_text_that_no_row_can_hold_is_found_nowhere(store: Metadata, text: str) -> None:
    store.add_release("fraud", "fraud-1", b"{}")
    with pytest.raises(NotFoundError, match=r"no release .*There are 'fraud-1'"):
        store.release(text)
    with pytest.raises(NotFoundError, match="has no release"):
        store.deploy("fraud", text, reason="", at=0)
    with pytest.raises(NotFoundError, match="has no release"):
        store.deploy(text, "fraud-1", reason="", at=0)
    assert (store.live(text), store.definition(text), store.materialization(text)) == (None, None, None)
    assert store.releases(text) == store.deployments(text) == store.datasets(text) == store.runs(text) == []
    store.deploy("fraud", "fraud-1", reason="", at=0)
    assert store.live("fraud") == "fraud-1"  # and the store goes on


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


def test_a_release_that_was_numbered_too_early_is_not_added(store: Metadata) -> None:
    assert store.add_release("churn", "churn-1", b"a", after=0)
    assert store.add_release("fraud", "fraud-1", b"a", after=0)
    assert not store.add_release("churn", "churn-other", b"b", after=0)
    assert [r.id for r in store.releases("churn")] == ["churn-1"]


def test_of_releases_that_are_added_at_once_after_the_same_number_one_is(store: Metadata, url: str) -> None:
    def add(place: int) -> bool:
        own = Metadata(url)
        try:
            return own.add_release("churn", f"churn-{place}", b"a", after=0)
        finally:
            own.close()

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(add, range(6))) == [False] * 5 + [True]
    assert len(store.releases("churn")) == 1


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


KEY = AccessKey("0a1b2c3d4e", "till 7", "ab" * 32, ("predict", "outcomes"), 2.5, 99, at=10)


def test_an_access_key_comes_back_as_it_was_given_and_its_revocation_with_it(store: Metadata) -> None:
    store.add_key(KEY)
    assert store.access_keys() == [KEY]
    assert store.revoke_key(KEY.id) is True
    (found,) = store.access_keys()
    assert found.revoked_at is not None
    assert found == KEY._replace(revoked_at=found.revoked_at)
    assert store.revoke_key(KEY.id) is False


def test_a_key_that_is_not_there_cannot_be_revoked(store: Metadata) -> None:
    with pytest.raises(NotFoundError, match="there is no access key 'x'. Next: run `windrow keys list`"):
        store.revoke_key("x")


def test_the_audit_says_who_did_what_and_holds_no_hash(store: Metadata) -> None:
    store.add_key(KEY)
    store.revoke_key(KEY.id)
    store.add_release("churn", "churn-1", b"a")
    store.deploy("churn", "churn-1", reason="first", at=10)
    store.add_audit("key:0a1b2c3d4e", "signed in", "ui", {})
    rows = store.audit()
    assert [(r.who.partition(":")[0], r.action, r.subject) for r in rows] == [
        ("os", "key created", KEY.id),
        ("os", "key revoked", KEY.id),
        ("os", "release promoted", "churn"),
        ("key", "signed in", "ui"),
    ]
    assert rows[0].document == {"name": "till 7", "scopes": ["predict", "outcomes"], "rate": 2.5, "expires_at": 99}
    assert KEY.hash not in f"{rows}{store.access_keys()}"


def test_a_copy_of_a_store_has_neither_its_keys_nor_its_audit(store: Metadata, url: str, tmp_path: Path) -> None:
    store.add_key(KEY)
    store.add_run("churn", {"auc": 0.8})
    copy_metadata(url, f"sqlite:///{tmp_path}/copy.db", changed=lambda table, row: row)
    copied = Metadata(f"sqlite:///{tmp_path}/copy.db")
    assert (copied.runs("churn"), copied.access_keys(), copied.audit()) == ([{"auc": 0.8}], [], [])
    copied.close()


def test_each_state_of_an_experiment_is_one_more_row(store: Metadata) -> None:
    store.record_experiment("churn", "trial", {"weight": 0.1}, after=0, action="experiment started")
    (first,) = store.experiments("churn")
    store.record_experiment("fraud", "other", {}, after=0, action="experiment started")
    store.record_experiment("churn", "trial", {"weight": 0.2}, after=first.number, action="weights")
    assert [row.document for row in store.experiments("churn", name="trial")] == [{"weight": 0.1}, {"weight": 0.2}]
    assert [(row.service, row.name) for row in store.experiments()] == [
        ("churn", "trial"), ("fraud", "other"), ("churn", "trial"),
    ]  # fmt: skip


def test_of_two_who_change_experiments_of_a_service_at_once_the_second_is_refused(store: Metadata) -> None:
    store.record_experiment("churn", "trial", {"weight": 0.1}, after=0, action="experiment started")
    with pytest.raises(StoreError, match="experiments of service 'churn' were changed meanwhile"):
        store.record_experiment("churn", "second", {}, after=0, action="experiment started")
    assert len(store.experiments()) == 1
    assert len(store.audit()) == 1


def test_each_change_of_an_experiment_is_in_the_audit_with_its_state(store: Metadata) -> None:
    store.record_experiment("churn", "trial", {"weight": 0.1}, after=0, action="experiment started")
    (first,) = store.experiments("churn")
    store.record_experiment("churn", "trial", {"weight": 0.2}, after=first.number, action="experiment stopped")
    assert [(r.who.partition(":")[0], r.action, r.subject, r.document) for r in store.audit()] == [
        ("os", "experiment started", "churn/trial", {"weight": 0.1}),
        ("os", "experiment stopped", "churn/trial", {"weight": 0.2}),
    ]


def test_what_was_measured_of_an_experiment_is_kept_newest_last(store: Metadata) -> None:
    store.add_performance("churn", "trial", {"requests": 1})
    store.add_performance("churn", "trial", {"requests": 2})
    assert [row.document for row in store.performances("churn", "trial")] == [{"requests": 1}, {"requests": 2}]
    assert store.performances("fraud", "trial") == []


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
    assert median(repeat(store.change_counter, number=1, repeat=400)) < 0.0005


def test_a_store_goes_on_after_its_connections_were_cut(store: Metadata, url: str) -> None:
    store.add_run("churn", {})
    before = store.change_counter()
    _cut(url)
    store.add_run("churn", {})
    assert (len(store.runs("churn")), _patient(store.change_counter)) == (2, before + 1)


def test_a_store_that_nobody_closes_gives_its_connections_back(url: str) -> None:
    store = Metadata(url)
    store.add_run("churn", {})
    assert store.change_counter() == 1
    del store
    gc.collect()  # a connection left open would be a warning, and so an error


_WRITE = """
import sys
from windrow.stores.metadata import Metadata
for i in range(int(sys.argv[3])):
    store = Metadata(sys.argv[1])
    for j in range(10):
        store.add_run(sys.argv[2], {"i": i * 10 + j})
    store.close()
"""


def _write_together(url: str, *, processes: int, times: int) -> None:
    names = [f"s{n}" for n in range(processes)]
    children = [subprocess.Popen([sys.executable, "-c", _WRITE, url, name, str(times)]) for name in names]
    assert [child.wait() for child in children] == [0] * processes
    store = Metadata(url)
    assert [[run["i"] for run in store.runs(name)] for name in names] == [list(range(10 * times))] * processes
    assert store.change_counter() == 10 * times * processes
    store.close()


def test_processes_that_start_together_make_one_store_and_lose_no_row(url: str) -> None:
    _write_together(url, processes=2, times=2)


@pytest.mark.slow
def test_six_processes_that_open_and_write_all_the_time_lose_no_row(url: str) -> None:
    _write_together(url, processes=6, times=10)


def test_a_new_store_has_the_tables_that_the_migrations_make(url: str, store: Metadata) -> None:
    assert _differences(open_database(url)) == []


def test_the_migrations_alone_make_the_tables(url: str) -> None:
    database = open_database(url)
    database.prepare()
    with database.engine.connect() as connection:
        database.alone(connection)
        migrate(connection, 0, FORMAT)
        connection.commit()
    assert _differences(database) == []


def test_the_first_format_is_migrated_with_all_its_rows(url: str) -> None:
    _store_of_format(url, 1)
    store = Metadata(url)
    assert (store.live("churn"), store.runs("churn"), store.tombstones()) == ("churn-1", [{"auc": 0.8}], [])
    store.add_tombstone("card", "h", "s", {})
    assert (len(store.tombstones()), store.change_counter()) == (1, 1)
    store.close()
    assert _differences(open_database(url)) == []


def test_an_older_store_that_many_open_at_once_is_migrated_once(url: str) -> None:
    _store_of_format(url, 2)
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(Metadata, [url] * 8))
        assert list(pool.map(lambda store: store.live("churn"), stores)) == ["churn-1"] * 8
    for store in stores:
        store.close()
    assert _differences(open_database(url)) == []


def test_a_migration_that_fails_leaves_the_store_as_it_was(url: str) -> None:
    _store_of_format(url, 2)
    database = open_database(url)
    with database.engine.begin() as connection:
        # Alembic's next step makes this table: it cannot.
        connection.exec_driver_sql("CREATE TABLE changes (other text)")
    with pytest.raises(StoreError, match="cannot be used: .*changes.* already exists"):
        Metadata(url)
    with database.engine.begin() as connection:
        assert database.format(connection) == 2
        connection.exec_driver_sql("DROP TABLE changes")
    database.engine.dispose()
    mended = Metadata(url)
    assert mended.live("churn") == "churn-1"
    mended.close()


def test_a_store_of_a_newer_format_is_refused_with_the_next_step(url: str, store: Metadata) -> None:
    database = open_database(url)
    with database.engine.begin() as connection:
        database.seal(connection, 99)
    database.engine.dispose()
    with pytest.raises(StoreError, match="has format 99. This windrow reads format 6. Next: upgrade windrow"):
        Metadata(url)


def test_opening_a_store_that_is_up_to_date_loads_no_alembic(url: str, store: Metadata) -> None:
    code = "import sys; from windrow.stores.metadata import Metadata; Metadata(sys.argv[1]).live('a'); print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, url], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def _cut(url: str) -> None:
    """End the sessions of all others, as a server does that restarts; a file has none."""
    if url.startswith("sqlite"):
        return
    run(url.partition("?")[0], "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def _patient(ask: Callable[[], int]) -> int:
    """Ask again after one error: a poll that meets a dead connection says so, once."""
    try:
        return ask()
    except StoreError:
        return ask()


def _store_of_format(url: str, format: int) -> None:
    """Make a store as an earlier windrow left it: a run, a release, a deployment."""
    database = open_database(url)
    database.prepare()
    with database.engine.connect() as connection:
        database.alone(connection)
        migrate(connection, 0, format)
        for table, values in (
            ("runs", {"service": "churn", "document": json.dumps({"auc": 0.8})}),
            ("releases", {"service": "churn", "id": "churn-1", "document": b"a"}),
            ("deployments", {"service": "churn", "release": "churn-1", "reason": "first"}),
        ):
            connection.execute(sa.insert(TABLES.tables[table]).values(at=1, **values))
        database.seal(connection, format)
        connection.commit()
    database.engine.dispose()


def _differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), TABLES)
    database.engine.dispose()
    return [one for one in found if "'format'" not in repr(one)]


def _count(url: str, table: str) -> int:
    database = open_database(url)
    with database.engine.connect() as connection:
        counted = connection.execute(sa.select(sa.func.count()).select_from(TABLES.tables[table])).scalar_one()
    database.engine.dispose()
    return int(counted)
