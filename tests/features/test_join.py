"""The point-in-time join and the frame of a view, example by example; the laws are in tests/laws."""

from __future__ import annotations

import ibis
import numpy as np
import pyarrow as pa
import pytest

from tests.features.on_demand_functions import distance, hour_of, shouted
from windrow import Entity, Every, FeatureView, Source, feature_group, on_demand
from windrow.errors import SchemaError, TimeError, UnknownNameError
from windrow.features.contract import Lookup
from windrow.features.join import clock_spine, point_in_time, status_column, time_column, view_frame
from windrow.schema import Status
from windrow.stores.engine import engine
from windrow.testing import MemoryTable, times

DAY = 86_400_000_000
PRESENT, NULL, NOT_FOUND, EXPIRED = list(Status)[:4]
card = Entity("card", card_id="int64")
payments = Source(
    "payments",
    event_time="ts",
    columns={"card_id": "int64", "other_id": "int64", "amount": "float64", "shop": "string"},
)
customers = Source(
    "customers", event_time="valid_from", columns={"card_id": "int64", "lat": "float64", "plan": "string"}
)


@feature_group(card, ttl="2d")
def profile(customers):
    """Where a card is at home."""
    return customers.select("card_id", "lat", "plan")


PROFILE = MemoryTable(
    profile.key,
    pa.table(
        {
            "card_id": [1, 1, 2],
            "lat": [1.5, 2.5, None],
            "plan": ["basic", "gold", None],
            "event_time": times(1 * DAY, 2 * DAY, 2 * DAY),
        }
    ),
)


def lookup(prefix: str = "", *, ttl: int | None = None, **keys: str) -> Lookup:
    return Lookup(
        "profile_v1", "", keys or {"card_id": "card_id"}, {f"{prefix}lat": "lat"}, {f"{prefix}lat": "float64"}, ttl
    )


def joined(spine: pa.Table, *lookups: Lookup, table: MemoryTable = PROFILE, **options) -> pa.Table:
    return point_in_time(engine(), spine, lookups or [lookup()], {"profile_v1": table}, **options)


def spine_of(*rows: tuple[int | None, int]) -> pa.Table:
    return pa.table({"card_id": pa.array([k for k, _ in rows], pa.int64()), "event_time": times(*(t for _, t in rows))})


def test_the_newest_row_known_at_the_time_is_found() -> None:
    made = joined(spine_of((1, 2 * DAY), (1, 2 * DAY - 1), (1, 3 * DAY)))
    assert made["lat"].to_pylist() == [2.5, 1.5, 2.5]


def test_before_the_first_row_nothing_is_found() -> None:
    made = joined(spine_of((1, DAY - 1)))
    assert (made["lat"].to_pylist(), made["profile_v1__status"].to_pylist()) == ([None], [NOT_FOUND])


def test_a_missing_key_finds_nothing() -> None:
    assert joined(spine_of((None, 9 * DAY)))["profile_v1__status"].to_pylist() == [NOT_FOUND]


def test_a_stored_null_is_a_row_that_is_present() -> None:
    made = joined(spine_of((2, 2 * DAY)))
    assert (made["lat"].to_pylist(), made["profile_v1__status"].to_pylist()) == ([None], [PRESENT])


def test_a_row_as_old_as_the_ttl_is_present_and_a_microsecond_later_expired() -> None:
    made = joined(spine_of((1, 4 * DAY), (1, 4 * DAY + 1)), lookup(ttl=2 * DAY))
    assert made["lat"].to_pylist() == [2.5, None]
    assert made["profile_v1__status"].to_pylist() == [PRESENT, EXPIRED]


def test_the_event_time_of_an_expired_row_is_told() -> None:
    made = joined(spine_of((1, 9 * DAY), (3, 9 * DAY)), lookup(ttl=DAY))
    assert made["profile_v1__event_time"].cast("int64").to_pylist() == [2 * DAY, None]


def test_statuses_can_be_left_out() -> None:
    assert joined(spine_of((1, DAY)), statuses=False).column_names == ["card_id", "event_time", "lat"]


def test_values_keep_the_stored_types_and_statuses_are_int8() -> None:
    made = joined(spine_of((3, DAY)))
    assert made.schema.field("lat").type == pa.float64()
    assert made.schema.field("profile_v1__status").type == pa.int8()
    assert made.schema.field("profile_v1__event_time").type == pa.timestamp("us", "UTC")


def test_a_row_that_arrives_late_is_used_from_then_on_only_if_it_is_the_newest_event() -> None:
    rows = {"card_id": [1, 1], "lat": [10.0, 20.0], "event_time": times(5, 3), "known_at": times(5, 8)}
    made = joined(spine_of((1, 4), (1, 6), (1, 9)), table=MemoryTable("features/profile_v1", pa.table(rows)))
    assert made["lat"].to_pylist() == [None, 10.0, 10.0]


def test_a_correction_replaces_its_row_from_when_it_is_known() -> None:
    rows = {"card_id": [1, 1], "lat": [10.0, 11.0], "event_time": times(5, 5), "known_at": times(5, 8)}
    made = joined(spine_of((1, 7), (1, 8)), table=MemoryTable("features/profile_v1", pa.table(rows)))
    assert made["lat"].to_pylist() == [10.0, 11.0]


def test_of_two_rows_known_together_the_later_write_is_taken() -> None:
    rows = {"card_id": [1, 1], "lat": [10.0, 11.0], "event_time": times(5, 5), "_seq": [7, 6]}
    made = joined(spine_of((1, 6), (1, 6)), table=MemoryTable("features/profile_v1", pa.table(rows)))
    assert made["lat"].to_pylist() == [10.0, 10.0]


def test_identical_rows_do_not_multiply_the_spine() -> None:
    rows = {"card_id": [1, 1], "lat": [10.0, 10.0], "event_time": times(5, 5), "_seq": [7, 7]}
    made = joined(spine_of((1, 6), (1, 7)), table=MemoryTable("features/profile_v1", pa.table(rows)))
    assert made["lat"].to_pylist() == [10.0, 10.0]


def test_as_of_leaves_out_later_writes() -> None:
    made = joined(spine_of((1, 9 * DAY)), as_of=0)
    assert made["lat"].to_pylist() == [1.5]


def test_an_ibis_table_can_be_the_spine() -> None:
    spine = ibis.memtable(spine_of((1, DAY)))
    assert point_in_time(engine(), spine, [lookup()], {"profile_v1": PROFILE})["lat"].to_pylist() == [1.5]


def test_without_lookups_the_spine_comes_back() -> None:
    assert point_in_time(engine(), spine_of((1, DAY)), [], {}).equals(spine_of((1, DAY)))


def test_two_roles_of_one_group_have_values_and_statuses_of_their_own() -> None:
    spine = spine_of((1, 2 * DAY)).append_column("other_id", pa.array([3]))
    made = joined(spine, lookup(), lookup("other_", card_id="other_id"))
    assert made.column_names[3:] == [
        "lat", "other_lat",
        "profile_v1__event_time", "profile_v1__status",
        "other_id.profile_v1__event_time", "other_id.profile_v1__status",
    ]  # fmt: skip
    assert made["other_lat"].to_pylist() == [None]
    assert made["other_id.profile_v1__status"].to_pylist() == [NOT_FOUND]


def test_roles_without_a_prefix_are_told_apart_by_their_fields() -> None:
    home, away = lookup(card_id="home"), lookup("x_", card_id="away")
    assert (status_column(home), status_column(away)) == ("home.profile_v1__status", "away.profile_v1__status")
    assert time_column(home) == "home.profile_v1__event_time"


def test_two_lookups_by_the_same_keys_share_their_status() -> None:
    assert status_column(lookup()) == status_column(lookup("profile.")) == "profile_v1__status"


def test_a_value_takes_the_place_of_a_spine_column_of_its_name() -> None:
    spine = spine_of((1, 2 * DAY)).append_column("lat", pa.array([-1.0]))
    assert joined(spine)["lat"].to_pylist() == [2.5]


def test_text_keys_are_found() -> None:
    rows = pa.table({"area": ["N", "Ñ", "n"], "mw": [1.0, 2.0, 3.0], "event_time": times(1, 1, 1)})
    spine = pa.table({"area": ["Ñ", "n", ""], "event_time": times(1, 1, 1)})
    asked = Lookup("load_v1", "", {"area": "area"}, {"mw": "mw"}, {"mw": "float64"})
    made = point_in_time(engine(), spine, [asked], {"load_v1": MemoryTable("features/load_v1", rows)})
    assert made["mw"].to_pylist() == [2.0, 3.0, None]


def test_names_with_quotes_are_quoted() -> None:
    rows = pa.table({'a "key"': [1], 'x"y': [2.0], "event_time": times(1)})
    spine = pa.table({"a b": [1], "event_time": times(1)})
    asked = Lookup("odd_v1", "", {'a "key"': "a b"}, {"x": 'x"y'}, {"x": "float64"})
    made = point_in_time(engine(), spine, [asked], {"odd_v1": MemoryTable("features/odd_v1", rows)})
    assert made["x"].to_pylist() == [2.0]


def test_nothing_is_left_behind_in_the_engine() -> None:
    before = engine().con.execute("SELECT count(*) FROM duckdb_tables()").fetchone()
    joined(spine_of((1, DAY)))
    with pytest.raises(SchemaError, match="no column 'lat'"):
        joined(spine_of((1, DAY)), table=MemoryTable("features/profile_v1", PROFILE.rows.drop_columns(["lat"])))
    assert engine().con.execute("SELECT count(*) FROM duckdb_tables()").fetchone() == before


def test_a_spine_without_the_key_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="the spine has no column 'card_id'.*did you mean 'card'"):
        joined(spine_of((1, DAY)).rename_columns(["card", "event_time"]))


def test_a_spine_without_times_is_refused() -> None:
    with pytest.raises(SchemaError, match="The spine has no column 'event_time'"):
        joined(spine_of((1, DAY)).drop_columns(["event_time"]))


def test_naive_times_are_refused() -> None:
    naive = pa.table({"card_id": [1], "event_time": pa.array([1], pa.timestamp("us"))})
    with pytest.raises(
        TimeError, match=r"The spine's event_time is timestamp\[us\]\. Next: make it timestamp\[us, tz=UTC\]"
    ):
        joined(naive)


def test_keys_of_another_type_are_refused() -> None:
    spine = pa.table({"card_id": ["1"], "event_time": times(1)})
    with pytest.raises(
        SchemaError, match="Spine column 'card_id' is string, but key 'card_id' of table 'features/profile_v1' is int64"
    ):
        joined(spine)


def test_a_group_without_a_table_is_named() -> None:
    with pytest.raises(UnknownNameError, match="has no table 'profile_v1'. It has 'profil_v1'"):
        point_in_time(engine(), spine_of((1, 1)), [lookup()], {"profil_v1": PROFILE})


view = FeatureView(
    "fraud",
    spine=payments,
    features=[
        profile["plan"],
        payments.amount,
        on_demand(distance, x=payments.amount, y=profile.lat),
        on_demand(hour_of, at=payments.ts),
        on_demand(shouted, "string", name="shop_shouted", shop=payments.shop),
    ],
)
FUNCTIONS = {"distance": distance, "hour_of": hour_of, "shouted": shouted}


def framed(**changed) -> pa.Table:
    spine = {
        "card_id": [1, 2, 1],
        "other_id": [0, 0, 0],
        "amount": [1.0, None, float("nan")],
        "shop": ["a", None, "c"],
        "event_time": times(2 * DAY, 2 * DAY + 3_600_000_000, 9 * DAY),
    }
    return view_frame(engine(), view.contract, pa.table(spine | changed), {"profile_v1": PROFILE}, functions=FUNCTIONS)


def test_a_frame_has_every_feature_as_float32_or_string() -> None:
    types = {f.name: framed().schema.field(f.name).type for f in view.contract.features}
    assert types == {
        "plan": pa.string(), "amount": pa.float32(), "distance": pa.float32(),
        "hour_of": pa.float32(), "shop_shouted": pa.string(),
    }  # fmt: skip


def test_a_frame_has_the_spines_columns_the_features_and_what_was_found() -> None:
    assert framed().column_names == [
        "card_id", "other_id", "amount", "shop", "event_time", "plan", "distance", "hour_of", "shop_shouted",
        "profile_v1__event_time", "profile_v1__status",
    ]  # fmt: skip


def test_on_demand_features_read_the_request_the_store_and_the_time() -> None:
    made = framed()
    assert made["distance"].to_pylist() == [1.5, None, None]
    assert made["hour_of"].to_pylist() == [0.0, 1.0, 0.0]
    assert made["shop_shouted"].to_pylist() == ["A", None, "C"]


def test_missing_is_null_in_a_frame_whatever_it_was_before() -> None:
    made = framed()
    assert made["amount"].to_pylist() == [1.0, None, None]
    assert made["plan"].to_pylist() == ["gold", None, None]
    assert made["profile_v1__status"].to_pylist() == [PRESENT, PRESENT, EXPIRED]


def test_a_frame_of_a_spine_that_lacks_a_request_field_is_refused() -> None:
    spine = pa.table({"card_id": [1], "shop": ["a"], "event_time": times(1)})
    with pytest.raises(UnknownNameError, match="the spine has no column 'amount'"):
        view_frame(engine(), view.contract, spine, {"profile_v1": PROFILE}, functions=FUNCTIONS)


def test_a_frame_without_its_on_demand_function_is_refused() -> None:
    spine = pa.table({"card_id": [1], "amount": [1.0], "shop": ["a"], "event_time": times(1)})
    with pytest.raises(
        UnknownNameError, match="the on-demand module of 'distance' has no function 'distance'. It has 'hour_of'"
    ):
        view_frame(engine(), view.contract, spine, {"profile_v1": PROFILE}, functions={"hour_of": hour_of})


hourly = Every("1h", Entity("site", area="string", kind="int64"))
SITES = pa.table({"kind": [1, 2], "area": ["N", "S"], "unused": [0, 0]})
HOUR = 3_600_000_000


def test_ticks_are_whole_hours_and_both_ends_are_included() -> None:
    made = clock_spine(hourly, SITES, HOUR, 3 * HOUR)
    assert made.column("event_time").cast("int64").to_pylist() == [HOUR, HOUR, 2 * HOUR, 2 * HOUR, 3 * HOUR, 3 * HOUR]
    assert made.column_names == ["area", "kind", "event_time"]


def test_an_interval_without_a_tick_gives_no_row() -> None:
    assert clock_spine(hourly, SITES, HOUR + 1, 2 * HOUR - 1).num_rows == 0
    assert clock_spine(hourly, SITES, 2 * HOUR, HOUR).num_rows == 0


def test_ticks_before_1970_are_whole_hours_too() -> None:
    made = clock_spine(hourly, SITES.slice(0, 1), -HOUR - 1, 0)
    assert made.column("event_time").cast("int64").to_pylist() == [-HOUR, 0]


def test_a_clock_without_entities_has_no_rows() -> None:
    assert clock_spine(hourly, SITES.slice(0, 0), 0, HOUR).num_rows == 0


def test_keys_that_lack_a_column_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="the keys of clock 'every_1h' has no column 'kind'"):
        clock_spine(hourly, SITES.drop_columns(["kind"]), 0, HOUR)


def test_a_clock_spine_can_be_joined() -> None:
    rows = pa.table({"area": ["N"], "kind": [1], "mw": [5.0], "event_time": times(HOUR)})
    asked = Lookup("load_v1", "", {"area": "area", "kind": "kind"}, {"mw": "mw"}, {"mw": "float64"})
    spine = clock_spine(hourly, SITES, 0, HOUR)
    made = point_in_time(engine(), spine, [asked], {"load_v1": MemoryTable("features/load_v1", rows)})
    assert made["mw"].to_pylist() == [None, None, 5.0, None]
    assert np.array_equal(made["load_v1__status"].to_numpy(), [2, 2, 0, 2])
