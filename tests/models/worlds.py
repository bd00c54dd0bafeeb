"""Two small declared worlds, and a lake to put their rows into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.models.computed import share
from windrow import (
    Entity,
    Every,
    FeatureView,
    Label,
    PredictionService,
    Source,
    TimeSplit,
    feature_group,
    on_demand,
)
from windrow.clock import duration
from windrow.features.arrow import arrow_schema
from windrow.models.registry import Registry
from windrow.stores.lake import Lake
from windrow.stores.materialize import materialize_group
from windrow.stores.metadata import Metadata

DAY, HOUR = duration("1d"), duration("1h")

card, meter = Entity("card", card_id="int64"), Entity("meter", meter="string")

payments = Source(
    "payments", id="payment_id", event_time="ts",
    columns={"payment_id": "int64", "card_id": "int64", "amount": "float64"},
)  # fmt: skip
customers = Source(
    "customers", event_time="ts", known_at="loaded", columns={"card_id": "int64", "limit": "float64", "plan": "string"}
)
chargebacks = Source(
    "chargebacks", event_time="ts", known_at="seen", columns={"payment_id": "int64", "card_id": "int64"}
)
readings = Source("readings", event_time="ts", columns={"meter": "string", "mw": "float64"})


@feature_group(card)
def card_profile(customers):
    return customers.select("card_id", "limit", "plan")


@feature_group(meter)
def meter_now(readings):
    return readings.select("meter", "mw")


def linear():
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    inputs = make_column_transformer(
        (numbers, ["limit", "amount", "share"]), (OneHotEncoder(handle_unknown="ignore"), ["plan"])
    )
    return make_pipeline(inputs, LogisticRegression())


def ridge():
    from sklearn.linear_model import Ridge

    return Ridge()


hourly = Every("1h", meter)
payment_view = FeatureView(
    "fraud", spine=payments,
    features=[card_profile, payments.amount, on_demand(share, amount=payments.amount, limit=card_profile.limit)],
)  # fmt: skip
meter_view = FeatureView("load", spine=hourly, features=[meter_now])


def fraud(**options: Any) -> PredictionService:
    """Chargebacks of payments, joined by id, mature after 10 days."""
    label = options.pop("label", None) or Label.joined(chargebacks, on="payment_id", absent=0, matures_after="10d")
    options = {"model": linear, "split": TimeSplit(test="10d", gap="2d"), **options}
    return PredictionService("fraud", options.pop("view", payment_view), label, **options)


def load(**options: Any) -> PredictionService:
    """The reading two hours ahead, every hour."""
    label = options.pop("label", None) or Label.value(readings, "mw", ahead="2h")
    options = {"model": ridge, "split": TimeSplit(test="6h"), "baseline": "mw", **options}
    return PredictionService("load", meter_view, label, **options)


class World:
    """A lake, a metadata store and a registry in one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lake, self.metadata = Lake(str(home / "lake")), Metadata(f"sqlite:///{home / 'metadata.db'}")
        self.registry = Registry(self.metadata, home / "releases")

    def add(self, source: Source, **columns: list[Any]) -> None:
        """Append rows; times (microseconds) under the source's own names, known_at as the event time by default."""
        times = {"event_time": columns[source.event_time]}
        times["known_at"] = columns.get(source.known_at or "", columns[source.event_time])
        schema = arrow_schema({**source.fields, "event_time": "timestamp", "known_at": "timestamp"})
        rows = {name: _array(values, schema.field(name).type) for name, values in {**columns, **times}.items()}
        self.lake.table(source.key).append(pa.table(rows).select(schema.names))

    def groups(self, service: PredictionService) -> None:
        for group in service.view.groups:
            materialize_group(group, self.lake, self.metadata)


def _array(values: list[Any], dtype: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int64()).cast(dtype) if pa.types.is_timestamp(dtype) else pa.array(values, dtype)


def fraud_world(home: Path, days: int = 60, *, order: int = 1) -> World:
    """One payment a day of each of 6 cards; those above the card's limit are charged back 3 days later."""
    world = World(home)
    cards = list(range(6))
    world.add(
        customers, card_id=cards, limit=[50.0 + 10 * c for c in cards], plan=["a", "b"] * 3, ts=[0] * 6, loaded=[0] * 6
    )
    rows = [
        (day * 6 + c, c, float((day * 37 + c * 11) % 100), day * DAY + c * HOUR)
        for day in range(1, days)
        for c in cards
    ]
    for part in (rows[::order], rows[1::2] if order == 2 else []):
        if part:
            ids, owners, amounts, times = (list(column) for column in zip(*part, strict=True))
            world.add(payments, payment_id=ids, card_id=owners, amount=amounts, ts=times)
    bad = [row for row in rows if row[2] > 50.0 + 10 * row[1]]
    seen = [row[3] + 3 * DAY for row in bad]
    world.add(chargebacks, payment_id=[r[0] for r in bad], card_id=[r[1] for r in bad], ts=seen, seen=seen)
    return world


def load_world(home: Path, hours: int = 48) -> World:
    """Two meters; the second one starts 10 hours later."""
    world = World(home)
    times = [(name, t) for name, first in (("north", 0), ("south", 10)) for t in range(first, hours)]
    world.add(
        readings, meter=[name for name, _ in times], mw=[100.0 + (t * 7 + len(name)) % 24 for name, t in times],
        ts=[t * HOUR for _, t in times],
    )  # fmt: skip
    return world
