"""The law of the cache: whatever is committed and promoted meanwhile, every answer is one of a state inside its time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest
import skops.io

from tests.conftest import ROOT
from tests.laws.cache_law import CARDS, Asked, Callers, Commit, Judge, Promoted, ask_many, committing
from tests.redis_server import redis_server
from tests.serving import world
from tests.serving.conftest import Caller, _running, eventually, settings_in
from tests.serving.world import NOW
from windrow.models.cache import Cache
from windrow.models.policies import Policies
from windrow.models.registry import Registry
from windrow.schema import PredictionKey
from windrow.serving import cache as serving_cache
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.settings import Settings
from windrow.stores.log import records
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online

pytestmark = pytest.mark.xdist_group("bento")

# With seconds for an answer: what is judged is what it says, and two models that start at once take a small machine whole.
KEPT = Policies(cache=Cache(compiled=True), deadline_ms=8_000)
RELEASES = ("fraud-1", "fraud-2")
SWITCH = 0.5  # seconds between two promotions
COMMITS = 10 * len(CARDS)


class Played(NamedTuple):
    """What happened, and how many answers came from the cache."""

    settings: Settings
    asked: list[Asked]
    commits: list[Commit]
    promotions: list[Promoted]
    hits: int

    @property
    def wrong(self) -> list[Asked]:
        return Judge(self.settings, self.commits, self.promotions).wrong(self.asked)


def prepare(settings: Settings, *, beside: bool = False) -> None:
    """Publish the cards and release two models that say other things of them, in the worker or beside it; the first is live."""
    world.publish(settings)
    with open_online(settings.online, write=True) as store:
        at = NOW - 2 * 10**6
        store.write("card_v1", ["limit", "x"], [((card,), Row(at, at, 1, (50.0, 1.5))) for card in CARDS])
    for number, shift in ((2, 1.0), (1, 0.0)):
        if beside:
            _release_beside(settings, number, shift)
        else:
            world.release_fraud(settings, number, shift=shift, policies=KEPT)


def _release_beside(settings: Settings, number: int, shift: float) -> None:
    """Release the model as one that could not be compiled: it runs in a process of its own, and its outputs are kept."""
    model, (_, golden) = world._logistic(shift), world._compiled(shift)
    model[0].feature_names_in_ = np.array(world.FRAUD.feature_names, object)  # it was fitted on bare arrays
    world._register(settings, world.FRAUD, f"fraud-{number}", skops.io.dumps(model), golden, backend="sklearn", promote=True, number=number, policies=KEPT)  # fmt: skip


class Switching:
    """Promotes the two releases in turn, `every` so many seconds."""

    def __init__(self, settings: Settings, every: float = SWITCH) -> None:
        self._metadata = Metadata(settings.metadata)
        self._registry = Registry(self._metadata, settings.folder("releases"))
        self.promotions, self._every = [Promoted(RELEASES[0], 0)], every
        self._next = time.monotonic() + every

    def __call__(self) -> None:
        if time.monotonic() > self._next:
            release = RELEASES[len(self.promotions) % 2]
            self.promotions.append(Promoted(release, time.monotonic_ns()))
            self._registry.promote("fraud", release, reason="test")
            self._next = time.monotonic() + self._every

    def close(self) -> None:
        self._metadata.close()


def play(caller: Caller, count: int) -> Played:
    """Ask so often, and on until a few promotions and ten commits of each card happened: machines differ."""
    settings, turn = caller.worker.settings, caller.worker.turn
    switching, before = Switching(settings), [Commit(card, 50.0, 0, 0) for card in CARDS]
    with committing(settings.online) as others:

        def enough() -> bool:
            return len(switching.promotions) > 3 and others.count.value >= COMMITS

        ask = partial(turn.predict, "fraud", request_id="r")
        asked = asyncio.run(ask_many(ask, count, change=switching, enough=enough))
        commits = others.ended()
    switching.close()
    hits = sum(record.cached for _, record in records(settings.home / "log"))
    return Played(settings, asked, [*before, *commits], switching.promotions, hits)


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    settings = settings_in(tmp_path)
    prepare(settings)
    yield from _running(settings)


def _holds(played: Played, count: int) -> None:
    assert len(played.asked) >= count
    assert {one.release for one in played.asked} == set(RELEASES)
    assert played.hits > count / 10
    assert played.wrong == []


def test_a_hundred_thousand_answers_are_each_of_a_state_inside_their_time(caller: Caller) -> None:
    _holds(play(caller, 100_000), 100_000)


@pytest.mark.slow
def test_a_million_answers_are_each_of_a_state_inside_their_time(caller: Caller) -> None:
    _holds(play(caller, 1_000_000), 1_000_000)


@pytest.mark.parametrize("left_out", ["the release", "a feature"])
def test_a_key_that_leaves_something_out_is_found_out(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    def poor(release: str, content: str, asked: str, vector: Any) -> PredictionKey:
        if left_out == "the release":
            return PredictionKey("", "", asked, vector)
        return PredictionKey(release, content, asked, vector[1:])  # without the limit

    monkeypatch.setattr(serving_cache, "PredictionKey", poor)
    cache = caller.worker.live.service("fraud").cache
    assert cache is not None
    if left_out == "the release":  # where all releases share a place, as they do on Redis
        monkeypatch.setattr(serving_cache, "Kept", lambda *given, **options: cache._kept)
    assert play(caller, 20_000).wrong != []


def _listens(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname or "", address.port or 0)) == 0


@pytest.mark.parametrize(
    ("beside", "every"),
    [pytest.param(False, SWITCH, id="compiled"), pytest.param(True, 12.0, id="beside", marks=pytest.mark.slow)],
)  # fmt: skip
def test_two_replicas_over_one_redis_keep_the_law_and_one_that_is_killed_is_not_missed(
    tmp_path: Path, *, beside: bool, every: float
) -> None:
    with redis_server() as server:
        cache = f"{server.url.rpartition('/')[0]}/1"
        settings = msgspec.structs.replace(settings_in(tmp_path), project=ROOT, online=server.url, cache=cache)
        prepare(settings, beside=beside)
        key = local_key(settings)
        with start(settings) as one, start(settings) as two, committing(settings.online) as others:
            callers, switching = Callers([one.url, two.url], key), Switching(settings, every)
            while len(switching.promotions) < 4 or len(callers.asked) < 4000:
                callers.ask(1000, switching)
            both = dict(callers.failed)
            os.killpg(one.process.pid, signal.SIGKILL)
            eventually(lambda: not _listens(one.url))
            callers.ask(1000, switching)
            commits = others.ended()
        switching.close()
        kept = sum(record.cached for _, record in records(settings.home / "log"))
    before = [Commit(card, 50.0, 0, 0) for card in CARDS]
    # A model beside the worker needs seconds to start; until then the release before it answers.
    judge = Judge(settings, [*before, *commits], switching.promotions, effect=2 * every)
    assert judge.wrong(callers.asked) == []
    assert (both, callers.failed) == ({}, {one.url: 500})
    assert {asked.release for asked in callers.asked} == set(RELEASES)
    assert kept > 100
