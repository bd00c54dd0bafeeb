"""An aggregate group end to end: declared, trained on, published, pushed to, asked online, and the same everywhere."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from tests.serving.aggregate_functions import age
from windrow import Entity, FeatureView, Source, agg, aggregate, on_demand
from windrow.clock import SECOND
from windrow.errors import RequestError
from windrow.features.join import view_frame
from windrow.features.tiles import Tiles
from windrow.features.traces import Event
from windrow.serving.requests import RowReader
from windrow.serving.transformer import Transformer
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.online.store import Row, open_online
from windrow.stores.publish import publish_online
from windrow.stores.tables import group_tables
from windrow.testing import times

START = 1_700_000_000 * SECOND
card = Entity("card", card_id="int64")
payments = Source(
    "payments", id="payment_id", event_time="ts",
    columns={"payment_id": "int64", "card_id": "int64", "amount": "float64", "merchant_id": "int64", "is_fraud": "bool"},
)  # fmt: skip
spend = aggregate("card_spend", payments, by=card, features={
    "spend_1d": agg.sum("amount", "1d"), "payments_1h": agg.count("1h"), "now_1h": agg.count("1h", include_current=True),
    "mean_7d": agg.mean("amount", "7d"), "risk_1d": agg.mean("is_fraud", "1d", delay="1d"),
    "biggest": agg.max("amount", "1d", include_current=True), "last_ts": agg.last("ts", "90d"),
    "merchants": agg.distinct("merchant_id", "7d"),
})  # fmt: skip


FEATURES = [payments.amount, spend["spend_1d", "payments_1h", "now_1h", "mean_7d", "risk_1d", "biggest", "merchants"]]
view = FeatureView("fraud", spine=payments, features=FEATURES)


def rows(count: int, *, seed: int = 0) -> pa.Table:
    """Payments over three days; some are known three hours later."""
    dice = Random(seed)
    at = sorted(START + dice.randrange(3 * 86_400) * SECOND for _ in range(count))
    known = [t + dice.choice([0, 0, 0, 0, 3 * 3600 * SECOND]) for t in at]
    return pa.table(
        {
            "payment_id": pa.array(range(count), pa.int64()),
            "card_id": pa.array([dice.randrange(5) for _ in at], pa.int64()),
            "amount": pa.array([dice.choice([1.25, 10.0, 99.99, None]) for _ in at], pa.float64()),
            "merchant_id": pa.array([dice.randrange(9) for _ in at], pa.int64()),
            "is_fraud": pa.array([dice.random() < 0.1 for _ in at], pa.bool_()),
            "ts": times(*at),
            "event_time": times(*at),
            "known_at": times(*known),
        }
    )


def requests(spine: pa.Table) -> tuple[list[dict[str, Any]], list[int]]:
    names = [f.name for f in view.contract.request]
    return spine.select(names).to_pylist(), spine.column("event_time").cast(pa.int64()).to_pylist()


def offline(lake: Lake, spine: pa.Table) -> pa.Table:
    made = view_frame(engine(), view.contract, spine, group_tables(view.contract.lookups, lake), functions={})
    return made.select(view.contract.feature_names)


def test_what_was_published_is_served_as_the_training_frame_says(tmp_path: Path) -> None:
    lake, stored = Lake(str(tmp_path / "lake")), rows(300)
    lake.table(payments.key).append(stored)
    now = START + 4 * 86_400 * SECOND
    asked = stored.slice(250).set_column(6, "event_time", times(*range(now, now + 50)))
    with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
        assert publish_online(spend, lake, online, now)[:3] == (300, 5, 5)
        assert publish_online(spend, lake, online, now)[:3] == (0, 0, 5)
        served = Transformer(view.contract, online).vectors(*requests(asked))
    for row, expected in zip(served.rows(), offline(lake, asked).to_pylist(), strict=True):
        assert row == expected


def test_each_event_is_scored_as_the_training_frame_says_whether_or_not_it_was_pushed_before(tmp_path: Path) -> None:
    lake, stored = Lake(str(tmp_path / "lake")), rows(200, seed=3)
    lake.table(payments.key).append(stored)
    expected, tiles = offline(lake, stored).to_pylist(), Tiles(spend.spec)
    with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
        online.write(spend.table_name, ["state"], [])
        transformer, states = Transformer(view.contract, online), dict[int, bytes]()
        asked, moments = requests(stored)
        for number, row in enumerate(stored.to_pylist()):
            if number % 2:
                push(online, states, tiles, stored.slice(number, 1))
            served = transformer.vectors([asked[number]], [moments[number]]).rows()[0]
            assert served == expected[number], row
            if not number % 2:
                push(online, states, tiles, stored.slice(number, 1))


def push(online: Any, states: dict[int, bytes], tiles: Tiles, event: pa.Table) -> None:
    for name in ("ts", "event_time", "known_at"):
        event = event.set_column(event.column_names.index(name), name, event.column(name).cast(pa.int64()))
    row = event.to_pylist()[0]
    key, values = row["card_id"], tuple(row[c] for c in spend.spec.columns)
    states[key] = tiles.append(states.get(key), [Event(row["event_time"], row["known_at"], row["payment_id"], values)])
    online.write(
        spend.table_name,
        ["state"],
        [((key,), Row(row["event_time"], row["known_at"], row["payment_id"], (states[key],)))],
    )


def test_a_request_about_an_event_that_is_streamed_too_must_say_its_time() -> None:
    reader = RowReader(view.contract)
    with pytest.raises(RequestError, match="Field 'event_time' is missing, which this service needs"):
        reader.read(b'{"card_id": 1, "amount": 2.0}')
    assert reader.read(b'{"card_id": 1, "amount": 2.0, "event_time": "2026-01-31T09:00:00Z"}').times == [
        1769850000000000
    ]


def test_a_time_before_what_was_summed_up_is_refused(tmp_path: Path) -> None:
    tiles = Tiles(spend.spec)
    state = tiles.append(
        None,
        [Event(START, START, 1, (1.0, False, START, 3)), Event(START + 3600 * SECOND, 0, 2, (1.0, False, START, 3))],
    )
    with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
        online.write(spend.table_name, ["state"], [((1,), Row(START, START, 1, (state,)))])
        with pytest.raises(
            RequestError, match="event_time lies before the newest stored values of group 'card_spend_v1'"
        ):
            Transformer(view.contract, online).vectors([{"card_id": 1, "amount": 2.0}], [START + SECOND])


def test_an_entity_without_events_has_empty_windows_and_says_so(tmp_path: Path) -> None:
    with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
        made = Transformer(view.contract, online).vectors([{"card_id": 1, "amount": 2.0}], [START])
    assert made.rows() == [{"amount": 2.0, "spend_1d": 0.0, "payments_1h": 0.0, "now_1h": 1.0, "mean_7d": None,
                            "risk_1d": None, "biggest": 2.0, "merchants": 0.0}]  # fmt: skip
    assert made.statuses[0]["spend_1d"] == 2
    assert made.unknown == {0: ("card_spend_v1",)}


def test_a_stored_time_is_an_input_of_functions_online_and_offline(tmp_path: Path) -> None:
    asked = FeatureView("age", spine=payments, features=[on_demand(age, at=payments.ts, last_ts=spend.last_ts)])
    lake, stored = Lake(str(tmp_path / "lake")), rows(20)
    lake.table(payments.key).append(stored)
    now = START + 4 * 86_400 * SECOND
    row, functions = stored.slice(0, 1).set_column(6, "event_time", times(now)), {"age": age}
    with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
        publish_online(spend, lake, online, now)
        served = Transformer(asked.contract, online, functions).vectors([{"card_id": row["card_id"][0].as_py()}], [now])
    frame = view_frame(engine(), asked.contract, row, group_tables(asked.contract.lookups, lake), functions=functions)
    assert served.rows() == [{"age": frame["age"][0].as_py()}]
    assert served.rows()[0]["age"] > 86_400
