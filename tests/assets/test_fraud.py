"""The fraud features on their simulator: what a view of them says of each payment, and what truth is planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from assets.fraud import on_demand as od
from assets.fraud import simulate
from assets.fraud.features import card_profile, chargebacks, customers, payments
from assets.fraud.service import fraud, view
from assets.fraud.train import model
from tests.assets.made import Made, make
from windrow.clock import duration
from windrow.features.join import view_frame
from windrow.serving.transformer import Transformer
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.materialize import materialize_group, materialize_source
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import open_online
from windrow.stores.publish import publish_online
from windrow.stores.tables import group_tables

HOUR, DAY = duration("1h"), duration("1d")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    home = tmp_path_factory.mktemp("fraud")
    lake, metadata = Lake(str(home / "lake")), Metadata(f"sqlite:///{home / 'metadata.db'}")
    for source in (payments, customers, chargebacks):
        materialize_source(source, lake, metadata, home)
    materialize_group(card_profile, lake, metadata)
    metadata.close()
    return lake


@pytest.fixture(scope="module")
def spine() -> dict[str, Any]:
    return simulate.payments()


@pytest.fixture(scope="module")
def frame(lake: Lake, spine: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Feature -> values of every payment, float64 with NaN for missing, in the payments' order."""
    times = pa.array(spine["ts"], pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    rows = pa.table({**{name: spine[name] for name in payments.columns}, "event_time": times})
    made = framed(lake, rows)
    return {name: made[name].cast("float64").to_numpy() for name in view.contract.feature_names}


def test_what_is_served_now_is_what_the_past_says_bit_for_bit(
    lake: Lake, spine: dict[str, Any], tmp_path: Path
) -> None:
    now = int(max(spine["received"].max(), simulate.chargebacks()["ts"].max()).astype(int)) + HOUR
    last = {name: values[-200:] for name, values in spine.items()}
    times = pa.array([now] * 200).cast(pa.timestamp("us", "UTC"))
    asked = pa.table({**{name: last[name] for name in payments.columns}, "event_time": times})
    rows = asked.select([f.name for f in view.contract.request]).to_pylist()
    with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
        for group in view.groups:
            publish_online(group, lake, online, now)
        served = Transformer(view.contract, online).vectors(rows, [now] * 200).rows()
    offline = framed(lake, asked).select(view.contract.feature_names).to_pylist()
    assert served == offline


def framed(lake: Lake, rows: pa.Table) -> pa.Table:
    """The view's features of spine rows."""
    functions = {f.function.__name__: f.function for f in view.on_demand}
    return view_frame(engine(), view.contract, rows, group_tables(view.contract.lookups, lake), functions=functions)


def before(rows: dict[str, Any], i: int, key: str, *, window: int, hop: int) -> np.ndarray[Any, Any]:
    """Which payments with the key of payment `i` lie in its window and were known by then: the rule, row by row."""
    ts, known, t = rows["ts"].astype(int), rows["received"].astype(int), int(rows["ts"].astype(int)[i])
    tail = (t - window) // hop * hop
    return np.flatnonzero((rows[key] == rows[key][i]) & (ts >= tail) & (ts < t) & (known <= t))


def test_counts_and_sums_are_those_of_a_plain_loop(frame: dict[str, Any], spine: dict[str, Any]) -> None:
    for i in np.random.default_rng(0).choice(spine["ts"].size, 300, replace=False):
        day = before(spine, i, "card_id", window=DAY, hop=5 * HOUR // 60)
        assert frame["payments_1d"][i] == day.size
        assert frame["spend_1d"][i] == pytest.approx(spine["amount"][day].sum(), rel=1e-6)
        assert frame["merchants_1d"][i] == np.unique(spine["merchant_id"][day]).size
        week = before(spine, i, "merchant_id", window=7 * DAY, hop=HOUR)
        assert (frame["merchant_payments_7d"][i], frame["merchant_cards_7d"][i]) == (
            week.size,
            np.unique(spine["card_id"][week]).size,
        )


def test_distance_and_time_are_those_since_the_last_payment_that_was_known(
    frame: dict[str, Any], spine: dict[str, Any]
) -> None:
    firsts = 0
    for i in np.random.default_rng(1).choice(spine["ts"].size, 300, replace=False):
        known = before(spine, i, "card_id", window=90 * DAY, hop=DAY)
        if not known.size:
            assert np.isnan([frame["km_since_last"][i], frame["minutes_since_last"][i]]).all()
            firsts += 1
            continue
        last = known[np.argmax(spine["ts"][known])]
        waited = (spine["ts"][i] - spine["ts"][last]) / np.timedelta64(1, "m")
        assert frame["minutes_since_last"][i] == pytest.approx(waited, rel=1e-5)
        far = od.km(*(np.array([spine[c][j]]) for j in (i, last) for c in ("lat", "lon")))[0]
        assert frame["km_since_last"][i] == pytest.approx(far, rel=1e-4, abs=1e-3)
    assert firsts >= 1


def test_a_late_payment_is_not_seen_before_it_arrived(frame: dict[str, Any], spine: dict[str, Any]) -> None:
    late = spine["received"] - spine["ts"] > np.timedelta64(1, "h")
    assert 0.005 < late.mean() < 0.02
    eager = [i for i in range(spine["ts"].size) if _hidden(spine, late, i)][:50]
    seen = [frame["payments_7d"][i] for i in eager]
    assert seen == [before(spine, i, "card_id", window=7 * DAY, hop=HOUR).size for i in eager]
    assert len(eager) == 50


def _hidden(rows: dict[str, Any], late: Any, i: int) -> bool:
    """Whether a payment of the same card in the last day was not known at payment `i`."""
    near = (
        (rows["card_id"] == rows["card_id"][i])
        & (rows["ts"] < rows["ts"][i])
        & (rows["ts"] > rows["ts"][i] - np.timedelta64(1, "D"))
    )
    return bool(np.any(near & late & (rows["received"] > rows["ts"][i])))


def test_an_address_counts_from_the_day_it_was_entered_not_from_the_day_of_the_move(
    frame: dict[str, Any], spine: dict[str, Any]
) -> None:
    rows = simulate.customers()
    mover = int(np.flatnonzero(rows["loaded_at"] > rows["valid_from"])[0])
    card, home = rows["card_id"][mover], np.flatnonzero(rows["card_id"] == rows["card_id"][mover])[0]
    moved = [i for i in np.flatnonzero(spine["card_id"] == card) if spine["ts"][i] >= rows["valid_from"][mover]]
    for i in moved:
        row = mover if spine["ts"][i] >= rows["loaded_at"][mover] else home
        place = (
            np.array([v]) for v in (spine["lat"][i], spine["lon"][i], rows["home_lat"][row], rows["home_lon"][row])
        )
        assert frame["km_from_home"][i] == pytest.approx(od.km(*place)[0], rel=1e-4)
    assert len(moved) > 5


def test_the_planted_frauds_are_found_by_a_model_of_the_features(frame: dict[str, Any], spine: dict[str, Any]) -> None:
    X, fraud = np.column_stack(list(frame.values())), simulate.fraudulent()
    learn = spine["ts"] < simulate.START + np.timedelta64(28, "D")
    trees = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(X[learn], fraud[learn])
    assert roc_auc_score(fraud[~learn], trees.predict_proba(X[~learn])[:, 1]) > 0.99


def test_without_where_and_when_the_card_paid_last_the_frauds_are_harder_to_find(frame: dict[str, Any]) -> None:
    fraud = simulate.fraudulent()
    amount, speed = roc_auc_score(fraud, frame["amount"]), roc_auc_score(fraud, np.nan_to_num(frame["km_from_home"]))
    assert amount < 0.97 < speed


def test_the_request_brings_the_payment_and_no_feature_of_it_is_looked_up() -> None:
    assert [f.name for f in view.contract.request] == ["card_id", "merchant_id", "amount", "lat", "lon", "abroad"]


def test_one_payment_in_two_hundred_is_delivered_twice_and_is_the_same_payment() -> None:
    rows, came = simulate.payments(), simulate.deliveries()
    assert (np.diff(came["received"].astype(int)) >= 0).all()
    ids, first = np.unique(came["payment_id"], return_index=True)
    assert ids.tolist() == rows["payment_id"].tolist()
    assert 0.003 < came["ts"].size / rows["ts"].size - 1 < 0.008
    for name in rows:
        assert (came[name][first] == rows[name]).all()


def test_complaints_come_1_to_30_days_after_nineteen_of_twenty_frauds() -> None:
    rows, told = simulate.payments(), simulate.complaints()
    waited = (told["ts"] - rows["ts"][told["payment_id"] - 1]) / np.timedelta64(1, "D")
    assert ((waited >= 1) & (waited <= 30)).all()
    assert simulate.fraudulent()[told["payment_id"] - 1].all()
    assert 0.90 < told["ts"].size / simulate.fraudulent().sum() < 0.99


def test_nothing_is_in_the_data_that_was_not_known_when_they_end() -> None:
    for rows, known in ((simulate.payments(), "received"), (simulate.chargebacks(), "received")):
        assert (rows[known] < simulate.END).all()
    assert simulate.chargebacks()["ts"].size < simulate.complaints()["ts"].size


# --- the service ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(fraud, tmp_path_factory.mktemp("fraud-service"))


def test_every_complaint_about_what_was_learned_had_come_when_the_first_judged_payment_was_made(made: Made) -> None:
    learned, judged = (part.rows["event_time"].cast("int64").to_numpy() for part in (made.train, made.test))
    assert learned.max() + 30 * DAY < judged.min()
    assert made.dataset.excluded["immature"] > 5000  # may still be complained about
    assert min(made.train.y.sum(), made.test.y.sum()) > 200


def test_the_model_finds_the_planted_frauds_also_those_that_nobody_complained_about(made: Made) -> None:
    trees = model().fit(made.train.X, made.train.y)
    said = trees.predict_proba(made.test.X)[:, 1]
    planted = simulate.fraudulent()[np.array(made.test.rows["payment_id"].to_pylist()) - 1]
    silent = planted & (made.test.y == 0)
    assert roc_auc_score(planted, said) > 0.99
    assert silent.sum() >= 5
    assert np.median(said[silent]) > 0.5


def test_the_simulator_gives_the_same_rows_every_time(tmp_path: Path) -> None:
    first = simulate.payments()["amount"].sum()
    simulate._world.cache_clear()
    assert simulate.payments()["amount"].sum() == first


def test_a_degree_of_latitude_is_111_km_and_the_way_round_the_earth_is_the_shorter_one() -> None:
    one = od.km(*(np.array([v]) for v in (51.0, 10.0, 50.0, 10.0)))
    date_line = od.km(*(np.array([v]) for v in (0.0, 179.5, 0.0, -179.5)))
    assert (round(float(one[0]), 2), round(float(date_line[0]), 2)) == (111.2, 111.2)


def test_missing_places_and_times_stay_missing() -> None:
    none, some = np.array([np.nan]), np.array([1.0])
    assert np.isnan(od.km(some, some, none, none))
    assert np.isnan(od.minutes(np.array(["2026-01-01"], "datetime64[us]"), np.array(["NaT"], "datetime64[us]")))
    assert np.isnan(od.share(np.array([1.0, 1.0]), np.array([0.0, np.nan]))).all()
