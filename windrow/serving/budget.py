"""The latency budget, checked before a release goes live: warm requests through all it does, in this very process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from windrow.errors import ModelError, RequestError
from windrow.serving.answers import Output
from windrow.serving.backbone import Answers
from windrow.serving.batch import Batch, Part, Scored, recorded
from windrow.serving.live import LiveService
from windrow.serving.stages import STAGES
from windrow.serving.vectors import Vectors
from windrow.serving.warmer import sample_request
from windrow.settings import Settings
from windrow.stores.log import LogWriter

ROUNDS, REQUESTS, SECONDS, FEWEST = 5, 100, 0.25, 10
# Requests come one by one: who has just waited is not interrupted for others on a busy machine, who never waits is.
PAUSE = 0.001
AGAIN_SECONDS = 30.0  # a release that was too slow is timed again after so long: this machine may have been busy
_clock = time.perf_counter_ns


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """What warm requests to one release took.

    Attributes
    ----------
    budget_ms
        The p99 that its service declares.
    p99_ms, requests
        The p99 of the best round, and how many requests that round had: what else runs on a machine only ever adds.
    stages_ms
        The p99 of each stage in that round.
    at
        Wall clock, UTC microseconds.
    """

    release: str
    budget_ms: float
    p99_ms: float
    requests: int
    stages_ms: dict[str, float]
    at: int

    @property
    def within(self) -> bool:
        """Whether it may go live."""
        return self.p99_ms <= self.budget_ms

    def __str__(self) -> str:
        most = max(self.stages_ms, key=self.stages_ms.__getitem__)
        told = f"p99 {self.p99_ms:.3g} ms of {self.budget_ms:g} ms"
        return told if self.within else f"too slow: {told} (most of it: {most}, {self.stages_ms[most]:.3g} ms)"


class Budget:
    """Times releases before they go live, and remembers what it found.

    Parameters
    ----------
    folder
        Where that is written, a file for each release.

    Notes
    -----
    A release that was within its budget once is not refused after a restart: that a machine is busy then must not
    take a service away. One that is over it is refused, and another try is made some time later.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refused: dict[str, tuple[float, Timed]] = {}

    def recall(self, id: str) -> None:
        """Raise `ModelError` for a release that was refused a moment ago, at no cost to those who answer."""
        until, timed = self._refused.get(id, (0.0, None))
        if timed is not None and time.monotonic() < until:
            raise _too_slow(timed)

    def check(self, service: LiveService) -> None:
        """Time a warmed release; raise `ModelError` if it is over its budget in every one of `ROUNDS` rounds."""
        release, before = service.release, read_timed(self._folder, service.release.id)
        if release.p99_ms is None:
            return
        timed = _timed(service, release.p99_ms, self._folder)
        if timed is None or (before is not None and before.within and not timed.within):
            return
        _keep(self._folder, timed)
        if not timed.within:
            self._refused[release.id] = time.monotonic() + AGAIN_SECONDS, timed
            raise _too_slow(timed)


def latency_folder(settings: Settings) -> Path:
    """Return where a home keeps what its releases took."""
    return settings.home / "service" / "latency"


def read_timed(folder: Path, id: str) -> Timed | None:
    """Return what was found of a release; None where it was not timed yet."""
    try:
        return msgspec.json.decode((folder / f"{id}.json").read_bytes(), type=Timed)
    except (OSError, msgspec.MsgspecError):  # another version's, or none
        return None


class _Round(NamedTuple):
    whole: list[int]
    stages: list[tuple[int, ...]]

    def p99(self) -> int:
        return _p99(self.whole)


def _timed(service: LiveService, budget_ms: float, folder: Path) -> Timed | None:
    """Return what the best of some rounds took, None where the model does not take the sample."""
    best: _Round | None = None
    try:
        with TemporaryDirectory(dir=_made(folder)) as scratch, LogWriter(Path(scratch), "warm-up") as log:
            for _ in range(ROUNDS):
                found = asyncio.run(_round(service, log))
                best = found if best is None or found.p99() < best.p99() else best
                if best.p99() <= budget_ms * 1e6:
                    break
    except RequestError as error:
        # As in warming: the sample's entity exists nowhere, and a model may rightly refuse missing values.
        if error.kind != "value-refused":
            raise ModelError(
                f"release {service.release.id!r} does not answer: {error.what}", next_step=error.next_step
            ) from error
    if best is None:
        return None
    stages = {name: _p99([row[i] for row in best.stages]) / 1e6 for i, name in enumerate(STAGES)}
    return Timed(
        release=service.release.id, budget_ms=budget_ms, p99_ms=best.p99() / 1e6, requests=len(best.whole),
        stages_ms=stages, at=time.time_ns() // 1000,
    )  # fmt: skip


async def _round(service: LiveService, log: LogWriter) -> _Round:
    body, made = sample_request(service.release.contract, now=service.now()), _Round([], [])
    end = time.monotonic() + SECONDS
    while len(made.whole) < REQUESTS and (time.monotonic() < end or len(made.whole) < FEWEST):
        await asyncio.sleep(PAUSE)
        moments = await _answered(service, body, log)
        made.stages.append(tuple(b - a for a, b in zip(moments, moments[1:], strict=False)))
        made.whole.append(moments[-1] - moments[0])
    return made


async def _answered(service: LiveService, body: bytes, log: LogWriter) -> list[int]:
    """Answer one request as the plane does, but an unknown entity too; return when each stage began, and the end."""
    moments = [_clock()]
    rows, now = service.reader.read(body), service.now()
    times = [now] * len(rows.values)
    batch = Batch(
        service, ["warm-up"] * len(times), range(len(times)), rows.values, times, now, [0.0] * len(times), moments[0]
    )
    moments.append(_clock())
    vectors = service.transformer.vectors(rows.values, times)
    moments.append(_clock())
    outputs = await service.predictor.predict(vectors)
    moments.append(_clock())
    log.append(recorded(batch, _scored(service, batch, vectors, outputs, moments)))
    moments.append(_clock())
    service.speaker.answer("warm-up", outputs, vectors.statuses, now=now)
    return [*moments, _clock()]


def _scored(service: LiveService, batch: Batch, vectors: Vectors, outputs: list[Output], moments: list[int]) -> Scored:
    answers = Answers(vectors, outputs, moments[2], moments[3])
    return Scored(Part(service, range(len(batch.values))), answers, moments[1])


def _p99(values: list[int]) -> int:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def _too_slow(timed: Timed) -> ModelError:
    return ModelError(
        f"release {timed.release!r} is {timed}, in the best of {ROUNDS} rounds of warm requests",
        next_step="promote a release that is fast enough (`windrow rollback SERVICE` for the one before), or declare what it needs: Online(p99_ms=...)",
    )


def _keep(folder: Path, timed: Timed) -> None:
    path = _made(folder) / f"{timed.release}.json"
    with TemporaryDirectory(dir=folder) as scratch:
        (Path(scratch) / "timed").write_bytes(msgspec.json.encode(timed))
        (Path(scratch) / "timed").replace(path)  # whole or not at all: every worker writes it


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
