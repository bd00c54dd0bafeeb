"""The nba service: forms that know no game too many, and chances as true as the teams' strengths allow."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from assets.nba import simulate
from assets.nba.features import form, form_at_home, league
from assets.nba.service import nba
from assets.nba.train import METHODS, briers, calibrated, learner
from tests.assets.made import Made, make
from tests.postgres import postgres
from windrow.models.registry import Registry
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.run import run_service
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.testing import features_of, no_look_ahead, partition_invariant

# Rows of box scores: team, whether at home, points, lead, day of January.
SCORES = [("BOS", True, 110, 10, 1), ("LAL", False, 100, -10, 1), ("BOS", False, 90, -5, 3), ("LAL", True, 95, 5, 3),
          ("BOS", True, 120, 1, 5), ("LAL", False, 119, -1, 5)]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(nba, tmp_path_factory.mktemp("nba"))


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    rows = simulate.played()
    return {**rows, "home_won": rows["home_points"] > rows["visitor_points"]}


def scores() -> list[dict[str, Any]]:
    return [
        {"score_id": f"{day}/{team}", "team": team, "at_home": home, "points": points, "lead": lead, "won": lead > 0,
         "lost": lead < 0, "tip_off": f"2026-01-0{day}T20:00:00Z"}
        for team, home, points, lead, day in SCORES
    ]  # fmt: skip


# --- the truth ------------------------------------------------------------------------------------------------------


def test_home_teams_win_as_often_as_their_chances_say(truth: dict[str, Any]) -> None:
    chance, won = truth["chance"], truth["home_won"]
    assert won.mean() == pytest.approx(0.57, abs=0.01)
    for part in (chance < 0.4, (chance >= 0.4) & (chance < 0.7), chance >= 0.7):
        spread = np.sqrt((chance[part] * (1 - chance[part])).sum())
        assert abs(won[part].sum() - chance[part].sum()) < 3 * spread


def test_each_pair_meets_twice_a_season_and_nobody_plays_twice_a_night(truth: dict[str, Any]) -> None:
    pairs = set(zip(truth["season"], truth["home_team"], truth["visitor_team"], strict=True))
    assert len(pairs) == len(truth["game_id"]) == 5 * 24 * 23
    both = [
        *zip(truth["home_team"], truth["tip_off"], strict=True),
        *zip(truth["visitor_team"], truth["tip_off"], strict=True),
    ]
    assert len(set(both)) == len(both)


def test_the_two_rows_of_a_box_score_are_one_game() -> None:
    rows = simulate.box_scores()
    n = rows["team"].size // 2
    assert (rows["lead"][:n] == -rows["lead"][n:]).all()
    assert (rows["points"][:n] - rows["points"][n:] == rows["lead"][:n]).all()
    assert (rows["won"][:n] == rows["lost"][n:]).all()


# --- the features ---------------------------------------------------------------------------------------------------


def test_forms_are_means_over_the_teams_own_last_games() -> None:
    said = [(row["team"], row["lead_3"], row["points_3"]) for row in features_of(form, box_scores=scores())]
    assert said == [
        ("BOS", 10.0, 110.0), ("BOS", 2.5, 100.0), ("BOS", 2.0, pytest.approx(106.67, abs=0.01)),
        ("LAL", -10.0, 100.0), ("LAL", -2.5, 97.5), ("LAL", -2.0, pytest.approx(104.67, abs=0.01)),
    ]  # fmt: skip


def test_the_form_at_home_counts_games_at_home_only() -> None:
    said = [(row["team"], row["lead_3"]) for row in features_of(form_at_home, box_scores=scores())]
    assert said == [("BOS", 10.0), ("BOS", 5.5), ("LAL", 5.0)]


def test_no_form_reads_the_future_or_another_team() -> None:
    for group in (form, form_at_home):
        no_look_ahead(group, box_scores=scores())
        partition_invariant(group, box_scores=scores())
    no_look_ahead(league, box_scores=scores())  # of all teams together, which is what it is for


def before(truth: dict[str, Any], team: str, game: int) -> list[int]:
    """The places of a team's games before one, oldest first."""
    played = (truth["home_team"] == team) | (truth["visitor_team"] == team)
    return np.flatnonzero(played & (truth["tip_off"] < truth["asked_at"][game])).tolist()


def lead(truth: dict[str, Any], team: str, game: int) -> int:
    margin = int(truth["home_points"][game] - truth["visitor_points"][game])
    return margin if truth["home_team"][game] == team else -margin


@pytest.mark.parametrize("role", ["home", "visitor"])
def test_what_a_game_knows_of_a_team_is_every_game_before_and_not_itself(
    made: Made, truth: dict[str, Any], role: str
) -> None:
    """Recomputed in plain Python for some games of the latest season."""
    for row in range(0, 540, 49):
        game = int(made.test.rows["game_id"][row].as_py()) - 1
        team = str(truth[f"{role}_team"][game])
        leads = [lead(truth, team, one) for one in before(truth, team, game)]
        streak = next((n for n, one in enumerate(reversed(leads)) if one < 0), len(leads))
        said = made.test.X.iloc[row]
        assert said[f"{role}_lead_7"] == pytest.approx(np.mean(leads[-7:]), rel=1e-5)
        assert said[f"{role}_won_15"] == pytest.approx(np.mean([one > 0 for one in leads[-15:]]), rel=1e-5)
        # A summer ends every streak: of the first nights the window holds this season's games only.
        assert said[f"{role}_winning"] == min(streak, len(leads) - len(before(truth, team, 2208)))


def test_earlier_meetings_are_those_in_the_same_hall(made: Made, truth: dict[str, Any]) -> None:
    game = int(made.test.rows["game_id"][300].as_py()) - 1
    pair = (truth["home_team"] == truth["home_team"][game]) & (truth["visitor_team"] == truth["visitor_team"][game])
    recent = truth["tip_off"] >= truth["asked_at"][game] - np.timedelta64(1095, "D")
    found = np.flatnonzero(pair & recent & (truth["tip_off"] < truth["asked_at"][game]))
    said = made.test.X.iloc[300]
    assert said["meetings"] == len(found) > 0
    assert said["home_won_before"] == pytest.approx(truth["home_won"][found].mean())


def test_the_test_split_is_the_latest_season_and_nothing_else(made: Made) -> None:
    assert set(made.test.rows["season"].to_pylist()) == {2023}
    assert set(made.train.rows["season"].to_pylist()) == {2019, 2020, 2021, 2022}
    assert made.dataset.splits == {"train": 2208, "test": 540}
    assert made.dataset.excluded == {"immature": 12}  # the last night: its results are known in the morning


# --- the calibration ------------------------------------------------------------------------------------------------


def chances(made: Made, model: Any, method: str) -> Any:
    return calibrated(model, method).fit(made.train.X, made.train.y).predict_proba(made.test.X)[:, 1]


def true_chances(made: Made, truth: dict[str, Any]) -> Any:
    return truth["chance"][np.array(made.test.rows["game_id"].to_pylist()) - 1]


def error(said: Any, true: Any) -> float:
    """Expected calibration error against the true chances: the mean distance of ten bins, by their games."""
    bins = np.minimum((said * 10).astype(int), 9)
    parts = [(said[bins == b].mean() - true[bins == b].mean(), (bins == b).mean()) for b in np.unique(bins)]
    return float(sum(abs(off) * share for off, share in parts))


def test_the_chosen_calibration_is_within_5_points_of_the_teams_true_chances(made: Made, truth: dict[str, Any]) -> None:
    scores = briers(learner(), made.train.X, made.train.y)
    assert set(scores) == set(METHODS)
    method = min(scores, key=scores.__getitem__)
    said, true = chances(made, learner(), method), true_chances(made, truth)
    assert error(said, true) < 0.05
    assert abs(said.mean() - true.mean()) < 0.03
    attainable = roc_auc_score(made.test.y, true)
    assert attainable == pytest.approx(0.73, abs=0.01)
    assert attainable - 0.07 < roc_auc_score(made.test.y, said) < attainable


def test_of_a_model_that_is_too_sure_the_brier_score_chooses_a_calibration_that_mends_it(
    made: Made, truth: dict[str, Any]
) -> None:
    """Naive Bayes takes forms that say the same for independent ones."""
    sure = make_pipeline(SimpleImputer(keep_empty_features=True), GaussianNB())
    scores = briers(sure, made.train.X, made.train.y)
    method, true = min(scores, key=scores.__getitem__), true_chances(made, truth)
    assert method != "none"
    assert error(chances(made, sure, "none"), true) > 0.25
    assert error(chances(made, sure, method), true) < 0.06


# --- the whole way --------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with postgres(port) as url:
        yield url


@pytest.mark.slow
def test_the_notebook_is_the_model_and_days_are_predicted_into_postgres_where_there_is_one(
    server: str, tmp_path: Path
) -> None:
    import psycopg

    root = Path(__file__).resolve().parents[2]
    given = {"WINDROW_HOME": str(tmp_path), "WINDROW_PROJECT": str(root)}
    settings = Settings.read(given)
    select = ["sources/*", "features/*", "nba/training_dataset", "nba/model"]
    facts = run_service("nba", settings, select=select).step("nba/model").facts
    live = Registry(Stores(settings).metadata, settings.folder("releases")).live("nba")
    assert live is not None
    assert facts["notebook_brier"] == pytest.approx(live.metrics["brier"], abs=1e-6)
    days = "2024-03-20..2024-03-30"
    left_out = run_service("nba", settings, select=["nba/predictions"], partitions=days).step("nba/predictions").facts
    assert left_out["sink postgres"] == "skipped because WINDROW_SINK_POSTGRES is not set"
    there = Settings.read({**given, "WINDROW_SINK_POSTGRES": server})
    for _ in range(2):  # a second run replaces what the first one wrote
        written = run_service("nba", there, select=["nba/predictions"], partitions=days).step("nba/predictions").facts
    assert written["sink postgres"].endswith("rows: predictions_nba")
    with psycopg.connect(server) as con:
        found = con.execute("SELECT game_id, prediction FROM predictions_nba ORDER BY game_id").fetchall()
    lake = Stores(settings).lake.table("predictions/nba").scan(engine()).to_pyarrow().to_pylist()
    assert found == sorted((row["game_id"], row["prediction"]) for row in lake)
    assert len(found) == written["dagster/partition_row_count"] > 24
