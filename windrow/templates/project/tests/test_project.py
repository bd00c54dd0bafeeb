"""What this project promises; every test has a home folder of its own."""

from pathlib import Path

import numpy as np

from assets.bakery import simulate
from assets.bakery.on_demand import weekday_tomorrow
from windrow.discover import services

PROJECT = Path(__file__).parents[1]


def test_the_project_declares_the_bakery():
    bakery = services("assets", project=PROJECT)["bakery"]
    assert bakery.view.contract.feature_names == ("loaves", "loaves_6d", "loaves_mean_7d", "weekday_tomorrow")


def test_the_trainer_asks_only_for_features_of_the_view():
    services("assets", project=PROJECT)["bakery"].check_trainer(PROJECT / "notebooks")


def test_tomorrow_of_a_friday_is_a_saturday():
    friday = np.array(["2024-01-05T09:00:00"], "datetime64[us]")
    assert weekday_tomorrow(friday).tolist() == [5]


def test_the_simulator_gives_the_same_rows_every_time():
    first, second = simulate.sales(), simulate.sales()
    assert np.array_equal(first["loaves"], second["loaves"])
    assert len(first["loaves"]) == 40 * 730
