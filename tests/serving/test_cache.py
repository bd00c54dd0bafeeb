"""Kept outputs: found for the same vector of the same release, never for another, and only where that saves something."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.redis_server import redis_server
from tests.serving import world
from tests.serving.conftest import Caller, eventually
from windrow.errors import DeclarationError
from windrow.models.cache import Cache
from windrow.models.policies import Policies
from windrow.schema import PredictionKey
from windrow.serving.kept import Kept
from windrow.serving.shared_cache import RedisOutputs
from windrow.stores.log import LogRecord, records
from windrow.stores.online.store import Row, open_online

ALWAYS = Policies(cache=Cache(compiled=True))
ANNA = {"customer_id": "anna"}

_text = st.text(max_size=5)
_value = st.floats(width=32) | _text | st.none()
_keys = st.builds(PredictionKey, _text, _text, _text, st.lists(_value, max_size=4))


def logged(caller: Caller, kind: str = "prediction") -> list[LogRecord]:
    return [r for _, r in records(caller.worker.settings.home / "log") if r.kind == kind]


@given(_keys, _keys)
def test_keys_are_packed_to_the_same_bytes_only_if_every_field_is_the_same(
    one: PredictionKey, two: PredictionKey
) -> None:
    same = repr(one) == repr(two)  # repr, because NaN is the same missing value here, and -0.0 another one than 0.0
    assert (one.packed == two.packed) is same
    assert (one.digest == two.digest) is same


@given(_keys, st.sampled_from(["release", "content", "asked", "vector"]), _text)
def test_a_change_of_any_field_changes_the_key(key: PredictionKey, name: str, more: str) -> None:
    old = getattr(key, name)
    other = msgspec.structs.replace(key, **{name: [*old, more] if name == "vector" else f"{old}x"})
    assert other.packed != key.packed


def test_a_model_in_a_process_of_its_own_is_asked_once_for_the_same_vector(fresh: Caller) -> None:
    world.release_churn(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    first, second = (fresh.predict(ANNA, "churn").json["predictions"] for _ in range(2))
    assert first == second
    assert [record.cached for record in logged(fresh)] == [False, True]
    page = fresh("GET", "/metrics").body.decode()
    assert 'windrow_cache_total{release="churn-1",what="hit"} 1.0' in page


def test_a_compiled_model_keeps_nothing_unless_that_is_declared(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    assert fresh.worker.live.service("fraud").cache is None


def test_a_new_feature_value_and_a_new_release_never_find_an_old_output(fresh: Caller) -> None:
    settings = fresh.worker.settings
    world.release_fraud(settings, policies=ALWAYS)
    eventually(lambda: fresh.worker.live.ready)
    said = [fresh.predict(world.GOOD).json["predictions"][0]["value"] for _ in range(2)]
    with open_online(settings.online, write=True) as store:
        store.write("card_v1", ["limit", "x"], [((1,), Row(world.NOW, world.NOW, 9, (900.0, 1.5)))])
    said.append(fresh.predict(world.GOOD).json["predictions"][0]["value"])
    world.release_fraud(settings, 2, shift=1.0, policies=ALWAYS)
    eventually(lambda: fresh.worker.live.service("fraud").release.id == "fraud-2")
    said.append(fresh.predict(world.GOOD).json["predictions"][0]["value"])
    assert said[0] == said[1]
    assert len(set(said)) == 3
    assert [record.cached for record in logged(fresh)] == [False, True, False, False]


def test_rows_of_one_request_are_answered_in_their_order_whichever_were_kept(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings, policies=ALWAYS)
    eventually(lambda: fresh.worker.live.ready)
    rows = [{**world.GOOD, "amount": float(n)} for n in range(4)]
    alone = [fresh.predict(row).json["predictions"][0]["value"] for row in rows[1:3]]
    together = [p["value"] for p in fresh.predict({"rows": rows}).json["predictions"]]
    assert together[1:3] == pytest.approx(alone)
    assert together == sorted(together)
    assert [record.cached for record in logged(fresh)[2:]] == [False, True, True, False]


def test_the_least_recently_used_goes_when_entries_or_bytes_are_too_many() -> None:
    few, small = Kept[str](2), Kept[str](9, most_bytes=10)
    for kept in (few, small):
        for name in "abc":
            kept.put(name, name, seconds=60, size=4)
        assert (kept.get("a"), kept.get("c"), kept.evicted) == (None, "c", 1)


def test_a_redis_server_keeps_outputs_and_a_dead_one_keeps_none() -> None:
    keys = [PredictionKey("r-1", "", "prediction", [float(n)]).packed for n in range(3)]
    with redis_server() as server:
        outputs = RedisOutputs(server.url)
        outputs.put(keys[:2], [0.5, [0.25, 0.75]], seconds=60)
        eventually(lambda: outputs.get(keys) == [0.5, [0.25, 0.75], None])
        server.stop()
        assert outputs.get(keys) == [None, None, None]
        outputs.put(keys, [1.0, 2.0, 3.0], seconds=60)
        outputs.close()


@pytest.mark.parametrize("given", [{"entries": 0}, {"megabytes": float("nan")}, {"ttl": "0s"}, {"entries": True}])
def test_a_cache_that_keeps_nothing_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="keeps nothing"):
        Cache(**given)


def test_a_declared_cache_is_part_of_the_release() -> None:
    packed = json.loads(msgspec.json.encode(ALWAYS))
    assert packed["cache"] == {"entries": 100_000, "megabytes": 64, "ttl": "1h", "compiled": True}
