"""From a batch run to an answer over HTTP: what was scored for an entity is what a caller gets, until it is forgotten."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from tests.orchestrate.conftest import copied_world, settings_of
from tests.serving.conftest import _running
from windrow.discover import services
from windrow.models.places import entity, places
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.run import run_service
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.forgetting.forget import forget
from windrow.stores.online.store import open_online

PACKAGE, GROUP = "kept_visits", "predictions/visits"
serving = contextmanager(_running)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The service visits, whose batch predictions answer for a year, run as a whole."""
    folder = tmp_path_factory.mktemp("kept")
    old, new = 'Online(unknown_entity="predict")', 'Online(unknown_entity="predict", precomputed="365d")'
    project = copied_world(folder / "project", PACKAGE, {f"{PACKAGE}/visits/service.py": (old, new)})
    settings = settings_of(folder / "home", project)
    run_service("visits", settings, package=PACKAGE)
    return settings


def sink(settings: Settings) -> dict[str, float]:
    table = Stores(settings).lake.table(GROUP).scan(engine())
    rows = table.select("customer_id", "prediction").to_pyarrow().to_pylist()
    return {row["customer_id"]: row["prediction"] for row in rows}


def kept(settings: Settings, people: list[Any]) -> list[Any]:
    with open_online(settings.online) as store:
        return [row and row.values[0] for row in store.read([(GROUP, (person,)) for person in people])]


def test_every_scored_entity_is_in_the_online_store_with_the_sinks_prediction(scored: Settings) -> None:
    expected = sink(scored)
    assert len(expected) == 120
    assert kept(scored, list(expected)) == list(expected.values())


def test_a_caller_gets_the_sinks_prediction_by_key_alone(scored: Settings) -> None:
    expected = dict(list(sink(scored).items())[:3])
    with serving(scored) as caller:
        rows = [{"customer_id": person} for person in expected]
        told = caller.predict({"rows": rows}, service="visits").json["predictions"]
    assert [one["value"] for one in told] == list(expected.values())
    assert {one["answered_by"] for one in told} == {"precomputed"}


def test_scoring_again_changes_nothing_in_the_online_store(scored: Settings) -> None:
    expected = sink(scored)
    run_service("visits", scored, package=PACKAGE, select=["visits/predictions"])
    assert kept(scored, list(expected)) == list(expected.values())


def test_who_is_forgotten_has_no_stored_prediction_left(scored: Settings) -> None:
    declared = services(project=scored.project, package=PACKAGE).values()
    groups = [group for service in declared for group in service.view.groups]
    person, other = list(sink(scored))[:2]
    where = places(entity("customer", groups), declared, groups)
    stores = Stores(scored)
    done = forget((person,), where, scored, stores.metadata)
    assert done.rows[f"online/{GROUP}"] == 1
    assert kept(scored, [person])[0] is None
    assert kept(scored, [other])[0] is not None
