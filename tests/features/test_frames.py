"""Groups on DataFrames: declared dtypes in and out, and the same laws as all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from windrow import Entity, FeatureGroup, Source, feature_group
from windrow.errors import DeclarationError, SchemaError, TimeError, UnknownNameError
from windrow.stores.lake import Lake
from windrow.stores.materialize import materialize_group
from windrow.stores.metadata import Metadata
from windrow.testing import features_of, no_look_ahead, order_invariant, partition_invariant
from windrow.testing.given import table_of

polars = pytest.importorskip("polars")

card = Entity("card", card_id="int64")
payments = Source(
    "payments", event_time="ts", columns={"card_id": "int64", "amount": "float64", "n": "int64", "ok": "bool"}
)
ROWS = [{"card_id": i % 2, "amount": float(i), "n": None, "ts": f"2026-01-0{1 + i}"} for i in range(6)]
KEYS = ["card_id", "event_time", "known_at"]
FACTOR = 100


def cents(payments):
    """In cents."""
    payments["cents"] = payments["amount"] * FACTOR
    return payments[[*KEYS, "cents"]]


def polars_cents(payments):
    return payments.select(*KEYS, cents=polars.col("amount") * FACTOR)


def lazy_cents(payments):
    return payments.lazy().select(*KEYS, cents=polars.col("amount") * FACTOR)


def group(function: Callable[..., Any], frame: Any = "pandas", features: Any = None, **options: Any) -> FeatureGroup:
    return feature_group(card, frame=frame, features=features or {"cents": "float64"}, **options)(function)


@pytest.mark.parametrize(("function", "frame"), [(cents, "pandas"), (polars_cents, "polars"), (lazy_cents, "polars")])
def test_a_function_of_frames_makes_features(function: Callable[..., Any], frame: str) -> None:
    made = group(function, frame)
    assert made.features == {"cents": "float64"}
    rows = features_of(made, payments=ROWS)
    assert [(r["card_id"], r["cents"], r["event_time"].day) for r in rows][:3] == [
        (0, 0.0, 1),
        (0, 200.0, 3),
        (0, 400.0, 5),
    ]
    no_look_ahead(made, payments=ROWS)
    order_invariant(made, payments=ROWS)
    partition_invariant(made, payments=ROWS)


def test_a_group_on_frames_is_stored_and_read_by_another(tmp_path: Path) -> None:
    lake, metadata = Lake(str(tmp_path / "lake")), Metadata(f"sqlite:///{tmp_path}/metadata.db")
    lake.table(payments.key).append(table_of(payments, ROWS))
    made = group(cents)
    assert [materialize_group(made, lake, metadata).rows_written for _ in range(2)] == [6, 0]

    def euros(made):
        return made.select("card_id", euros=made.cents / 100)

    euros.__globals__["made"] = made
    assert materialize_group(feature_group(card)(euros), lake, metadata).rows_written == 6


def test_dtypes_do_not_depend_on_what_is_missing() -> None:
    seen: list[dict[str, str]] = []

    def spied(payments):
        seen.append(payments.dtypes.astype(str).to_dict())
        return payments[[*KEYS, "n"]]

    made = group(spied, features={"n": "int64"})
    full = [{**row, "n": 2**53 + 1, "ok": True} for row in ROWS]
    assert features_of(made, payments=full)[0]["n"] == 2**53 + 1
    assert features_of(made, payments=ROWS)[0]["n"] is None
    assert seen[0] == seen[1]
    assert (seen[0]["n"], seen[0]["ok"], seen[0]["amount"], seen[0]["ts"]) == (
        "Int64",
        "boolean",
        "float64",
        "datetime64[us, UTC]",
    )


def test_a_frame_that_reads_the_future_is_caught() -> None:
    def following(payments):
        payments = payments.sort_values("ts")
        payments["cents"] = payments.groupby("card_id")["amount"].shift(-1)
        return payments[[*KEYS, "cents"]]

    with pytest.raises(AssertionError, match="'cents' of 'following' reads the future"):
        no_look_ahead(group(following), payments=ROWS)


def test_a_shift_that_goes_from_one_entity_to_the_next_is_caught() -> None:
    def streak(payments):
        payments = payments.sort_values("ts")
        payments["cents"] = payments["amount"].shift(1)
        return payments[[*KEYS, "cents"]]

    with pytest.raises(AssertionError, match="'cents' of 'streak' depends on rows of other entities"):
        partition_invariant(group(streak), payments=ROWS)


def fraction(payments):
    return payments.assign(cents=1.7)[[*KEYS, "cents"]]


def timeless(payments):
    return payments.assign(cents=1.0)[["card_id", "event_time", "cents"]]


def renamed(payments):
    return payments.assign(cent=1.0)[[*KEYS, "cent"]]


def wider(payments):
    return payments.assign(cents=1.0, more=1)[[*KEYS, "cents", "more"]]


def mixed(payments):
    return payments.assign(cents=[1, "a"] * 3)[[*KEYS, "cents"]]


def naive(payments):
    return payments.assign(cents=1.0, event_time=pd.Timestamp("2026-01-01"))[[*KEYS, "cents"]]


def doubled(payments):
    made = payments.assign(cents=1)[[*KEYS, "cents"]]
    return pd.concat([made, made[["cents"]]], axis=1)


def grouped(payments):
    return payments.groupby("card_id").agg(
        cents=("amount", "count"), event_time=("event_time", "max"), known_at=("known_at", "max")
    )


def imaginary(payments):
    return payments.assign(cents=1j)[[*KEYS, "cents"]]


@pytest.mark.parametrize(
    ("function", "error", "told"),
    [
        (fraction, SchemaError, "what feature group 'fraction' returns, column 'cents', row 1: 1.7 cannot be int64 without changing"),
        (timeless, SchemaError, "'timeless' returns no column 'known_at'.*keep event_time and known_at"),
        (renamed, SchemaError, "'renamed' returns no column 'cents'.*did you mean 'cent'"),
        (wider, SchemaError, "'wider' returns a column 'more' that it does not declare"),
        (mixed, SchemaError, "'mixed' returns a column that is of no one type"),
        (naive, TimeError, "'naive' returns 'event_time' without a time zone"),
        (lambda payments: None, DeclarationError, "returned None. Next: return a pandas DataFrame"),
        (doubled, SchemaError, "'doubled' returns the columns 'cents' twice"),
        (grouped, SchemaError, "'grouped' returns 'card_id' as its index, not as a column. Next: return frame.reset_index"),
        (imaginary, SchemaError, "'imaginary' returns a column that is of no one type"),
        (lambda payments: payments.nothing, DeclarationError, "fails: AttributeError.*It stops at .*test_frames.py, line"),
    ],
)  # fmt: skip
def test_what_a_frame_cannot_be_is_refused(function: Callable[..., Any], error: type[Exception], told: str) -> None:
    made = feature_group(
        card, name=None if function.__name__ != "<lambda>" else "anonymous", frame="pandas", features={"cents": "int64"}
    )
    with pytest.raises(error, match=told):
        features_of(made(function), payments=ROWS)


def test_features_are_declared_with_a_frame_and_only_with_one() -> None:
    with pytest.raises(DeclarationError, match="'cents' is made by pandas, which does not say what it will make"):
        feature_group(card, frame="pandas")(cents)
    with pytest.raises(DeclarationError, match="'spend' declares features=, but an Ibis definition says itself"):
        feature_group(card, features={"cents": "float64"}, name="spend")(spend)
    with pytest.raises(UnknownNameError, match="feature group 'cents' has no frame 'panda'.*did you mean 'pandas'"):
        group(cents, "panda")
    with pytest.raises(UnknownNameError, match="feature group 'cents', feature 'cents' has no dtype 'float'"):
        group(cents, features={"cents": "float"})


def spend(payments):
    return payments.select("card_id", "amount")


def helper(frame, factor):
    return frame["amount"] * factor


def with_helper(payments):
    return payments.assign(cents=helper(payments, FACTOR))[[*KEYS, "cents"]]


def test_the_fingerprint_follows_the_code_and_what_it_calls() -> None:
    first = group(with_helper).fingerprint
    changed = dict(with_helper.__globals__, FACTOR=10)
    other = type(with_helper)(with_helper.__code__, changed, "with_helper")
    other.__module__, other.__qualname__ = with_helper.__module__, with_helper.__qualname__
    assert group(with_helper).fingerprint == first != group(other).fingerprint


def test_two_versions_stand_side_by_side_under_one_name() -> None:
    old, new = group(cents, name="money"), group(with_helper, name="money", version=2)
    assert (old.key, new.key) == ("features/money_v1", "features/money_v2")
