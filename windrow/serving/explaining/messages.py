"""What a worker and the side process of explanations say to each other; neither needs the other's packages for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from windrow.errors import RequestError, closest, listed
from windrow.schema import PredictionKey
from windrow.serving.explaining.explanation import KINDS, Kind, Vector
from windrow.stores.log import LogRecord


class Question(msgspec.Struct, frozen=True):
    """What is asked: to ``explain`` a vector in a way, or to ``find`` a row in the log."""

    number: int
    asked: Literal["explain", "find"]
    release: str = ""
    kind: str = ""
    vector: Vector = {}
    request_id: str = ""
    row: int = 0


class Logged(msgspec.Struct, frozen=True):
    """A row of the log: which release answered, and what it was given."""

    release: str
    vector: Vector


class Problem(msgspec.Struct, frozen=True):
    """Why there is no answer; the fields of a `RequestError`."""

    status: int
    kind: str
    what: str
    next_step: str = ""

    @classmethod
    def of(cls, error: RequestError) -> Problem:
        """Return an error as plain data."""
        return cls(error.status, error.kind, error.what, error.next_step)

    def error(self) -> RequestError:
        """Return it as it was."""
        return RequestError(self.status, self.kind, self.what, next_step=self.next_step)


class Reply(msgspec.Struct, frozen=True):
    """The answer: JSON of an explanation, or a packed `Logged`; or the problem."""

    number: int
    body: bytes = b""
    problem: Problem | None = None


def checked_kind(kind: str) -> Kind:
    """Return a kind of explanation; raise `RequestError` (400) if there is none of this name.

    Examples
    --------
    >>> checked_kind("shape")
    Traceback (most recent call last):
    windrow.errors.RequestError: There is no such kind of explanation. It is one of 'anchor', 'counterfactual', 'shap'. Next: did you mean 'shap'?
    """
    for known in KINDS:
        if kind == known:
            return known
    step = closest(kind[:64], KINDS) or f"use one of {listed(KINDS)}"
    raise RequestError(400, "unknown-kind", "There is no such kind of explanation", where="query", next_step=step)


def key_of(release: str, kind: str, vector: Vector) -> bytes:
    """Return what an explanation is kept under: the same only for the same release, kind and values.

    Examples
    --------
    >>> key_of("churn-1", "shap", {"x": 1.0}) == key_of("churn-1", "shap", {"x": 1.5})
    False
    """
    return PredictionKey(release, "", kind, sorted(vector.items())).digest


def chosen(found: Iterable[LogRecord], row: int) -> Logged | None:
    """Return one row of a request, or None where nothing is known of the request.

    Raises
    ------
    RequestError
        409 for a request that got no answer or a stored one, 404 for a row that it did not have.
    """
    answered = {record.row: record for record in found if record.kind == "prediction"}
    failed = [record for record in found if record.kind == "error"]
    if failed and not answered:
        raise RequestError(
            409,
            "nothing-predicted",
            f"This request got no prediction but status {failed[0].status} ({failed[0].error[:64]})",
            next_step="explain one that was answered",
        )
    if answered and row not in answered:
        raise RequestError(
            404,
            "unknown-row",
            f"This request has {len(answered)} rows, counted from 0, and not this one",
            where="query",
            next_step=f"ask for row=0 to row={max(answered)}",
        )
    return explainable(answered[row]) if answered else None


def unknown_request() -> RequestError:
    """Return the error of an id that no logged request has."""
    return RequestError(
        404,
        "unknown-request",
        "The log has no request of this id",
        where="path",
        next_step="copy the request_id of an answer",
    )


def explainable(record: LogRecord) -> Logged:
    """Return what an explanation needs of a logged prediction.

    Raises
    ------
    RequestError
        409 for one that a batch run had made before: it was given without its vector.
    """
    vector = vector_of(record)
    if not vector:
        raise RequestError(
            409,
            "no-vector",
            "This row was answered by a prediction that a batch run had made, without its features",
            next_step="ask again with ?explain=shap: then the features are read, and the answer is computed",
        )
    return Logged(record.release, vector)


def vector_of(record: LogRecord) -> Vector:
    """Return what the model was given, whatever form the record has it in."""
    vector: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(record.vector))
    return {str(name): value for name, value in vector.items()}
