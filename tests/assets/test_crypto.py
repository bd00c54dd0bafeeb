"""The crypto service: bars from trades, and answers on the stream as bars close."""

from __future__ import annotations

import csv
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import roc_auc_score

from assets.churn.service import churn
from assets.crypto import simulate
from assets.crypto.features import BAR, LATENESS, bars, closes, moves, ticks
from assets.crypto.service import crypto
from windrow.clock import parse_time
from windrow.discover import record_streams
from windrow.errors import DeclarationError
from windrow.features.validation import validate
from windrow.models.stream import score_stream, stream_key
from windrow.orchestrate.follow import Followed, follow, look
from windrow.orchestrate.releases import live_bundle
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.run import RunResult, run_service
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.ingest.applier import Applier
from windrow.stores.ingest.events import FOLDER, Batch, EventWriter
from windrow.stores.materialize import read_current
from windrow.testing import features_of, no_look_ahead, partition_invariant

MINUTE = 60_000_000


def trade(
    product: str, number: int, second: float, price: float, *, wait: float = 0.0, size: float = 1.0
) -> dict[str, Any]:
    """One trade, `second` seconds after midnight, received `wait` seconds later."""
    at, came = round(second * 1_000_000), round((second + wait) * 1_000_000)
    return {
        "trade": f"{product}/{number}",
        "product": product,
        "price": price,
        "size": size,
        "ts": at,
        "received": came,
    }


def bar(row: dict[str, Any]) -> tuple[Any, ...]:
    """Product, seconds of closing and of being known, and the numbers of a bar."""
    times = (row["event_time"].timestamp(), row["known_at"].timestamp())
    return (row["product"], *times, *(row[n] for n in ("open", "high", "low", "close", "volume", "trades", "late")))


def test_two_products_traded_in_the_same_second_make_two_bars_and_every_trade_counts() -> None:
    rows = [
        trade("BTC", 1, 5, 60.0),
        trade("ETH", 1, 5, 3.0),
        trade("BTC", 2, 5, 62.0),
        trade("BTC", 3, 29.9, 61.0, size=0.5),
    ]
    assert [bar(row) for row in features_of(bars, ticks=rows)] == [
        ("BTC", 30, 40, 60.0, 62.0, 60.0, 61.0, 2.5, 3, 0),
        ("ETH", 30, 40, 3.0, 3.0, 3.0, 3.0, 1.0, 1, 0),
    ]


def test_a_trade_at_the_very_end_of_a_bar_belongs_to_the_next_one() -> None:
    rows = [trade("BTC", 1, 0, 60.0), trade("BTC", 2, 30, 62.0)]
    assert [bar(row)[:4] for row in features_of(bars, ticks=rows)] == [("BTC", 30, 40, 60.0), ("BTC", 60, 70, 62.0)]


def test_a_trade_within_the_allowed_lateness_is_in_the_bar_and_a_later_one_corrects_it() -> None:
    rows = [trade("BTC", 1, 5, 60.0), trade("BTC", 2, 29, 62.0, wait=11.0), trade("BTC", 3, 10, 65.0, wait=30.5)]
    assert [bar(row) for row in features_of(bars, ticks=rows)] == [
        ("BTC", 30, 40, 60.0, 62.0, 60.0, 62.0, 2.0, 2, 0),
        ("BTC", 30, 40.5, 60.0, 65.0, 60.0, 62.0, 3.0, 3, 1),
    ]


def test_a_correction_does_not_move_what_was_said_of_the_moves() -> None:
    rows = [trade("BTC", i, 30 * i + 1, 100.0 + i) for i in range(12)]
    late = trade("BTC", 99, 45, 900.0, wait=200.0)
    assert features_of(moves, ticks=[*rows, late]) == features_of(moves, ticks=rows)


def test_up_says_whether_the_price_rose_in_the_last_five_minutes_and_nothing_where_there_is_no_such_bar() -> None:
    rows = [trade("BTC", i, 30 * i + 1, 100.0 + (i if i < 11 else -50)) for i in range(12)]
    assert [row["up_5m"] for row in features_of(moves, ticks=rows)] == [None] * 10 + [True, False]


@pytest.mark.parametrize("group", [bars, moves])
def test_no_bar_reads_the_future_or_another_product(group: Any) -> None:
    random = np.random.default_rng(0)
    rows = [
        trade(product, i, float(random.uniform(0, 90)), 100 + float(random.normal()), wait=float(random.exponential(8)))
        for product in ("BTC", "ETH")
        for i in range(5)
    ]
    no_look_ahead(group, ticks=rows)
    partition_invariant(group, ticks=rows)


def test_the_clock_ticks_when_a_bar_is_known() -> None:
    assert closes.first(0) == LATENESS * 1_000_000
    assert closes.first(LATENESS * 1_000_000 + 1) == (BAR + LATENESS) * 1_000_000


def test_the_true_drift_says_more_of_the_next_five_minutes_than_chance() -> None:
    seconds = np.arange(600, simulate.HOURS * 3600 - 300, 30)
    for product in simulate.PRODUCTS:
        path, drift = simulate._paths()[product]
        assert 0.65 < roc_auc_score(path[seconds + 300] > path[seconds], drift[seconds]) < 0.85


def test_the_simulator_gives_late_trades_and_the_same_trades_every_time() -> None:
    rows = simulate.ticks()
    wait = (rows["received"] - rows["ts"]) / np.timedelta64(1, "s")
    assert 0.003 < (wait > 40).mean() < 0.007
    assert (wait[wait <= 40] <= 3).all()
    assert np.unique(rows["trade"]).size == rows["trade"].size
    first = rows["price"].sum()
    simulate._ticks.cache_clear(), simulate._paths.cache_clear()
    assert simulate.ticks()["price"].sum() == first


class Made(NamedTuple):
    """The whole service, made once."""

    stores: Stores
    run: RunResult

    def rows(self, key: str) -> pa.Table:
        return self.stores.lake.table(key).scan(engine()).to_pyarrow()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("crypto")
    project = Path(__file__).parents[2]
    given = {"WINDROW_HOME": str(home / "home"), "WINDROW_DATA": str(home / "none"), "WINDROW_PROJECT": str(project)}
    settings = Settings.read(given)
    return Made(Stores(settings), run_service("crypto", settings))


def test_the_model_beats_its_gate_and_every_check_passes(made: Made) -> None:
    facts = made.run.step("crypto/model").facts
    assert facts["auc"] > 0.64
    assert (facts["answers with"], all(made.run.checks.values())) == ("onnx", True)


def test_late_trades_are_flagged_as_corrections(made: Made) -> None:
    late = made.rows(bars.key)["late"].to_numpy()
    assert late.max() >= 1
    assert 0.003 * made.rows(ticks.key).num_rows < (late > 0).sum() < 0.007 * made.rows(ticks.key).num_rows


def test_the_stream_answers_each_product_and_bar_once(made: Made) -> None:
    rows = made.rows(stream_key(crypto))
    asked = rows.select(["product", "event_time"]).group_by(["product", "event_time"]).aggregate([])
    assert (rows.num_rows, asked.num_rows) == (made.run.step("crypto/stream").facts["rows appended"],) * 2
    closing = pc.subtract(rows["event_time"], pa.scalar(timedelta(seconds=LATENESS)))
    on_time = made.rows(moves.key)
    first = pc.min(closing).as_py()
    there = on_time.filter(
        pc.and_(pc.greater_equal(on_time["event_time"], first), pc.less_equal(on_time["event_time"], pc.max(closing)))
    )
    assert sorted(zip(rows["product"].to_pylist(), closing.to_pylist(), strict=True)) == sorted(
        zip(there["product"].to_pylist(), there["event_time"].to_pylist(), strict=True)
    )


def test_the_stream_says_what_batch_scoring_says_of_the_same_moments(made: Made) -> None:
    said, batch = (
        {
            (r["product"], r["event_time"]): (r["prediction"], r["release"], r["status"])
            for r in made.rows(key).to_pylist()
        }
        for key in (stream_key(crypto), "predictions/crypto")
    )
    assert len(said) > 200
    assert {key: batch[key] for key in said} == said


def test_a_second_run_changes_nothing(made: Made) -> None:
    before = made.rows(stream_key(crypto)).num_rows
    facts = run_service("crypto", made.stores.settings, select=["crypto/stream"]).step("crypto/stream").facts
    assert (facts["rows appended"], facts["skipped because"]) == (0, "every row that is due has its answer")
    assert made.rows(stream_key(crypto)).num_rows == before


def copied(made: Made, home: Path) -> Stores:
    """Another home with the same lake and release, and a stream that has not begun."""
    shutil.copytree(made.stores.settings.home, home, ignore=shutil.ignore_patterns("stream", "dagster"))
    given = {"WINDROW_HOME": str(home), "WINDROW_PROJECT": str(made.stores.settings.project)}
    return Stores(Settings.read(given))


def said(stores: Stores) -> dict[tuple[str, datetime], float]:
    """Product and time -> what the stream said; each once."""
    rows = stores.lake.table(stream_key(crypto)).scan(engine()).to_pyarrow().to_pylist()
    answers = {(row["product"], row["event_time"]): row["prediction"] for row in rows}
    assert len(answers) == len(rows)
    return answers


def test_answers_are_appended_as_bars_close_however_often_somebody_looks(made: Made, tmp_path: Path) -> None:
    again, bundle, end = (
        copied(made, tmp_path / "home"),
        live_bundle(crypto, made.stores),
        made.stores.now(crypto.sources),
    )
    for before in (5 * MINUTE, 5 * MINUTE - 7_000_000, 4 * MINUTE, MINUTE, MINUTE, 0):
        score_stream(crypto, bundle, again.lake, engine(), now=end - before)
    whole = said(made.stores)
    assert {key: value for key, value in said(again).items() if key in whole} == whole


def arrive(stores: Stores, *trades: dict[str, Any]) -> None:
    """Take trades in as events: accepted into a segment, brought to the lake by the applier."""
    stream = record_streams([crypto], stores.settings)[ticks.name]
    with EventWriter(stores.settings.folder(FOLDER), "api-0") as writer:
        writer.append(
            Batch(stream.name, stream.names, [[*(t[n] for n in stream.names), t["received"]] for t in trades])
        )
        writer.rotate()
        applier = Applier(stores.settings)
        while applier.step().read:
            pass
        assert sum(made.rows for made in applier.commit()) == len({t["trade"] for t in trades})
        applier.close()


def test_whoever_follows_the_stream_answers_each_bar_when_it_closes_and_no_correction(
    made: Made, tmp_path: Path
) -> None:
    stores = copied(made, tmp_path / "home")
    look(crypto, stores)
    end = stores.now(crypto.sources) // (30 * 1_000_000) * 30 + 30  # the next full half minute, in seconds
    prices = dict(
        zip(simulate.ticks()["product"].tolist(), simulate.ticks()["price"].tolist(), strict=True)
    )  # the newest
    arrive(
        stores,
        *(trade(p, 10**6 + i, end + 5 * i + 1, price, wait=0.2) for p, price in prices.items() for i in range(14)),
    )
    seen = list[Followed]()
    follow(crypto, stores, stop=lambda: len(seen) == 1, told=seen.append, pause=0.01)
    closed = {int(t.timestamp()) - LATENESS for t in seen[0].answers["event_time"].to_pylist()}
    assert max(closed) == end + 30  # of the next bar, the ten seconds are not over
    assert bars_of(stores, closing=end + 30) == [("BTC-USD", 6, 0), ("ETH-USD", 6, 0)]
    arrive(stores, trade("BTC-USD", 10**7, end + 3, prices["BTC-USD"], wait=60))
    assert look(crypto, stores).answers.num_rows == 0
    assert bars_of(stores, closing=end + 30) == [("BTC-USD", 6, 0), ("BTC-USD", 7, 1), ("ETH-USD", 6, 0)]


def bars_of(stores: Stores, *, closing: int) -> list[tuple[str, int, int]]:
    """Product, trades and late trades of every version of the bars that close at a second."""
    rows = read_current(bars, stores.lake, engine()).to_pyarrow().to_pylist()
    return sorted((r["product"], r["trades"], r["late"]) for r in rows if r["event_time"].timestamp() == closing)


def test_a_service_without_a_stream_cannot_be_followed(made: Made) -> None:
    with pytest.raises(DeclarationError, match="service 'churn' declares no stream"):
        look(churn, made.stores)


@pytest.mark.data("crypto_bitcoin_daily.csv")
def test_real_daily_bars_pass_the_checks_of_our_bars(data: Path) -> None:
    with (data / "crypto_bitcoin_daily.csv").open(newline="") as file:
        days = [row for row in csv.DictReader(file) if float(row["volume"])]
    columns: dict[str, Any] = {
        n: pa.array([float(row[n]) for row in days]) for n in ("open", "high", "low", "close", "volume")
    }
    counts = {n: pa.array([int(n == "trades")] * len(days)) for n in ("trades", "late")}
    at = pa.array([parse_time(row["date"]) for row in days]).cast(pa.timestamp("us", "UTC"))
    rows = pa.table(
        {"product": pa.array(["BTC-USD"] * len(days)), **columns, **counts, "event_time": at, "known_at": at}
    )
    verdict = validate(bars, rows)
    assert (verdict.reasons, verdict.good.num_rows == len(days) > 1000) == ({}, True)
