"""A notebook that trains with a search: its winner is the release, and the others stay visible beside it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.orchestrate.conftest import copied_world, settings_of
from windrow.errors import WindrowError
from windrow.models.release import Release
from windrow.models.runs import trials
from windrow.orchestrate.releases import registry
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.run import run_service
from windrow.settings import Settings

pytestmark = pytest.mark.slow  # two projects, each with a kernel of its own

ONE = "model = Ridge(alpha=alpha).fit(data.train.X, data.train.y)\\n"
SEARCH = 'GridSearchCV(Ridge(), {\\"alpha\\": [1e4, 1.0, 1e6]}'
NOTEBOOK, SELECTED = "notebooks/train_heat.ipynb", ["sources/*", "features/*", "heat/training_dataset", "heat/model"]


class Searched(NamedTuple):
    """A release that the tiny project's notebook made by a search, and what Dagster shows of it."""

    settings: Settings
    facts: dict[str, object]
    release: Release

    @property
    def card(self) -> str:
        stores = Stores(self.settings)
        text = _Text()
        text.feed(registry(stores).card(self.release.id).decode())
        return " | ".join(text.parts)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def project(folder: Path, package: str, *, folds: str) -> Settings:
    """A copy of the world whose notebook searches, with folds as given."""
    code = f'from sklearn.model_selection import GridSearchCV\\n",\n    "model = {SEARCH}{folds}).fit(data.train.X, data.train.y)\\n'
    return settings_of(folder / "home", copied_world(folder / package, package, {NOTEBOOK: (ONE, code)}))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    settings = project(tmp_path_factory.mktemp("searched"), "searched", folds=", cv=data.folds")
    made = run_service("heat", settings, package="searched", select=SELECTED)
    release = registry(Stores(settings)).live("heat")
    assert release is not None
    return Searched(settings, dict(made.step("heat/model").facts), release)


def test_the_winner_of_a_notebooks_search_is_the_release_that_answers(searched: Searched) -> None:
    assert searched.release.evidence["estimator"] == "Ridge"
    assert searched.release.evidence["parameters"]["alpha"] == "1.0"


def test_every_candidate_is_metadata_of_the_model_best_first(searched: Searched) -> None:
    assert searched.facts["candidates"] == 3
    lines = str(searched.facts["search"]).splitlines()
    assert lines[0] == "| rank | alpha | mean score |"
    assert [line.split(" | ")[:2] for line in lines[2:]] == [["| 1", "1.0"], ["| 2", "10000.0"], ["| 3", "1000000.0"]]


def test_every_candidate_is_a_row_of_the_tracking_table(searched: Searched) -> None:
    rows = trials("heat", settings=searched.settings).to_pyarrow().to_pylist()
    assert [(row["release"], dict(row["parameters"])["alpha"]) for row in rows] == [
        (searched.release.id, alpha) for alpha in ("10000.0", "1.0", "1000000.0")
    ]
    assert {len(row["scores"]) for row in rows} == {5}


def test_the_model_card_names_the_candidates(searched: Searched) -> None:
    told = searched.card
    assert "3 were tried on 5 folds of the training split; the first won." in told
    assert [f"alpha={alpha}" in told for alpha in ("10000.0", "1.0", "1000000.0")] == [True, True, True]


def test_a_notebooks_search_whose_folds_mix_past_and_future_makes_no_release(tmp_path: Path) -> None:
    settings = project(tmp_path, "mixed", folds="")
    with pytest.raises(
        WindrowError, match=r"was left to choose its folds, and they do not keep to the TimeSplit of service 'heat'"
    ):
        run_service("heat", settings, package="mixed", select=SELECTED)
    assert registry(Stores(settings)).live("heat") is None
