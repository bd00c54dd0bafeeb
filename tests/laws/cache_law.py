"""The law of the cache: requests, commits of new feature values and promotions at once, and a judge.

The judge knows when each value was committed and when each release was promoted, and computes with the models
themselves what each release says of each value. An answer is right if some value and some release that were in force
between the request's start and its answer give it.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import multiprocessing
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tests.serving.world import NOW
from windrow.models.bundle import load_bundle
from windrow.models.registry import Registry
from windrow.serving.run import connection
from windrow.settings import Settings
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online

SPAWN = multiprocessing.get_context("spawn")
CARDS = range(100, 140)
AMOUNTS = (5.0, 20.0, 80.0)
EFFECT = 1.0  # seconds in which a promotion is in effect
_SAME = 1e-6


class Commit(NamedTuple):
    """One committed value of one card; nanoseconds of the monotonic clock, which all processes share."""

    card: int
    limit: float
    began: int
    ended: int


class Asked(NamedTuple):
    """One answered request."""

    card: int
    amount: float
    began: int
    ended: int
    release: str
    value: float


class Promoted(NamedTuple):
    """A promotion: from when on it may be in effect."""

    release: str
    began: int


def commit_until(url: str, stop: Event, sent: Any, count: Any) -> None:
    """Write ever greater limits, one card after another, until told to stop; send what was written, and when."""
    made, version = list[Commit](), 0
    with open_online(url, write=True) as store:
        while not stop.is_set():
            version += 1
            card, limit = CARDS[version % len(CARDS)], 100.0 + 3 * (version // len(CARDS))
            began = time.monotonic_ns()
            store.write("card_v1", ["limit", "x"], [((card,), Row(NOW - 10**6 + version, NOW - 10**6 + version, version, (limit, 1.5)))])  # fmt: skip
            made.append(Commit(card, limit, began, time.monotonic_ns()))
            count.value = version
            if version == 1:
                sent.send("begun")
            stop.wait(0.003)
    sent.send(made)


class Committing(NamedTuple):
    """What another process commits meanwhile."""

    stop: Event
    count: Any
    received: Any

    def ended(self) -> list[Commit]:
        """Stop it, and return what it committed."""
        self.stop.set()
        return self.received.recv()  # type: ignore[no-any-return]


@contextmanager
def committing(url: str) -> Iterator[Committing]:
    """Commit values from a process of its own."""
    ours, theirs = SPAWN.Pipe()
    running = Committing(SPAWN.Event(), SPAWN.Value("q", 0), ours)
    process = SPAWN.Process(target=commit_until, args=(url, running.stop, theirs, running.count), daemon=True)
    process.start()
    assert ours.recv() == "begun"
    try:
        yield running
    finally:
        running.stop.set()
        process.join(20)


class Judge:
    """Says which answers no state explains.

    Parameters
    ----------
    settings
        Of the home with the releases.
    commits, promotions
        In their order; the first promotion is the release that was live before the first request.
    effect
        Seconds in which a promotion is in effect.
    """

    def __init__(
        self, settings: Settings, commits: Sequence[Commit], promotions: Sequence[Promoted], *, effect: float = EFFECT
    ) -> None:
        self._promotions, self._effect = promotions, round(effect * 1e9)
        self._by_card: dict[int, list[Commit]] = defaultdict(list)
        for commit in commits:
            self._by_card[commit.card].append(commit)
        self._said = {id: _outputs(settings, id, commits) for id in {one.release for one in promotions}}

    def wrong(self, asked: Iterable[Asked]) -> list[Asked]:
        """Return the answers that are no state's inside of their time."""
        return [one for one in asked if not (self._in_force(one) and self._explained(one))]

    def _in_force(self, one: Asked) -> bool:
        """Return whether the release may have answered then: promoted before the answer, and not replaced for long."""
        following = [*self._promotions[1:], None]
        return any(
            promoted.release == one.release
            and promoted.began <= one.ended
            and (later is None or one.began <= later.began + self._effect)
            for promoted, later in zip(self._promotions, following, strict=True)
        )

    def _explained(self, one: Asked) -> bool:
        commits, said = self._by_card[one.card], self._said[one.release]
        return any(
            commit.began <= one.ended
            and (later is None or later.ended >= one.began)
            and abs(said[one.amount, commit.limit] - one.value) < _SAME
            for commit, later in zip(commits, [*commits[1:], None], strict=True)
        )


def _outputs(settings: Settings, id: str, commits: Sequence[Commit]) -> dict[tuple[float, float], float]:
    """Return what a release says by (amount, limit)."""
    metadata = Metadata(settings.metadata)
    registry = Registry(metadata, settings.folder("releases"))
    bundle = load_bundle(registry.path(id), registry.release(id))
    metadata.close()
    pairs = [(amount, limit) for limit in sorted({commit.limit for commit in commits}) for amount in AMOUNTS]
    amounts, limits = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    found = bundle.predict({"limit": limits, "amount": amounts, "distance": np.full(len(pairs), 2.5, np.float32)})
    return dict(zip(pairs, found.tolist(), strict=True))


async def ask_many(
    ask: Callable[[bytes], Awaitable[bytes]],
    count: int,
    *,
    together: int = 16,
    change: Callable[[], None],
    enough: Callable[[], bool],
) -> list[Asked]:
    """Ask `count` times, and on until `enough` happened, so many at once; `change` is called every hundred requests."""
    asked, random = list[Asked](), np.random.default_rng(0)
    cards, amounts = random.choice(CARDS, count).tolist(), random.integers(0, len(AMOUNTS), count).tolist()
    numbers = itertools.takewhile(lambda number: number < count or not enough(), itertools.count())

    async def caller() -> None:
        for number in numbers:
            card, amount = cards[number % count], AMOUNTS[amounts[number % count]]
            body = msgspec.json.encode({"card_id": card, "amount": amount, "x": 4.0})
            began = time.monotonic_ns()
            told = msgspec.json.decode(await ask(body))
            asked.append(Asked(card, amount, began, time.monotonic_ns(), told["release"], told["predictions"][0]["value"]))  # fmt: skip
            if number % 100 == 0:
                change()
                await asyncio.sleep(0)

    await asyncio.gather(*(caller() for _ in range(together)))
    return asked


class Callers:
    """Two threads for each of some replicas, each with a connection that stays open; keeps every answer.

    Parameters
    ----------
    urls
        Of the replicas.
    key
        The access key.
    """

    def __init__(self, urls: Sequence[str], key: str) -> None:
        self._urls, self._headers = list(urls), {"authorization": f"Bearer {key}"}
        self.asked, self.failed = list[Asked](), Counter[str]()

    def ask(self, count: int, change: Callable[[], None]) -> None:
        """Ask `count` requests of all replicas together; `change` is called all the while."""
        random = np.random.default_rng(len(self.asked))
        wanted = list(zip(random.choice(CARDS, count).tolist(), random.choice(AMOUNTS, count).tolist(), strict=True))
        with ThreadPoolExecutor(2 * len(self._urls)) as pool:
            share = [wanted[at :: 2 * len(self._urls)] for at in range(2 * len(self._urls))]
            done = [pool.submit(self._work, self._urls[at % len(self._urls)], part) for at, part in enumerate(share)]
            while not all(one.done() for one in done):
                change()
                time.sleep(0.02)
            for one in done:
                one.result()

    def _work(self, url: str, wanted: Sequence[tuple[int, float]]) -> None:
        caller = connection(url, timeout=10)
        for card, amount in wanted:
            body, began = msgspec.json.encode({"card_id": card, "amount": amount, "x": 4.0}), time.monotonic_ns()
            try:
                caller.request("POST", "/v1/fraud/predict", body, self._headers)
                answer = caller.getresponse()
                told = msgspec.json.decode(answer.read())
            except (OSError, http.client.HTTPException):
                self.failed[url] += 1
                caller.close()
                continue
            if answer.status != 200:
                self.failed[url] += 1
                continue
            value = told["predictions"][0]["value"]
            self.asked.append(Asked(card, amount, began, time.monotonic_ns(), told["release"], value))
        caller.close()
