"""Promises of the cards that notebooks show; the snapshots lie beside this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.electricity.on_demand import hour
from windrow import (
    Batch,
    Drift,
    Entity,
    FeatureView,
    Gate,
    Label,
    Online,
    PredictionService,
    RandomSplit,
    Source,
    feature_group,
    on_demand,
)  # fmt: skip
from windrow.features.group import FeatureGroup
from windrow.html import facts_card
from windrow.models.dataset import TrainingDataset
from windrow.models.release import DatasetRef, GateResult, Release
from windrow.models.statistics import SplitStatistics, statistics_of
from windrow.settings import Settings
from windrow.stores.lake import Lake

SNAPSHOTS = Path(__file__).parent / "snapshots"

card = Entity("card", card_id="int64")
payments = Source("payments", id="payment_id", event_time="ts", columns={"payment_id": "int64", "card_id": "int64", "amount": "float64"})  # fmt: skip


@feature_group(card, ttl="7d")
def card_spend(payments):  # type: ignore[no-untyped-def]
    """Amounts of a card, in <cents> & euros."""
    return payments.select("card_id", "amount", cents=payments.amount * 100)


def spend() -> FeatureGroup:
    return card_spend


def view() -> FeatureView:
    return FeatureView("fraud", spine=payments, features=[card_spend["cents"], on_demand(hour, at=payments.ts)])


def service() -> PredictionService:
    return PredictionService(
        "fraud", view(), Label.joined(payments, on="payment_id", absent=0, matures_after="30d"), model="train:model",
        split=RandomSplit(), gates=[Gate("auc", at_least=0.7)], online=Online(p99_ms=10), batch=Batch(),
        monitors=[Drift()], owner="team:risk", description="Chance of a chargeback.",
    )  # fmt: skip


def holding(rows: int) -> SplitStatistics:
    at = np.arange(rows) * 86_400_000_000
    frame = {
        "cents": np.array([1.5, np.nan, 2.5, 4.0][:rows], np.float32),
        "hour": np.array(["<9>", "10", "10", "11"][:rows], object),
    }
    return statistics_of(frame, at, np.array([0.0, 1.0, 0.0, 0.0][:rows]))


def dataset() -> TrainingDataset:
    return TrainingDataset(
        id="abc", service="fraud", rows=1000, features=["cents", "hour"], excluded={"immature": 24},
        splits={"train": 750, "test": 250}, split="random", content_hash="0123456789abcdef0123", seq=1, now=86_400_000_000,
        view_fingerprint="f", kind="view", path="x.parquet", statistics={n: holding(r) for n, r in (("train", 4), ("test", 2))},
    )  # fmt: skip


def release() -> Release:
    return Release(
        id="fraud-1", service="fraud", number=1, created_at=0, task="classification", contract=view().contract, label={},
        view_fingerprint="f", groups={"card_spend_v1": "f"}, seq=1, backend="sklearn",
        backend_reason="parity failed", parity={}, metrics={"auc": 0.8123456, "brier": 0.1}, baseline={"auc": 0.5},
        dataset=DatasetRef(id="abc", hash="h", rows=1000, kind="view", now=0, splits={}), files={},
        gates=[GateResult("auc", 0.8123456, "at least 0.9", False, "too low")], on_demand_sha256="", environment={},
    )  # fmt: skip


CARDS: dict[str, Callable[[], Any]] = {
    "group": spend, "view": view, "service": service, "dataset": dataset, "release": release,
}  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_a_card_looks_as_it_did(name: str) -> None:
    made, path = CARDS[name]()._repr_html_(), SNAPSHOTS / f"{name}.html"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(made + "\n")
        pytest.fail(f"{path.name} was written: look at it, then run again")
    assert made + "\n" == path.read_text(), f"delete {path} to take the new form"


def test_text_of_a_declaration_is_escaped() -> None:
    made = spend()._repr_html_()
    assert "in &lt;cents&gt; &amp; euros" in made
    assert "<cents>" not in made


def test_a_group_that_was_never_stored_says_so_with_the_next_step() -> None:
    made = spend()._repr_html_()
    assert "nothing yet" in made
    assert "windrow run SERVICE" in made


def test_a_stored_group_shows_how_fresh_it_is(settings: Settings) -> None:
    import pyarrow as pa

    times = pa.array([0, 86_400_000_000], pa.timestamp("us", "UTC"))
    rows = pa.table(
        {"card_id": [1, 2], "amount": [1.0, 2.0], "cents": [100.0, 200.0], "event_time": times, "known_at": times}
    )
    Lake(settings.lake).table("features/card_spend_v1").append(rows)
    made = spend()._repr_html_()
    assert ">1970-01-02 00:00 UTC<" in made
    assert "load(&quot;features/card_spend_v1&quot;)" in made


def test_a_long_card_counts_what_it_leaves_out() -> None:
    made = facts_card("Many", {f"f{number}": number for number in range(100)})
    assert "and 60 more" in made
    assert "f41" not in made


def test_snapshots_are_short_enough_to_be_read() -> None:
    assert [p.name for p in SNAPSHOTS.glob("*.html") if len(p.read_text().splitlines()) >= 200] == []
