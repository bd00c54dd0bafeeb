"""Requests that arrive together are answered together, and each gets its own answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Caller
from tests.serving.world import GOOD
from windrow.errors import RequestError, StoreError
from windrow.serving.plane import Plane
from windrow.serving.turn import Turn
from windrow.stores.log import LogRecord, LogWriter, records


class Writes:
    """A real log that counts its writes, and fails those with a certain amount in them."""

    def __init__(self, folder: Path) -> None:
        self.log, self.sizes, self.failing = LogWriter(folder, "test"), list[int](), -1.0

    def append(self, rows: Sequence[LogRecord]) -> None:
        self.sizes.append(len(rows))
        if any(row.request.get("amount") == self.failing for row in rows):
            raise StoreError("the log is full", next_step="free disk space")
        self.log.append(rows)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Writes]:
    made = Writes(tmp_path)
    yield made
    made.log.close()


def ask_all(caller: Caller, log: Writes, bodies: Sequence[Any]) -> list[Any]:
    """Send the bodies in one turn; return each one's answer or error."""
    turn = Turn(Plane(caller.worker.live, log))

    async def together() -> list[Any]:
        asked = [turn.predict("fraud", json.dumps(b).encode(), request_id=f"r{i}") for i, b in enumerate(bodies)]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(together())
    return [json.loads(a) if isinstance(a, bytes) else a for a in answers]


def test_requests_of_one_turn_are_logged_with_one_write(fraud: Caller, log: Writes, tmp_path: Path) -> None:
    bodies = [{**GOOD, "amount": n} for n in range(5)] + [{"rows": [{**GOOD, "amount": n} for n in (5, 6)]}]
    answers = ask_all(fraud, log, bodies)
    assert log.sizes == [7]
    assert [(r.request_id, r.row, r.request["amount"]) for _, r in records(tmp_path)] == [
        ("r0", 0, 0.0), ("r1", 0, 1.0), ("r2", 0, 2.0), ("r3", 0, 3.0), ("r4", 0, 4.0), ("r5", 0, 5.0), ("r5", 1, 6.0),
    ]  # fmt: skip
    assert [a["request_id"] for a in answers] == [f"r{i}" for i in range(6)]


def test_who_asks_a_turn_later_joins_and_who_asks_still_later_does_not(fraud: Caller, log: Writes) -> None:
    turn, body = Turn(Plane(fraud.worker.live, log)), json.dumps(GOOD).encode()

    async def asked_after(turns: int) -> bytes:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await turn.predict("fraud", body, request_id=f"r{turns}")

    async def together() -> list[bytes]:
        return await asyncio.gather(*map(asked_after, (0, 1, 6)))

    assert [json.loads(answer)["request_id"] for answer in asyncio.run(together())] == ["r0", "r1", "r6"]
    assert log.sizes == [2, 1]


def test_an_answer_does_not_depend_on_who_else_asked(fraud: Caller, log: Writes) -> None:
    bodies = [{**GOOD, "amount": n * 10, "x": n / 3} for n in range(9)]
    together = [a["predictions"] for a in ask_all(fraud, log, bodies)]
    alone = [fraud.predict(body).json["predictions"] for body in bodies]
    assert together == alone


def test_a_request_that_is_refused_does_not_refuse_the_others(fraud: Caller, log: Writes, tmp_path: Path) -> None:
    bodies = [GOOD, {**GOOD, "card_id": 4711}, {**GOOD, "amount": "x"}, GOOD]
    answers = ask_all(fraud, log, bodies)
    assert [isinstance(a, RequestError) and a.kind for a in answers] == [False, "unknown-entity", "wrong-type", False]
    assert sorted(r.request_id for _, r in records(tmp_path)) == ["r0", "r3"]


def test_a_failing_log_write_fails_only_whose_record_it_is(fraud: Caller, log: Writes, tmp_path: Path) -> None:
    log.failing = 13.0
    answers = ask_all(fraud, log, [GOOD, {**GOOD, "amount": 13}, GOOD])
    assert [type(a) for a in answers] == [dict, StoreError, dict]
    assert sorted(r.request_id for _, r in records(tmp_path)) == ["r0", "r2"]


def test_a_long_queue_is_answered_in_runs_of_bounded_size(fraud: Caller, log: Writes) -> None:
    answers = ask_all(fraud, log, [GOOD] * 150)
    assert log.sizes == [64, 64, 22]
    assert len({a["request_id"] for a in answers}) == 150
