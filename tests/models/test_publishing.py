"""Predictions of batch runs in the online store: the newest of each entity, in whatever order the runs come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.football import football
from tests.models.worlds import fraud
from tests.redis_server import redis_server
from tests.serving.world import CHURN
from windrow import Batch, Online
from windrow.errors import DeclarationError
from windrow.models.policies import Policies
from windrow.models.precomputed import key_fields, unpacked
from windrow.models.publishing import publish_predictions
from windrow.stores.online.store import OnlineStore, open_online

UTC = pa.timestamp("us", "UTC")
PEOPLE = ("anna", "ben", "kim")


class Run(NamedTuple):
    """One batch run: whom it answered about, as of when, and when that was."""

    people: tuple[str, ...]
    event_time: int
    known_at: int
    release: str


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineStore]:
    """A store of this module, whose groups are told apart by the service's name."""
    if request.param == "lmdb":
        with open_online(f"lmdb://{tmp_path_factory.mktemp('kept')}/online", write=True) as opened:
            yield opened
        return
    with redis_server() as server, open_online(server.url, write=True) as opened:
        yield opened


def table(people: tuple[str, ...], event_time: int, known_at: int, release: str, **more: Any) -> pa.Table:
    count = len(people)
    facts = {
        "customer_id": pa.array(people, pa.string()),
        "event_time": pa.array([event_time] * count, UTC),
        "known_at": pa.array([known_at] * count, UTC),
        "prediction": pa.array([event_time / 100] * count, pa.float64()),
        "release": pa.array([release] * count, pa.string()),
    }
    return pa.table(facts | more)


_runs = st.lists(
    st.builds(
        Run,
        st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True).map(tuple),
        st.integers(0, 5),
        st.integers(5, 9),
        st.sampled_from(["c-1", "c-2"]),
    ),
    max_size=6,
)
_services = iter(range(10**9))


@given(runs=_runs)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_newest_prediction_of_each_entity_is_kept_whatever_order_the_runs_come_in(
    store: OnlineStore, runs: list[Run]
) -> None:
    service, newest = f"s{next(_services)}", dict[str, Run]()
    for run in runs:
        publish_predictions(service, CHURN, table(*run), store)
        for person in run.people:
            before = newest.get(person)
            if before is None or (run.event_time, run.known_at) >= (before.event_time, before.known_at):
                newest[person] = run
    found = store.read([(f"predictions/{service}", (person,)) for person in PEOPLE])
    for person, row in zip(PEOPLE, found, strict=True):
        run = newest.get(person)
        assert (row and (row.event_time, row.known_at, row.values)) == (
            run and (run.event_time, run.known_at, (run.event_time / 100, run.release))
        )


def test_the_same_run_again_changes_no_answer(store: OnlineStore) -> None:
    for _ in range(2):
        publish_predictions("again", CHURN, table(PEOPLE, 3, 5, "c-1"), store)
        assert [row and row.values for row in store.read([("predictions/again", ("kim",))])] == [(0.03, "c-1")]
    assert store.count("predictions/again") == 3


def test_a_row_that_the_model_refused_takes_nothing_away(store: OnlineStore) -> None:
    publish_predictions("refused", CHURN, table(PEOPLE, 3, 5, "c-1"), store)
    refused = table(PEOPLE, 4, 6, "c-1", prediction=pa.nulls(3, pa.float64()))
    assert publish_predictions("refused", CHURN, refused, store) == 0
    assert store.read([("predictions/refused", ("anna",))])[0].event_time == 3  # type: ignore[union-attr]


def test_probabilities_of_classes_come_back_bit_for_bit(store: OnlineStore) -> None:
    shares = {"probability_home": [0.1], "probability_draw": [0.2], "probability_away": [1 - 0.1 - 0.2]}
    publish_predictions("classes", CHURN, table(("anna",), 3, 5, "c-1", **shares), store)
    (row,) = store.read([("predictions/classes", ("anna",))])
    assert unpacked(row.values[0]) == [0.1, 0.2, 1 - 0.1 - 0.2]  # type: ignore[union-attr]


def test_a_release_is_told_the_greatest_age_and_none_by_default() -> None:
    assert Online(precomputed="2d").policies_for(()) == Policies(precomputed=2 * 86_400_000_000)
    assert Online().policies_for(()).precomputed is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Online(precomputed="0d"), r"Online\(precomputed='0d'\) is no age"),
        (lambda: Online(precomputed="soon"), "'soon', which is not"),
        (lambda: Online(precomputed=2), "precomputed= of Online"),
        (lambda: fraud(online=Online(precomputed="2d")), "but nothing makes them. Next: add batch=Batch"),
        (
            lambda: fraud(online=Online(precomputed="2d"), batch=Batch("@daily")),
            "a request is more than the key of one entity. It gives .*'amount'.*. Next: leave precomputed= out",
        ),
        (lambda: football(online=Online(precomputed="2d"), batch=Batch("@daily")), "more than the key of one entity"),
    ],
)
def test_what_cannot_be_precomputed_is_refused_when_it_is_declared(make: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        make()


def test_a_request_that_is_one_entitys_key_can_be() -> None:
    assert key_fields(CHURN) == ("customer_id",)
