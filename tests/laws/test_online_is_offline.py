"""A request is answered as the past is: the online store and the point-in-time join say the same of now."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.oracle import ask
from tests.laws.test_history import contract, requests
from tests.laws.test_point_in_time import CALM
from tests.laws.worlds import ASKS, HOURS, KEYS, World, held, worlds
from windrow.features.contract import Contract
from windrow.features.join import view_frame
from windrow.serving.transformer import Transformer
from windrow.stores.engine import engine
from windrow.stores.online.store import OnlineStore, Row, open_online
from windrow.testing import times

LAST = 2 * HOURS + 6  # everything is known by then


def _published(world: World, store: OnlineStore) -> None:
    for group in KEYS:
        rows = [r for r in world.groups[group].rows if None not in r.key]
        values = held(group)
        stored = [(r.key, Row(r.event_time, r.known_at, r.seq, tuple(r.values[v] for v in values))) for r in rows]
        store.write(f"{group}_v1", list(values), stored)


@settings(max_examples=3, **CALM)
@given(worlds(), st.integers(0, 10))
def test_every_look_up_of_a_request_says_what_the_join_and_the_oracle_say(world: World, later: int) -> None:
    now, promised = LAST + later, contract(world)
    asked = requests(world)
    with tempfile.TemporaryDirectory() as folder, open_online(f"lmdb://{Path(folder)}/online", write=True) as store:
        _published(world, store)
        made = Transformer(promised, store).vectors(asked, [now] * len(asked))
    assert made.rows() == _offline(world, promised, now)
    said = [ask(world.groups, ASKS, request, now) for request in asked]
    shown = {name: f"{name}.{held(group)[0]}" for name, (group, _) in ASKS.items()}
    missing = [{n: row[v] for n, v in shown.items() if row[v] in (2, 3)} for row in made.statuses]
    assert missing == [{n: answer.status for n, answer in row.items() if answer.status} for row in said]


def _offline(world: World, promised: Contract, now: int) -> list[dict[str, object]]:
    spine = world._replace(asked=[(request, now) for request in requests(world)]).spine
    assert spine["event_time"].to_pylist() == times(*[now] * spine.num_rows).to_pylist()
    frame = view_frame(engine(), promised, spine, world.tables, functions={})
    rows: list[dict[str, object]] = frame.select(promised.feature_names).to_pylist()
    # Text that is missing has a word of its own where a model sees it.
    return [{n: _seen(promised, n, value) for n, value in row.items()} for row in rows]


def _seen(promised: Contract, name: str, value: object) -> object:
    dtype = next(f.dtype for f in promised.features if f.name == name)
    return "(missing)" if value is None and dtype == "string" else value
