"""A search of hyper-parameters never judges a candidate by the past of what it was fitted on, and every trial is kept."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - makes the next import possible
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV, KFold, RandomizedSearchCV, TimeSeriesSplit

from tests.models.worlds import HOUR, World, load, load_world, ridge
from windrow import GroupSplit, RandomSplit, TimeSplit
from windrow.errors import DataError, ModelError
from windrow.models.dataset import TrainingDataset, build_dataset, load_split
from windrow.models.fitting import fit
from windrow.models.folds import TimeFolds
from windrow.models.runs import runs, trials
from windrow.models.search import progress, with_folds
from windrow.models.training import train
from windrow.settings import Settings

AT = np.arange(24, dtype=np.int64) * HOUR
ALPHAS = {"alpha": [0.1, 1.0, 10.0]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = load_world(tmp_path_factory.mktemp("load"))
    made.groups(load())
    return made


@pytest.fixture(scope="module")
def dataset(world: World) -> TrainingDataset:
    return build_dataset(load(), world.lake, world.metadata, now=48 * HOUR, home=world.home)


def sides(folds: TimeFolds) -> list[tuple[int, int, int]]:
    """Hours of the last row fitted on, the first and the last judged on."""
    return [(int(folds.times[a].max() // HOUR), *(int(folds.times[b].min() // HOUR + n) for n in (0, len(b) - 1))) for a, b in folds.split()]  # fmt: skip


def test_each_fold_is_judged_on_what_came_after_the_rows_it_was_fitted_on():
    assert sides(TimeFolds(AT, n_splits=3)) == [(5, 6, 11), (11, 12, 17), (17, 18, 23)]


def test_the_gap_before_a_fold_is_not_fitted_on():
    assert sides(TimeFolds(AT, gap="3h", n_splits=3)) == [(2, 6, 11), (8, 12, 17), (14, 18, 23)]


def test_folds_do_not_depend_on_the_order_of_rows():
    order = np.random.default_rng(0).permutation(24)
    made, turned = TimeFolds(AT, n_splits=3), TimeFolds(AT[order], n_splits=3)
    for (a, b), (c, d) in zip(made.split(), turned.split(), strict=True):
        assert (set(a), set(b)) == (set(order[c]), set(order[d]))


def test_a_group_that_is_judged_on_is_not_fitted_on():
    cards = np.arange(24) % 5
    for learned, judged in TimeFolds(AT, groups=np.where(np.arange(24) < 12, cards, cards + 3), n_splits=3).split():
        assert not set(np.where(learned < 12, cards[learned], cards[learned] + 3)) & set(np.where(judged < 12, cards[judged], cards[judged] + 3))  # fmt: skip


def test_rows_of_one_time_are_never_divided():
    for learned, judged in TimeFolds(np.repeat(AT[:6], 4), n_splits=3).split():
        assert np.repeat(AT[:6], 4)[learned].max() < np.repeat(AT[:6], 4)[judged].min()


def test_a_fold_of_one_class_is_left_out():
    assert TimeFolds(AT, labels=(AT > 8 * HOUR) & (AT % (2 * HOUR) == 0), n_splits=3).get_n_splits() == 2


def test_rows_of_one_time_make_no_folds():
    with pytest.raises(
        DataError, match=r"no fold can be made of 4 rows of 1 times with a gap of 1d.*give the search a cv="
    ):
        TimeFolds(np.zeros(4), gap="1d")


def test_folds_for_other_rows_are_refused():
    with pytest.raises(DataError, match=r"made for 24 rows, and there are 3"):
        list(TimeFolds(AT).split(np.zeros((3, 1))))


SEARCHES = [
    (lambda: GridSearchCV(Ridge(), ALPHAS), 3),
    (lambda: RandomizedSearchCV(Ridge(), ALPHAS, n_iter=2, random_state=0), 2),
    (lambda: HalvingRandomSearchCV(Ridge(), ALPHAS, n_candidates=3, min_resources=10, random_state=0, scoring="neg_mean_absolute_error"), 4),
]  # fmt: skip


@pytest.mark.parametrize(("search", "count"), SEARCHES, ids=["grid", "random", "halving"])
def test_a_search_of_scikit_learn_is_given_folds_in_time_and_its_winner_is_taken(dataset, search, count):
    made = fit(load(model=search), dataset)
    assert (type(made.estimator), len(made.trials)) == (Ridge, count)
    best = min(made.trials, key=lambda trial: trial.rank)
    assert made.estimator.get_params()["alpha"] == float(best.parameters["alpha"])
    assert all(len(trial.scores) == 5 and trial.seconds > 0 for trial in made.trials)


def test_a_search_scores_its_folds_as_scikit_learn_does_by_hand(dataset):
    learn = load_split(dataset, load().view.contract, "train")
    times = learn.rows["event_time"].cast("int64").to_numpy()
    by_hand = [
        Ridge(alpha=1.0).fit(learn.X.iloc[a], learn.y[a]).score(learn.X.iloc[b], learn.y[b])
        for a, b in TimeFolds(times, gap="0s").split()
    ]
    made = fit(load(model=lambda: GridSearchCV(Ridge(), ALPHAS)), dataset)
    assert made.trials[1].scores == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("own", "split"), [(TimeSeriesSplit(3), TimeSplit("6h")), (KFold(3, shuffle=True), RandomSplit())], ids=["time", "random"]
)  # fmt: skip
def test_a_search_that_chose_its_own_folds_keeps_them(dataset, own, split):
    learn = load_split(dataset, load().view.contract, "train")
    assert with_folds(GridSearchCV(Ridge(), ALPHAS, cv=own), load(split=split), learn).cv is own


def _one_fold(later: bool):
    yield (np.arange(10, 20), np.arange(10)) if later else (np.arange(10), np.arange(10, 20))


@pytest.mark.parametrize(
    "cv", [KFold(3), KFold(3, shuffle=True, random_state=0), _one_fold(True)], ids=["k", "shuffled", "once"]
)
def test_folds_of_its_own_that_look_ahead_are_refused_where_the_service_splits_by_time(dataset, cv):
    with pytest.raises(ModelError, match=r"GridSearchCV of service 'load' with cv=.* looks ahead: fold 1 of .* is fitted on \d+ rows that are later than .*leave cv= out"):  # fmt: skip
        fit(load(model=lambda: GridSearchCV(Ridge(), ALPHAS, cv=cv)), dataset)


def test_a_number_of_folds_says_how_many_and_they_are_made_in_time(dataset):
    learn = load_split(dataset, load().view.contract, "train")
    made = with_folds(GridSearchCV(Ridge(), ALPHAS, cv=3), load(), learn).cv
    assert (type(made), made.get_n_splits()) == (TimeFolds, 3)


def test_folds_of_its_own_that_can_be_read_once_only_are_searched_over(dataset):
    made = fit(load(model=lambda: GridSearchCV(Ridge(), ALPHAS, cv=_one_fold(False))), dataset)
    assert [len(trial.scores) for trial in made.trials] == [1, 1, 1]


def test_folds_of_its_own_keep_the_gap_of_the_split(dataset):
    learn = load_split(dataset, load().view.contract, "train")
    search = GridSearchCV(Ridge(), ALPHAS, cv=TimeSeriesSplit(3))
    with pytest.raises(ModelError, match=r"less than the gap of 3h before it"):
        with_folds(search, load(split=TimeSplit("6h", gap="3h")), learn)


def test_a_split_by_group_searches_by_group(world, tmp_path):
    service = load(split=GroupSplit("meter", 0.5))
    made = build_dataset(service, world.lake, world.metadata, now=48 * HOUR, home=tmp_path)
    learn = load_split(made, service.view.contract, "train")
    both = replace(learn, rows=learn.rows.set_column(0, "meter", pa.array(["a", "b"] * (len(learn.y) // 2) + ["a"] * (len(learn.y) % 2))))  # fmt: skip
    folds = with_folds(GridSearchCV(Ridge(), ALPHAS), service, both).cv
    names = np.array(both.rows["meter"].to_pylist())
    assert [(set(names[a]), set(names[b])) for a, b in folds] in (
        [({"a"}, {"b"}), ({"b"}, {"a"})], [({"b"}, {"a"}), ({"a"}, {"b"})],
    )  # fmt: skip


def test_a_search_without_a_winner_is_refused(dataset):
    with pytest.raises(
        ModelError, match=r"GridSearchCV of service 'load' has no best estimator.*leave its refit at True"
    ):
        fit(load(model=lambda: GridSearchCV(Ridge(), ALPHAS, refit=False)), dataset)


class Slow(Ridge):
    def fit(self, X, y):
        time.sleep(0.25)
        return super().fit(X, y)


def test_a_search_of_over_two_seconds_tells_how_far_it_is(dataset):
    lines: list[str] = []
    fit(load(model=lambda: GridSearchCV(Slow(), ALPHAS)), dataset, say=lines.append)
    fits = int(lines[0].removeprefix("search: ").split(" of 15 fits done in 2 s")[0])
    assert 4 <= fits < 15


def test_a_short_search_says_nothing(dataset):
    lines: list[str] = []
    fit(load(model=lambda: GridSearchCV(Ridge(), ALPHAS)), dataset, say=lines.append)
    assert lines == []


def test_a_search_that_was_watched_can_be_copied(dataset):
    learn, search = load_split(dataset, load().view.contract, "train"), GridSearchCV(Ridge(), ALPHAS, cv=3)
    with progress(search):
        search.fit(learn.X, learn.y)
    assert clone(search).get_params()["param_grid"] == ALPHAS


def test_every_trial_and_every_run_is_a_row_to_compare(world, dataset):
    settings = Settings.read({"WINDROW_HOME": str(world.home)})
    for model in (ridge, lambda: GridSearchCV(Ridge(), ALPHAS)):
        train(load(model=model), dataset, registry=world.registry, metadata=world.metadata)
    rows = runs("load", settings=settings).to_pyarrow().to_pylist()
    assert [(row["estimator"], row["trials"], row["seq"]) for row in rows] == [("Ridge", 0, dataset.seq), ("Ridge", 3, dataset.seq)]  # fmt: skip
    assert rows[0]["code"] != rows[1]["code"]
    assert {"mae", "baseline_mae", "train_mae"} <= set(rows[0])
    tried = trials(load(), settings=settings)
    assert tried.filter(tried["rank"] == 1).count().execute() == 1
    assert dict(tried.to_pyarrow()["parameters"].to_pylist()[0]) == {"alpha": "0.1"}


def test_the_validation_split_is_judged_beside_the_baseline(world, tmp_path: Path):
    service = load(split=TimeSplit("6h", gap="2h", validation="6h"))
    made = build_dataset(service, world.lake, world.metadata, now=48 * HOUR, home=tmp_path)
    other = World(tmp_path)
    release = train(service, made, registry=other.registry, metadata=other.metadata)
    run = other.metadata.runs("load")[-1]
    assert {"mae", "rmse", "r2"} == set(run["validation"]) == set(run["validation_baseline"]) == set(run["train"])
    assert release.evidence["validation"] == run["validation"]
    assert len(run["curves"]["residuals"]["predicted"]) == 12
    assert (run["dataset_hash"], run["seq"]) == (made.content_hash, made.seq)
