"""Tables of other systems, read in place: the same law, and nothing of them kept."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.oracle import Row, look_up
from tests.postgres import postgres, run
from windrow import Entity, FeatureGroup
from windrow.clock import parse_time
from windrow.errors import (
    DataError,
    DeclarationError,
    NotFoundError,
    SchemaError,
    SettingsError,
    StoreError,
    UnknownNameError,
)
from windrow.features.contract import Lookup
from windrow.features.external import external_group
from windrow.features.join import point_in_time
from windrow.features.place import IbisTable, Parquet, Place, Postgres
from windrow.stores.engine import engine
from windrow.stores.external import ExternalTable
from windrow.stores.lake import Lake
from windrow.stores.materialize import materialize_group
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import open_online
from windrow.stores.publish_in_place import publish_in_place
from windrow.testing import times

CARD = Entity("card", card_id="int64")
PLACE = Postgres(url_env="BANK_URL", table="limits")
DAY = 86_400_000_000

pg = pytest.mark.needs("initdb", "postgres")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with postgres(port) as url:
        yield url


@pytest.fixture
def bank(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The bank's database with its table of limits; its address is in BANK_URL."""
    monkeypatch.setenv("BANK_URL", server)
    run(
        server,
        "DROP TABLE IF EXISTS limits",
        "CREATE TABLE limits (card_id int, eur numeric(10,2), plan varchar(9), since timestamptz, loaded timestamptz, n bigint)",
        """INSERT INTO limits VALUES
        (7, 100.10, 'a', '2026-01-01T00:00Z', '2026-01-01T00:00Z', 1),
        (7, 200, '', '2026-01-03T00:00Z', '2026-01-05T00:00Z', 2),
        (7, 150, NULL, '2026-01-02T00:00Z', '2026-01-02T00:00Z', 3),
        (8, NULL, 'b', '2026-01-01T12:00Z', '2026-01-01T12:00Z', 4),
        (9, 1, 'x', '2026-01-01T00:00Z', NULL, 5), (NULL, 1, 'x', '2026-01-01T00:00Z', '2026-01-01T00:00Z', 6)""",
    )
    return server


def limits(place: Place = PLACE, **options: Any) -> FeatureGroup:
    given: dict[str, Any] = {
        "event_time": "since",
        "known_at": "loaded",
        "features": {"limit": "float64", "plan": "string"},
    }
    given |= {"columns": {"limit": "eur"}, **options}
    return external_group("limits", CARD, connect=place, **given)


def join(group: FeatureGroup, *asked: tuple[int | None, str], spine: pa.Table | None = None) -> pa.Table:
    assert group.external is not None
    rows = spine or pa.table(
        {"card_id": pa.array([k for k, _ in asked], pa.int64()), "event_time": times(*(t for _, t in asked))}
    )
    names = {name: name for name in group.features}
    lookup = Lookup(group.table_name, "", {k: k for k in group.entity.key_names}, names, group.features, group.ttl)
    return point_in_time(engine(), rows, [lookup], {group.table_name: ExternalTable(group.key, group.external)})


ASKED = [
    (7, "2026-01-05"),
    (7, "2026-01-04"),
    (7, "2025-12-31"),
    (8, "2026-01-02"),
    (9, "2026-02-01"),
    (None, "2026-02-01"),
]
LIMITS, STATUSES = [200.0, 150.0, None, None, None, None], [0, 0, 2, 0, 2, 2]


def said(made: pa.Table) -> tuple[list[Any], list[Any]]:
    return made["limit"].to_pylist(), made["limits_v1__status"].to_pylist()


@pg
def test_postgres_is_joined_as_it_could_be_known_at_each_time(bank: str) -> None:
    made = join(limits(), *ASKED)
    assert said(made) == (LIMITS, STATUSES)
    assert made["plan"].to_pylist() == ["", None, None, "b", None, None]


@pg
def test_one_row_is_asked_for_by_its_key_and_time_alone(bank: str) -> None:
    run(
        bank, "INSERT INTO limits SELECT 100 + i, i, 'z', '2026-01-01', '2026-01-01', i FROM generate_series(1, 5000) i"
    )
    external = limits().external
    assert external is not None
    spine = pa.table({"card_id": [7], "event_time": times("2026-01-04")})
    rows = ExternalTable("limits_v1", external).asked(spine, {"card_id": "card_id"}).scan(engine()).to_pyarrow()
    # Of what was known before the first time, the newest row of the key is enough.
    assert rows.select(["card_id", "limit"]).to_pylist() == [{"card_id": 7, "limit": 150.0}]


@pg
def test_a_key_that_postgres_cannot_hold_is_not_found_and_hides_no_other(bank: str) -> None:
    plans = external_group(
        "plans", Entity("plan", plan="string"), connect=PLACE, event_time="since", features={"limit": "float64"},
        columns={"limit": "eur"},
    )  # fmt: skip
    keys = pa.array(["b\0", "x", "\0"])
    made = join(plans, spine=pa.table({"plan": keys, "event_time": times(*["2026-02-01"] * 3)}))
    assert (made["limit"].to_pylist(), made["plans_v1__status"].to_pylist()) == ([None, 1.0, None], [2, 0, 2])


@pg
def test_a_value_that_has_expired_is_expired_and_not_unknown(bank: str) -> None:
    made = join(limits(ttl="1d"), (7, "2026-01-05"), (7, "2026-03-01"))
    assert said(made) == ([None, None], [3, 3])


@pg
def test_a_delay_is_when_rows_without_a_known_at_are_known(bank: str) -> None:
    made = join(limits(known_at=None, delay="2d"), (7, "2026-01-04"), (7, "2026-01-05"))
    assert said(made)[0] == [150.0, 200.0]


@pg
def test_composite_and_text_keys_find_their_rows(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANK_URL", server)
    run(
        server,
        "DROP TABLE IF EXISTS areas",
        "CREATE TABLE areas (id uuid, area char(3), x int, ts timestamptz)",
        """INSERT INTO areas VALUES ('00000000-0000-0000-0000-000000000001', 'é', 1, '2026-01-01Z'),
           ('00000000-0000-0000-0000-000000000001', 'N''"', 2, '2026-01-01Z')""",
    )
    group = external_group(
        "areas", Entity("place", id="string", area="string"), connect=Postgres(url_env="BANK_URL", table="public.areas"),
        event_time="ts", features={"x": "int64"},
    )  # fmt: skip
    key = "00000000-0000-0000-0000-000000000001"
    spine = pa.table({"id": [key, key, "none"], "area": ["é", "N'\"", "é"], "event_time": times(*["2026-01-02"] * 3)})
    assert join(group, spine=spine)["x"].to_pylist() == [1, 2, None]


@pg
def test_rows_with_equal_times_are_told_apart_by_the_declared_order(bank: str) -> None:
    run(bank, "INSERT INTO limits SELECT 7, 999, 'late', since, loaded, 99 FROM limits WHERE n = 2")
    assert said(join(limits(seq="n"), (7, "2026-01-06")))[0] == [999.0]


@pg
def test_the_order_of_rows_in_the_table_decides_nothing(bank: str) -> None:
    run(bank, "INSERT INTO limits SELECT 7, 999, 'late', since, loaded, 99 FROM limits WHERE n = 2")
    first = said(join(limits(), (7, "2026-01-06")))
    run(
        bank,
        "CREATE TABLE turned AS SELECT * FROM limits ORDER BY n DESC",
        "DROP TABLE limits",
        "ALTER TABLE turned RENAME TO limits",
    )
    assert said(join(limits(), (7, "2026-01-06"))) == first


@pg
def test_a_unit_of_time_without_zone_is_refused_unless_declared(bank: str) -> None:
    run(bank, "ALTER TABLE limits ALTER since TYPE timestamp, ALTER loaded TYPE timestamp")
    with pytest.raises(SchemaError, match="column 'since' is timestamp without time zone, a time without zone"):
        join(limits(), *ASKED)
    assert said(join(limits(timezone="UTC"), *ASKED)) == (LIMITS, STATUSES)


@pg
def test_a_number_that_would_change_is_refused(bank: str) -> None:
    run(bank, "UPDATE limits SET eur = 1.7 WHERE n = 2")
    with pytest.raises(SchemaError, match="holds a value that is not of its declared dtype"):
        join(limits(features={"limit": "int64"}), *ASKED)
    run(bank, "UPDATE limits SET eur = 100 WHERE eur IS NOT NULL")
    assert said(join(limits(features={"limit": "int64"}), *ASKED))[0] == [100, 100, None, None, None, None]
    run(bank, "UPDATE limits SET n = 5000000000")
    with pytest.raises(SchemaError, match="column 'n', row 1: 5000000000 cannot be int32 without changing"):
        join(limits(features={"n": "int32"}, columns={}), *ASKED)


@pg
def test_an_unknown_column_or_table_offers_the_closest(bank: str) -> None:
    with pytest.raises(
        UnknownNameError,
        match="table limits of the server that BANK_URL names has no column 'sinse'.*did you mean 'since'",
    ):
        join(limits(event_time="sinse"), *ASKED)
    with pytest.raises(
        UnknownNameError, match="the server that BANK_URL names has no table 'limit'.*did you mean 'limits'"
    ):
        join(limits(Postgres(url_env="BANK_URL", table="limit")), *ASKED)
    with pytest.raises(SchemaError, match="column 'plan' is character varying, declared is float64"):
        join(limits(features={"plan": "float64"}, columns={}), *ASKED)


@pg
def test_the_table_cannot_be_written_through_the_connection(bank: str) -> None:
    from windrow.stores.postgres import _connected

    with pytest.raises(StoreError, match="cannot execute DELETE in a read-only transaction"), _connected(PLACE) as con:
        con.execute("DELETE FROM limits")


@pg
def test_no_part_of_the_address_is_ever_shown(
    bank: str, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    group = limits()
    shown = [repr(group.external), repr(group), str(group.describe()), group.fingerprint]
    wrong = bank.replace("s3cret", "s3cret-too")
    for url in (wrong, f"postgresql://u:s3cret@127.0.0.1:{free_port()}/x", "postgresql://u:s3cret@[/x", "s3cret"):
        monkeypatch.setenv("BANK_URL", url)
        with pytest.raises(StoreError, match="the server that BANK_URL names cannot be read") as caught:
            join(group, *ASKED)
        shown += ["".join(traceback.format_exception(caught.value))]
    assert [text for text in shown if "s3cret" in text] == []


def test_a_server_without_an_address_is_told_by_the_variable() -> None:
    with pytest.raises(SettingsError, match="BANK_URL is not set. Next: export BANK_URL=postgresql"):
        join(limits(), *ASKED)


def test_an_address_in_the_declaration_is_refused_and_not_repeated() -> None:
    with pytest.raises(
        DeclarationError, match=r"was given an address. Next: write the variable that holds it"
    ) as caught:
        Postgres(url_env="postgresql://u:s3cret@host/x", table="limits")
    assert "s3cret" not in str(caught.value)


def test_where_the_server_is_found_does_not_count_for_the_fingerprint() -> None:
    moved, other = Postgres(url_env="OTHER_URL", table="limits"), Postgres(url_env="BANK_URL", table="limits_2")
    assert limits(moved).fingerprint == limits().fingerprint != limits(other).fingerprint


# The same rows, wherever they are


@pytest.fixture
def stored() -> pa.Table:
    return pa.table({
        "card_id": pa.array([7, 7, 7, 8, 9, None], pa.int64()), "eur": pa.array([100.1, 200, 150, None, 1, 1], pa.float64()),
        "plan": ["a", "", None, "b", "x", "x"],
        "since": times("2026-01-01", "2026-01-03", "2026-01-02", "2026-01-01T12:00:00Z", "2026-01-01", "2026-01-01"),
        "loaded": pa.array([1767225600000000, 1767571200000000, 1767312000000000, 1767268800000000, None, 1767225600000000], pa.timestamp("us", "UTC")),
    })  # fmt: skip


def test_parquet_is_joined_as_it_could_be_known_at_each_time(
    stored: pa.Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WINDROW_DATA", str(tmp_path))
    pq.write_table(stored.slice(0, 2), tmp_path / "limits-1.parquet")
    pq.write_table(stored.slice(2), tmp_path / "limits-2.parquet")
    assert said(join(limits(Parquet("limits-*.parquet")), *ASKED)) == (LIMITS, STATUSES)


def test_a_table_of_any_ibis_backend_is_joined_all_the_same(stored: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "bank.duckdb"
    bank = ibis.duckdb.connect(path)
    bank.create_table("limits", stored)
    bank.disconnect()
    BACKENDS["bank"] = lambda: ibis.duckdb.connect(path, read_only=True)
    assert said(join(limits(IbisTable(f"{__name__}:warehouse", "limits")), *ASKED)) == (LIMITS, STATUSES)


def test_a_backend_of_another_kind_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "bank.sqlite"
    bank = ibis.sqlite.connect(path)
    bank.raw_sql("CREATE TABLE limits (card_id INTEGER, eur REAL, plan TEXT, since TIMESTAMP)")
    bank.raw_sql("INSERT INTO limits VALUES (7, 1.5, 'a', '2026-01-01 00:00:00'), (7, 2.5, 'b', '2026-01-03 00:00:00')")
    bank.con.commit()
    BACKENDS["bank"] = lambda: ibis.sqlite.connect(path)
    group = limits(IbisTable(f"{__name__}:warehouse", "limits"), known_at=None, timezone="UTC")
    assert said(join(group, (7, "2026-01-02"), (7, "2026-01-03"))) == ([1.5, 2.5], [0, 0])


BACKENDS: dict[str, Any] = {}


def warehouse() -> Any:
    return BACKENDS["bank"]()


def test_files_that_are_not_there_are_told_with_the_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there are no files limits.parquet \(looked for .*no-data"):
        join(limits(Parquet("limits.parquet")), *ASKED)


def test_a_file_whose_column_would_lose_values_is_refused(
    stored: pa.Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WINDROW_DATA", str(tmp_path))
    pq.write_table(stored, tmp_path / "limits.parquet")
    with pytest.raises(SchemaError, match="column 'eur' is float64, declared is float32"):
        join(limits(Parquet("limits.parquet"), features={"limit": "float32"}), *ASKED)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"features": {}}, "external group 'limits' has no feature"),
        ({"features": {"card_id": "int64"}}, "has a feature 'card_id', which is a key or a time"),
        ({"features": {"limit": "int"}}, "external group 'limits', feature 'limit' has no dtype 'int'.*did you mean"),
        ({"columns": {"limt": "eur"}}, r"\(in columns=\) has no key or feature 'limt'.*did you mean 'limit'"),
        ({"delay": "1d"}, "has both known_at and delay"),
        ({"timezone": "Europe/Paris"}, "has timezone='Europe/Paris'. Next: convert its times in a view there"),
        ({"version": 0}, "external group 'limits' has version 0"),
        ({"place": "limits"}, "connect= of external group 'limits' is the text 'limits'. Next: write Postgres"),
    ],
)
def test_a_declaration_that_cannot_be_right_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        limits(**options)


# The law: whatever the rows and their order, the answer is the oracle's

_ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 4)), max_size=12)
_ASKED = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 12)), min_size=1, max_size=6)


@pg
@settings(max_examples=15, deadline=None, database=None, derandomize=True)
@given(_ROWS, _ASKED, st.sampled_from([None, 2]))
def test_postgres_says_what_the_oracle_says(server: str, rows: list[Any], asked: list[Any], ttl: int | None) -> None:
    stored = [Row((key,), hour, hour + late, i, {"n": i}) for i, (key, hour, late) in enumerate(rows)]
    values = ", ".join(
        f"({r.key[0]}, to_timestamp({r.event_time}), to_timestamp({r.known_at}), {r.seq})" for r in stored
    )
    run(server, "DROP TABLE IF EXISTS law", "CREATE TABLE law (k int, e timestamptz, a timestamptz, n int)")
    if values:
        run(server, f"INSERT INTO law VALUES {values}")
    group = external_group(
        "law", Entity("k", k="int64"), connect=Postgres(url_env="LAW_URL", table="law"), event_time="e", known_at="a",
        seq="n", features={"n": "int32"}, ttl=f"{ttl}s" if ttl else None,
    )  # fmt: skip
    spine = pa.table(
        {"k": pa.array([k for k, _ in asked], pa.int64()), "event_time": times(*(t * 1_000_000 for _, t in asked))}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAW_URL", server)
        made = join(group, spine=spine)
    expected = [look_up(stored, (k,), t, ttl=ttl) for k, t in asked]
    assert made["law_v1__status"].to_pylist() == [answer.status for answer in expected]
    assert made["n"].to_pylist() == [answer.values.get("n") if answer.status == 0 else None for answer in expected]


# Online: the keys in use, and no others


def online_rows(tmp_path: Path, group: FeatureGroup, *keys: int, now: str = "2026-02-01") -> tuple[Any, list[Any]]:
    with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
        made = publish_in_place(group, online, parse_time(now), keys=pa.table({"card_id": pa.array(keys, pa.int64())}))
        found = online.read([(group.table_name, (key,)) for key in (7, 8, 9)])
    return made[:3], [row and row.values for row in found]


@pg
def test_only_the_keys_in_use_go_online_and_a_second_run_writes_nothing(bank: str, tmp_path: Path) -> None:
    assert online_rows(tmp_path, limits(), 7) == ((1, 1, 1), [(200.0, ""), None, None])
    assert online_rows(tmp_path, limits(), 7) == ((1, 0, 1), [(200.0, ""), None, None])
    assert online_rows(tmp_path, limits(), 7, 8, 9) == ((2, 1, 2), [(200.0, ""), (None, "b"), None])


@pg
def test_a_row_goes_online_once_it_is_known_and_never_before(bank: str, tmp_path: Path) -> None:
    assert online_rows(tmp_path, limits(), 7, now="2026-01-04")[1][0] == (150.0, None)
    assert online_rows(tmp_path, limits(), 7, now="2026-01-05")[1][0] == (200.0, "")


@pg
def test_what_is_changed_or_removed_in_place_is_changed_and_removed_online(bank: str, tmp_path: Path) -> None:
    online_rows(tmp_path, limits(), 7, 8)
    run(bank, "UPDATE limits SET eur = 999 WHERE n = 2", "DELETE FROM limits WHERE card_id = 8")
    assert online_rows(tmp_path, limits(), 7, 8) == ((1, 2, 1), [(999.0, ""), None, None])


def test_an_external_group_is_never_copied_into_the_lake(tmp_path: Path) -> None:
    lake, metadata = Lake(str(tmp_path / "lake")), Metadata(f"sqlite:///{tmp_path}/metadata.db")
    with pytest.raises(
        DataError, match=r"'features/limits_v1' is read in place \(table limits of the server that BANK_URL"
    ):
        materialize_group(limits(), lake, metadata)
    assert lake.keys() == []


def test_a_file_that_is_no_parquet_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"nonsense")
    table = ExternalTable("features/limits_v1", limits(Parquet(str(tmp_path / "*.parquet"))).external)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"cannot be read: .*broken.parquet.*Next: replace that file"):
        table.scan(engine())
