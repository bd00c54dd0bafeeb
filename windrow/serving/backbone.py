"""Who answers a request: the release that was asked, or, where it cannot in time, the next of its fallback chain.

The good path is one read, one run of the model and a look at the clock. Everything else here runs only when
something is wrong, and says so in the answer, the log and the metrics.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from windrow.errors import RequestError, StoreError
from windrow.models.policies import CONSTANT
from windrow.serving.answers import Output
from windrow.serving.degraded import Where, nothing, refusal, rows_for_fallback
from windrow.serving.live import LiveService
from windrow.serving.vectors import AWAY, Vectors

_clock = time.perf_counter_ns
_SHARE = 0.75  # of the time, for a challenger: the rest is the golden release's, if it has to answer instead
_OVERLOADED, _LATE = "overloaded", "deadline"
_OURS = 500  # from this status on it is not the caller's fault
_log = logging.getLogger("windrow.serving")


class Other(NamedTuple):
    """Who answered a row instead of the release that was asked: a release with row `at` of its own vectors, or a constant."""

    service: LiveService | None = None
    vectors: Vectors | None = None
    at: int = 0
    cached: bool = False

    @property
    def name(self) -> str:
        """The release's id, or ``constant``."""
        return CONSTANT if self.service is None else self.service.release.id


class Given(msgspec.Struct, frozen=True, gc=False):
    """Checked request rows.

    Attributes
    ----------
    rows, times
        Their values, and the time that each asks about (UTC microseconds).
    begun
        When the request began, nanoseconds of the performance counter: its deadline counts from there.
    places
        Where the rows stand among those of their request; None for all of them, in order.
    """

    rows: Sequence[dict[str, Any]]
    times: Sequence[int]
    begun: int
    places: Sequence[int] | None = None

    def part(self, places: Sequence[int]) -> Given:
        """Return some of the rows."""
        return Given([self.rows[i] for i in places], [self.times[i] for i in places], self.begun, places)

    def where(self, row: int) -> str:
        """Return where a row stands in its request."""
        if self.places is not None:
            return f"$.rows[{self.places[row]}]"
        return f"$.rows[{row}]" if len(self.rows) > 1 else "$"


class Answers(msgspec.Struct, frozen=True, gc=False):
    """The outputs of n rows, and how they came about.

    Attributes
    ----------
    vectors
        What the release that was asked was given, or would have been.
    outputs
        One for each row.
    gathered, done
        When the features were there, and the outputs: nanoseconds of the performance counter.
    reasons
        Row -> why it is degraded: reasons of its vector, then why the release did not answer.
    others
        Row -> who answered instead.
    cached
        Rows whose outputs the release had kept.
    stored
        Where the outputs are a batch run's: the time that each is about, UTC microseconds. No vector was made then.
    """

    vectors: Vectors
    outputs: list[Output]
    gathered: int
    done: int
    reasons: Mapping[int, tuple[str, ...]] = {}
    others: Mapping[int, Other] = {}
    cached: Sequence[int] = ()
    stored: Sequence[int] = ()

    @property
    def whole(self) -> bool:
        """Whether all is well and there is nothing to say of it."""
        return not (self.reasons or self.others or self.stored)


class Backbone:
    """Answers rows by the first of some candidates that can, and counts what went wrong.

    Attributes
    ----------
    degraded
        (service, reason) -> rows that were answered though something was wrong.
    fallbacks
        (service, who) -> rows that were answered by somebody else.
    """

    def __init__(self) -> None:
        self.degraded: Counter[tuple[str, str]] = Counter()
        self.fallbacks: Counter[tuple[str, str]] = Counter()

    async def answer(self, candidates: Sequence[LiveService], given: Given) -> Answers:
        """Return the outputs of the rows that are given.

        Parameters
        ----------
        candidates
            The release that was asked, then who may answer in its place.
        given
            What is asked.

        Raises
        ------
        RequestError
            If the rows are not in order or are refused, or if nobody can answer in time (504, else 503 or 500).
        """
        asked = candidates[0]
        rows, until = given.rows, given.begun + asked.deadline
        share = until if len(candidates) == 1 else given.begun + int(_SHARE * asked.deadline)
        vectors, gathered = None, 0
        outputs: dict[int, Output] = {}
        cached: Sequence[int] = ()
        try:
            vectors = asked.transformer.vectors(rows, given.times)
            gathered = _clock()
            if not vectors.degraded:
                ran = await _run(asked, vectors, gathered, share)
                return Answers(vectors, ran.outputs, gathered, ran.done, cached=ran.cached)
        except Exception as error:  # noqa: BLE001 - whatever failed, the fallback may answer; else it is raised again
            gap: _Gap | None = _gap(error, range(len(rows)))
        else:
            outputs, cached, gap = await _degraded(asked, vectors, gathered, share, given.where)
        if vectors is None:
            vectors, gathered = nothing(asked.release.contract, len(rows)), _clock()
        others: list[tuple[Output, Other]] = []
        if gap is not None:
            others = await _others(candidates, given.part(gap.rows), until=until)
            if not others:
                raise gap.error
        return self._told(asked.name, _completed(vectors, gathered, outputs, gap, others, cached))

    def _told(self, service: str, answers: Answers) -> Answers:
        for reasons in answers.reasons.values():
            self.degraded.update((service, reason) for reason in reasons)
        self.fallbacks.update((service, other.name) for other in answers.others.values())
        return answers


class _Gap(NamedTuple):
    """Rows that the release does not answer, what is raised if nobody else does, and why ("": their vectors say so)."""

    rows: Sequence[int]
    error: Exception
    why: str = ""


def _gap(error: Exception, rows: Sequence[int]) -> _Gap:
    """Return what a failure leaves open; raise it again if it is the caller's."""
    if not isinstance(error, RequestError):
        return _Gap(rows, error, "store-unavailable" if isinstance(error, StoreError) else "model-failed")
    if error.status < _OURS:
        raise error
    return _Gap(rows, error, error.kind)


async def _degraded(
    asked: LiveService, vectors: Vectors, gathered: int, until: int, where: Where
) -> tuple[dict[int, Output], Sequence[int], _Gap | None]:
    """Return the outputs of the rows that may be predicted, those that were kept, and the gap of the others."""
    every, left = range(len(vectors)), rows_for_fallback(asked.release, vectors, where)
    direct = [row for row in every if row not in left] if left else every
    away = next((row for row, reasons in vectors.degraded.items() if AWAY in reasons), None)
    try:
        ran = await _run(asked, vectors.take(direct), gathered, until) if direct else Ran([], gathered)
    except Exception as error:  # noqa: BLE001 - as above
        if away is not None and isinstance(error, RequestError) and error.kind == "value-refused":
            # The model does not take missing values, and that these are missing is not the caller's doing.
            return {}, (), _Gap(every, refusal(asked.release, vectors, away, AWAY, where), error.kind)
        return {}, (), _gap(error, every)
    outputs, cached = dict(zip(direct, ran.outputs, strict=True)), [direct[at] for at in ran.cached]
    if not left:
        return outputs, cached, None
    return outputs, cached, _Gap(left, refusal(asked.release, vectors, left[0], vectors.degraded[left[0]][0], where))


async def _others(candidates: Sequence[LiveService], given: Given, *, until: int) -> list[tuple[Output, Other]]:
    """Return what the first of the fallback chain says that can, for each row; nothing if nobody can."""
    policies = candidates[0].release.policies
    for candidate in candidates[1:] if policies.golden else ():
        try:
            vectors = candidate.transformer.vectors(given.rows, given.times)
            if not (vectors.degraded and rows_for_fallback(candidate.release, vectors, given.where)):
                ran = await _run(candidate, vectors, _clock(), until)
                return [
                    (output, Other(candidate, vectors, at, at in ran.cached)) for at, output in enumerate(ran.outputs)
                ]
        except Exception as error:  # noqa: BLE001 - the next of the chain may answer; why this one did not is said
            _log.warning("release %s could not answer in place of another: %s", candidate.release.id, error)
    if policies.constant is None:
        return []
    constant = policies.constant
    return [(list(constant) if isinstance(constant, tuple) else constant, Other())] * len(given.rows)


def _completed(
    vectors: Vectors,
    gathered: int,
    outputs: dict[int, Output],
    gap: _Gap | None,
    others: Sequence[tuple[Output, Other]],
    cached: Sequence[int],
) -> Answers:
    reasons, by = dict(vectors.degraded), dict[int, Other]()
    for row, (output, other) in zip(gap.rows if gap else (), others, strict=True):
        outputs[row], by[row] = output, other
        if gap and gap.why:
            reasons[row] = (*reasons.get(row, ()), gap.why)
    return Answers(vectors, [outputs[row] for row in range(len(vectors))], gathered, _clock(), reasons, by, cached)


class Ran(NamedTuple):
    """Outputs, when they were there (nanoseconds of the performance counter), and the rows whose output was kept."""

    outputs: list[Output]
    done: int
    cached: Sequence[int] = ()


async def _run(service: LiveService, vectors: Vectors, now: int, until: int) -> Ran:
    """Return what a release says of vectors: what it has kept, and of the others what its model answers in time."""
    cache = service.cache
    if cache is None:
        return await _asked(service, vectors, now, until)
    keys, found = cache.find(vectors)
    missing = found.count(None)
    if not missing:
        return Ran(found, _clock(), range(len(found)))  # type: ignore[arg-type]  # none is missing
    if missing == len(keys):
        ran = await _asked(service, vectors, now, until)
        cache.keep(keys, ran.outputs)
        return ran
    left = [row for row, output in enumerate(found) if output is None]
    ran = await _asked(service, vectors.take(left), now, until)
    cache.keep([keys[row] for row in left], ran.outputs)
    made = dict(zip(left, ran.outputs, strict=True))
    whole = [made[row] if output is None else output for row, output in enumerate(found)]
    return Ran(whole, ran.done, [row for row in range(len(found)) if row not in made])


async def _asked(service: LiveService, vectors: Vectors, now: int, until: int) -> Ran:
    """Run the model of a release, unless it is left alone; return outputs and time, raise if late or no number."""
    breaker = service.breaker
    if breaker.failures and not breaker.allows():
        raise _resting(service)
    try:
        if now > until:
            raise _late()
        outputs = await service.predictor.predict(vectors, (until - now) / 1e9)
        for output in outputs:
            # A sum is finite only if all its parts are.
            if not math.isfinite(sum(output) if isinstance(output, list) else output):
                raise _no_number()
        done = _clock()
        if done > until:
            raise _late()
    except Exception as error:
        _count(service, error, _clock() - now)
        raise
    if breaker.failures:
        breaker.succeeded()
    return Ran(outputs, done)


def _count(service: LiveService, error: Exception, spent: int) -> None:
    breaker = service.breaker
    if isinstance(error, RequestError):
        if error.status < _OURS:  # a row that it does not take: it answered
            breaker.succeeded()
            return
        # Who waited long before it was asked says nothing of the model.
        if error.kind == _OVERLOADED or (error.kind == _LATE and 2 * spent < service.deadline):
            return
    breaker.failed()
    _log.error("release %s failed (its breaker is %s)", service.release.id, breaker.state, exc_info=error)


def _resting(service: LiveService) -> RequestError:
    return RequestError(
        503, "model-resting", "The model failed several times and is left alone for a while",
        next_step=f"try again later, or promote another release of {service.name!r}",
    )  # fmt: skip


def _late() -> RequestError:
    step = "try again, with fewer rows or fewer requests at once"
    return RequestError(504, _LATE, "The prediction was not there in time", next_step=step)


def _no_number() -> RequestError:
    what = "The model answered with something that is not a number"
    return RequestError(500, "no-number", what, next_step="promote another release")
