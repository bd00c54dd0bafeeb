"""The bugs that nobody noticed in seven real systems: each written once more, and told by windrow's default path.

Beside each bug stands the right version, which passes. Those of churn and loans, which were made in training, stand in
`test_seven_bugs_in_training`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandera.ibis as pandera
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from tests.models.worlds import DAY, HOUR, World
from windrow import (
    Entity,
    FeatureView,
    Label,
    PredictionService,
    RandomSplit,
    Source,
    agg,
    aggregate,
    feature_group,
)
from windrow.errors import DataError, DeclarationError, ValidationError
from windrow.features.join import view_frame
from windrow.models.bundle import Bundle
from windrow.models.dataset import build_dataset, load_split, view_rows
from windrow.models.labels import label_rows
from windrow.models.training import train
from windrow.monitoring.audit import AuditReport, audit
from windrow.stores.engine import engine
from windrow.stores.log import LogRecord, LogWriter, PredictionLog
from windrow.stores.materialize import materialize_group, materialize_source
from windrow.testing import Mutation, features_of, mutate, no_look_ahead, partition_invariant, times
from windrow.testing.cut import LookAhead, look_ahead

# --- electricity: readings arrive up to 15 days late, and the metrics of a closed period changed afterwards ----------

area = Entity("area", area="string")
demand = Source("demand", event_time="ts", known_at="arrived", columns={"area": "string", "mw": "float64"})
DECEMBER = [(day, 100.0 + day) for day in range(1, 11)]


@feature_group(area)
def demand_now(demand):
    return demand.select("area", "mw")


def forecast(label: Label) -> PredictionService:
    view = FeatureView(
        "forecast", spine=Source("asked", event_time="ts", columns={"area": "string"}), features=[demand_now]
    )
    return PredictionService("forecast", view, label, model=dict, split=RandomSplit(0.5))


def add_demand(world: World, *rows: tuple[int, float, int]) -> None:
    """Rows of (day, MW, days until they arrive)."""
    days, mw, wait = zip(*rows, strict=True)
    times, arrived = [d * DAY for d in days], [(d + w) * DAY for d, w in zip(days, wait, strict=True)]
    world.add(demand, area=["VIC"] * len(rows), mw=list(mw), ts=times, arrived=arrived)


def metric(world: World, service: PredictionService, *, now: int) -> float:
    """Mean absolute error of a forecast of 100 MW over the days 1 to 10, as a dashboard would show it."""
    asked = {
        "area": ["VIC"] * 10,
        "event_time": pa.array([(d - 1) * DAY for d, _ in DECEMBER]).cast(pa.timestamp("us", "UTC")),
    }
    labels = label_rows(service, world.lake, engine(), pa.table(asked), now=now)["label"].drop_null()
    return float(np.mean(np.abs(labels.to_numpy() - 100.0)))


def test_electricity_an_outcome_that_may_come_late_without_a_word_on_how_late_is_refused() -> None:
    with pytest.raises(
        DeclarationError, match="does not say how long after its time an outcome can still become known"
    ):
        Label.value(demand, "mw", ahead="1d")


def test_electricity_the_metrics_of_a_closed_period_never_change_afterwards(tmp_path: Path) -> None:
    world, final = World(tmp_path), forecast(Label.value(demand, "mw", ahead="1d", matures_after="16d"))
    add_demand(world, *((day, mw, 15) for day, mw in DECEMBER))
    closed = metric(world, final, now=26 * DAY)
    hasty = forecast(Label.value(demand, "mw", ahead="1d", matures_after="60d"))
    add_demand(world, (3, 900.0, 20), (4, 800.0, 40))  # corrections, later than was ever promised
    assert closed == metric(world, final, now=90 * DAY) == 5.5
    assert metric(world, hasty, now=90 * DAY) == pytest.approx(154.8)  # what the bug would show from now on


def test_electricity_before_the_late_rows_are_there_no_day_counts_as_complete(tmp_path: Path) -> None:
    world, final = World(tmp_path), forecast(Label.value(demand, "mw", ahead="1d", matures_after="16d"))
    add_demand(world, *((day, mw, 0) for day, mw in DECEMBER))
    asked = pa.table({"area": ["VIC"], "event_time": pa.array([0]).cast(pa.timestamp("us", "UTC"))})
    states = [
        label_rows(final, world.lake, engine(), asked, now=now)["label_state"][0].as_py()
        for now in (10 * DAY, 16 * DAY)
    ]
    assert states == ["immature", "known"]


# --- nba: a streak that goes on from one team to the next -----------------------------------------------------------

team = Entity("team", team="string")
games = Source("games", event_time="day", columns={"team": "string", "won": "bool"})
SEASON = [
    {"team": name, "won": won, "day": f"2026-01-0{1 + number}"}
    for number, (name, won) in enumerate([("BOS", True), ("LAL", False), ("BOS", True), ("LAL", True)])
]


def test_nba_a_shift_that_is_not_grouped_by_team_is_refused() -> None:
    with pytest.raises(DeclarationError, match="shifts 'won' over the rows of every team together.*group the window"):

        @feature_group(team)
        def form(games):
            return games.select("team", won_before=games.won.lag().over(ibis.window(order_by=games.day)))


def test_nba_a_shift_that_forgets_its_window_altogether_is_refused() -> None:
    with pytest.raises(DeclarationError, match="the row before is another team's"):

        @feature_group(team)
        def form(games):
            return games.select("team", won_before=games.won.lag())


def test_nba_a_shift_within_the_team_is_right() -> None:
    @feature_group(team)
    def form(games):
        return games.select("team", won_before=games.won.lag().over(ibis.window(group_by="team", order_by=games.day)))

    said = [(row["team"], row["won_before"]) for row in features_of(form, games=SEASON)]
    assert said == [("BOS", None), ("BOS", True), ("LAL", None), ("LAL", False)]
    no_look_ahead(form, games=SEASON)
    partition_invariant(form, games=SEASON)


def test_nba_wins_counted_over_all_teams_are_found() -> None:
    @feature_group(team)
    def form(games):
        so_far = ibis.cumulative_window(order_by=games.day)
        return games.select("team", wins=games.won.cast("int64").sum().over(so_far))

    with pytest.raises(AssertionError, match="'wins' of 'form' depends on rows of other entities"):
        partition_invariant(form, games=SEASON)


def test_nba_a_streak_as_an_aggregate_stays_with_its_team() -> None:
    form = aggregate("form", games, by=team, features={"streak": agg.streak("won", "90d")})
    season = [{**game, "day": f"2026-01-0{day}"} for day, game in enumerate([*SEASON, *SEASON], start=1)]
    said = [(row["team"], row["streak"]) for row in features_of(form, games=season)]
    assert said == [("BOS", 0), ("BOS", 1), ("BOS", 2), ("BOS", 3), ("LAL", 0), ("LAL", 0), ("LAL", 1), ("LAL", 0)]


# --- football: the odds at the end of betting, used for a bet that was placed before --------------------------------

match = Entity("match", match_id="int64")
FIXTURE = {"match_id": "int64", "home": "string"}
fixtures = Source("fixtures", id="match_id", event_time="bet_at", columns=FIXTURE)
odds = Source("odds", event_time="offered_at", columns={"match_id": "int64", "home_odds": "float64"})


@feature_group(match)
def market(odds):
    return odds.select("match_id", "home_odds")


def test_football_a_column_of_a_match_that_is_known_only_after_it_is_refused() -> None:
    results = Source("results", event_time="kickoff", delay="2h", columns={**FIXTURE, "closing_odds": "float64"})
    with pytest.raises(
        DeclarationError, match=r"results\.closing_odds is known only 2h after the time that is asked about"
    ):
        FeatureView("match", spine=results, features=[results.closing_odds])


def test_football_of_the_odds_only_those_offered_before_the_bet_are_seen(tmp_path: Path) -> None:
    view = FeatureView("match", spine=fixtures, features=[market])
    no_look_ahead(
        view,
        fixtures=[{"match_id": 1, "home": "ARS", "bet_at": 9 * HOUR}],
        odds=[{"match_id": 1, "home_odds": odd, "offered_at": at * HOUR} for odd, at in ((2.1, 1), (1.4, 14))],
    )
    world = World(tmp_path)
    world.add(odds, match_id=[1, 1], home_odds=[2.1, 1.4], offered_at=[1 * HOUR, 14 * HOUR])  # offered, closing
    materialize_group(market, world.lake, world.metadata)
    spine = pa.table(
        {"match_id": [1], "home": ["ARS"], "event_time": pa.array([9 * HOUR]).cast(pa.timestamp("us", "UTC"))}
    )
    made = view_frame(engine(), view.contract, spine, {"market_v1": world.lake.table(market.key)}, functions={})
    assert made["home_odds"].to_pylist() == [pytest.approx(2.1)]


# --- fraud, the first: shift(-1) after an ascending sort reads the next payment --------------------------------------

card = Entity("card", card_id="int64")
PAYMENT = {"payment_id": "int64", "card_id": "int64", "amount": "float64"}
payments = Source("payments", id="payment_id", event_time="ts", columns=PAYMENT)
PAID = [{"payment_id": i, "card_id": i % 2, "amount": float(10 * i), "ts": f"2026-01-0{1 + i}"} for i in range(6)]


def shifted(payments, by):
    """The amount `by` rows before, by ascending time; a negative number is pandas' shift(-1)."""
    order = ibis.window(group_by=payments.card_id, order_by=payments.ts)
    return payments.amount.lag(by).over(order) if by > 0 else payments.amount.lead(-by).over(order)


def test_fraud_the_next_payment_as_a_feature_reads_the_future() -> None:
    @feature_group(card)
    def neighbour(payments):
        return payments.select("card_id", amount_before=shifted(payments, -1))

    with pytest.raises(AssertionError, match="'amount_before' of 'neighbour' reads the future"):
        no_look_ahead(neighbour, payments=PAID)
    assert look_ahead(neighbour, {"payments": stored_payments()}) == LookAhead(
        "amount_before", "2026-01-02T00:00:00+00:00"
    )


def test_fraud_the_payment_before_as_a_feature_is_right() -> None:
    @feature_group(card)
    def neighbour(payments):
        return payments.select("card_id", amount_before=shifted(payments, 1))

    no_look_ahead(neighbour, payments=PAID)
    assert look_ahead(neighbour, {"payments": stored_payments()}) is None


def stored_payments() -> pa.Table:
    """The rows as `windrow doctor` reads them, which looks into every group of a project."""
    at = times(*(row["ts"] for row in PAID))
    columns = {name: pa.array([row[name] for row in PAID]) for name in payments.columns}
    return pa.table({**columns, "ts": at, "event_time": at, "known_at": at})


# --- fraud, the second: the vector that is served does not hold the payment it is asked about ------------------------


@feature_group(card)
def newest_payment(payments):
    return payments.select("card_id", "amount")


stored_only = FeatureView("fraud", spine=payments, features=[newest_payment])
with_request = FeatureView("fraud", spine=payments, features=[payments.amount])
chargebacks = Source("chargebacks", event_time="ts", columns={"payment_id": "int64"})


def audited(home: Path, view: FeatureView) -> AuditReport:
    """Serve one payment of 900 after one of 20, let it arrive in the lake, and audit what was served."""
    service = PredictionService(
        "fraud", view, Label.joined(chargebacks, on="payment_id", matures_after="1d", absent=0),
        model=LogisticRegression, split=RandomSplit(0.5),
    )  # fmt: skip
    world = World(home)
    world.add(payments, payment_id=list(range(8)), card_id=list(range(8)), amount=[20.0] * 8, ts=[DAY] * 8)
    world.add(chargebacks, payment_id=[0, 2, 4, 6], ts=[2 * DAY] * 4)
    world.groups(service)
    bundle = released(service, world)
    asked = {"payment_id": 100, "card_id": 1, "amount": 900.0}
    moment = pa.array([5 * DAY]).cast(pa.timestamp("us", "UTC"))
    spine = pa.table({**{name: [value] for name, value in asked.items()}, "event_time": moment})
    served = view_rows(service, world.lake, engine(), spine)["amount"][0].as_py()  # the lake has not seen it yet
    record = LogRecord(
        kind="prediction", request_id="r1", service="fraud", release=bundle.id, event_time=5 * DAY, known_at=5 * DAY,
        request=asked, vector={"amount": served},
    )  # fmt: skip
    with LogWriter(home / "log", "api-0") as log:
        log.append([record])
    world.add(payments, payment_id=[100], card_id=[1], amount=[900.0], ts=[5 * DAY])
    world.groups(service)
    return audit(service, bundle, lake=world.lake, log=PredictionLog(home / "log", world.lake), con=engine())


def released(service: PredictionService, world: World) -> Bundle:
    made = build_dataset(service, world.lake, world.metadata, now=10 * DAY, home=world.home)
    learn = load_split(made, service.view.contract, "train")
    fitted = LogisticRegression().fit(learn.X, [0.0, 1.0, *learn.y[2:]])
    release = train(service, made, registry=world.registry, metadata=world.metadata, estimator=fitted)
    return world.registry.load(release.id)


def test_fraud_a_served_vector_without_the_request_itself_is_found_by_the_audit(tmp_path: Path) -> None:
    report = audited(tmp_path, stored_only)
    assert (report.rows, report.equal, report.by_feature) == (1, 0, {"amount": 1})
    assert (report.shown[0].served, report.shown[0].offline) == (20.0, 900.0)


def test_fraud_a_view_that_reads_the_request_needs_it_and_serves_what_was_trained_on(tmp_path: Path) -> None:
    assert [field.name for field in with_request.contract.request] == ["amount"]
    assert audited(tmp_path, with_request).passed


def test_fraud_an_aggregate_never_counts_the_payment_that_is_asked_about() -> None:
    spend = aggregate(
        "spend", payments, by=card, features={"count_7d": agg.count("7d"), "sum_7d": agg.sum("amount", "7d")}
    )
    said = [(row["card_id"], row["count_7d"], row["sum_7d"]) for row in features_of(spend, payments=PAID)]
    assert said == [(0, 0, 0.0), (0, 1, 0.0), (0, 2, 20.0), (1, 0, 0.0), (1, 1, 10.0), (1, 2, 40.0)]


# --- fraud, the third: a null check that can never fail --------------------------------------------------------------


class CannotFail(pandera.DataFrameModel):
    """What was written: compared with a missing value, nothing is ever unequal."""

    amount: float = pandera.Field(nullable=True)

    @pandera.check("amount")
    def is_there(cls, data):
        """Whether it equals itself, which a missing value neither does nor does not."""
        return data.table[data.key] == data.table[data.key]


class CanFail(pandera.DataFrameModel):
    """What was meant."""

    amount: float = pandera.Field(nullable=False)


def checked_by(checks: Any) -> Mutation:
    @feature_group(card, checks=checks)
    def spend(payments):
        return payments.select("card_id", "amount")

    return mutate(spend, payments=PAID)


def test_fraud_a_null_check_that_nothing_can_make_fail_is_named() -> None:
    found = checked_by(CannotFail)
    assert found.never_fired == ("amount: is_there",)
    assert "amount half null" in found.unnoticed


def test_fraud_a_null_check_that_fails_on_missing_values_is_right() -> None:
    found = checked_by(CanFail)
    assert found.never_fired == ()
    assert found.fired("amount half null") == ("amount is missing",)


# --- crypto: a key without the product ------------------------------------------------------------------------------

TWO_IN_ONE_SECOND = {"second": [1, 1], "product": ["BTC-USD", "ETH-USD"], "price": [64_000.0, 3_100.0]}
TICK = {"second": "int64", "product": "string", "price": "float64"}
second, tick = Entity("second", second="int64"), Entity("tick", product="string", second="int64")


def trades() -> dict[str, Any]:
    return {**TWO_IN_ONE_SECOND, "trade": ["BTC-USD/1", "ETH-USD/1"], "ts": np.array([1, 1], "datetime64[s]")}


without_product = Source(
    "ticks", id="second", event_time="ts", columns={**TICK, "trade": "string"}, simulator=f"{__name__}:trades"
)
ticks = Source(
    "ticks", id="trade", event_time="ts", columns={**TICK, "trade": "string"}, simulator=f"{__name__}:trades"
)


@feature_group(second)
def by_second(ticks):
    return ticks.select("second", "price")


@feature_group(tick)
def by_product(ticks):
    return ticks.select("product", "second", "price")


def test_crypto_an_id_without_the_product_is_refused_where_two_products_meet(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(DataError, match="rows 1 and 2 have the same 'second'"):
        materialize_source(without_product, world.lake, world.metadata, tmp_path)
    assert materialize_source(ticks, world.lake, world.metadata, tmp_path).rows_written == 2


def test_crypto_a_key_without_the_product_is_refused_where_two_products_meet(tmp_path: Path) -> None:
    world = World(tmp_path)
    materialize_source(ticks, world.lake, world.metadata, tmp_path)
    with pytest.raises(ValidationError, match=r"2 of 2 rows fail its checks") as refused:
        materialize_group(by_second, world.lake, world.metadata)
    assert refused.value.reasons == {"several rows for one (second, event_time, known_at)": 2}
    assert materialize_group(by_product, world.lake, world.metadata).rows_written == 2
