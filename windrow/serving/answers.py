"""What goes back to a caller: predictions, and problems in the form of RFC 9457."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from windrow.clock import from_micros
from windrow.errors import RequestError, StoreError
from windrow.schema import Status

SPOKEN = {int(status): status.name.lower() for status in Status}
"""What answers call each status."""
_TITLES = {
    400: "Bad request",
    401: "No valid access key",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Does not fit what is there",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Request does not fit the contract",
    429: "Too much at once",
    431: "Head too large",
    500: "Internal error",
    501: "Not possible here",
    503: "Not available now",
    504: "No answer in time",
}


HTML = b"text/html; charset=utf-8"


class Reply(NamedTuple):
    """A whole answer; `kind` is its content type, `more` are headers that few answers have."""

    status: int
    body: bytes
    kind: bytes = b"application/json"
    allow: bytes = b""
    retry_after: bytes = b""
    more: tuple[tuple[bytes, bytes], ...] = ()


Output = float | list[float]
"""What a model says of a row: a number, or a probability for each of three classes or more."""


def place_of(output: Output) -> float:
    """Return the one number of an output: itself, or the place of the most likely class.

    Examples
    --------
    >>> place_of(0.5), place_of([0.2, 0.5, 0.3])
    (0.5, 1.0)
    """
    return float(output.index(max(output))) if isinstance(output, list) else output


class Prediction(msgspec.Struct, omit_defaults=True, gc=False):
    """The answer to one row: `value` is the model's output, of two classes also called `probability`.

    Of three classes or more it is the place of the most likely one, named `class_`, beside all `probabilities`.
    `degraded` says why it is not what it could have been, and `answered_by` who answered where the release did not.
    Of a batch run's prediction it says the time that it is about (`precomputed_for`), and how long that is before the
    time that was asked about.
    In an experiment it says the row's `arms`, and its `release` where that is not the answer's.
    """

    value: float
    statuses: msgspec.Raw
    probability: float | None = None
    class_: str | None = msgspec.field(default=None, name="class")
    probabilities: dict[str, float] | None = None
    degraded: tuple[str, ...] | None = None
    answered_by: str | None = None
    precomputed_for: str | None = None
    age_seconds: float | None = None
    release: str | None = None
    arms: dict[str, str] | None = None


class Answer(msgspec.Struct, gc=False):
    """The answer to one request; `now` is the time the features were read for.

    `release` answered every row that does not name another.
    """

    request_id: str
    service: str
    release: str
    predictions: list[Prediction]
    now: str


class Problem(msgspec.Struct, rename={"next_": "next"}):
    """Why there is no answer: what, where, and what to do; values of the request are never repeated."""

    type: str
    title: str
    status: int
    detail: str
    where: str
    next_: str
    request_id: str


encode = msgspec.json.Encoder().encode
_NOTHING = msgspec.Raw(b"{}")


class Speaker:
    """Encodes the answers of one release.

    Parameters
    ----------
    service, release
        Their names.
    features
        In the contract's order.
    classes
        Whether outputs are probabilities.
    names
        Of three classes or more: then each output is a list of probabilities, in their order.

    Examples
    --------
    >>> Speaker("churn", "churn-1", ["x"], classes=False).answer("r1", [0.5], [{"x": 2}], now=0)
    b'{"request_id":"r1","service":"churn","release":"churn-1","predictions":[{"value":0.5,"statuses":{"x":"not_found"}}],"now":"1970-01-01T00:00:00+00:00"}'
    """

    def __init__(
        self, service: str, release: str, features: Sequence[str], *, classes: bool, names: Sequence[str] = ()
    ) -> None:
        self._service, self._release, self._classes, self._names = service, release, classes, names
        self._features = tuple(features)
        # Most rows have one of a few patterns ("all present"), so the text of each is kept.
        self._statuses = lru_cache(maxsize=256)(self._spoken)
        self._last: tuple[Mapping[str, int], msgspec.Raw] = {}, msgspec.Raw(b"{}")

    def answer(
        self,
        request_id: str,
        outputs: Sequence[Output],
        statuses: Sequence[Mapping[str, int]],
        *,
        now: int,
    ) -> bytes:
        """Return the JSON of an answer."""
        return self.told(request_id, self.predictions(outputs, statuses), now=now)

    def predictions(self, outputs: Sequence[Output], statuses: Sequence[Mapping[str, int]]) -> list[Prediction]:
        """Return what is said of each row."""
        said = self.said
        if self._names:
            return [self._chosen(output, said(s)) for output, s in zip(outputs, statuses, strict=True)]  # type: ignore[arg-type]
        return [
            Prediction(value, said(status), value if self._classes else None)  # type: ignore[arg-type]
            for value, status in zip(outputs, statuses, strict=True)
        ]

    def told(self, request_id: str, predictions: list[Prediction], *, now: int) -> bytes:
        """Return the JSON of an answer whose rows are made already, by this release or others."""
        return encode(Answer(request_id, self._service, self._release, predictions, spoken_time(now)))

    def _chosen(self, shares: list[float], statuses: msgspec.Raw) -> Prediction:
        name = self._names[int(place_of(shares))]
        shared = dict(zip(self._names, shares, strict=True))
        return Prediction(place_of(shares), statuses, class_=name, probabilities=shared)

    def said(self, status: Mapping[str, int]) -> msgspec.Raw:
        """Return the text of what is known of each value."""
        # The transformer gives one and the same mapping to all rows that have everything.
        last, text = self._last
        if not status:  # nothing was read
            return _NOTHING
        if status is not last:
            text = self._statuses(tuple(status.values()))
            self._last = status, text
        return text

    def _spoken(self, states: tuple[int, ...]) -> msgspec.Raw:
        return msgspec.Raw(encode({n: SPOKEN[s] for n, s in zip(self._features, states, strict=True)}))


@lru_cache(maxsize=16)
def spoken_time(micros: int) -> str:
    """Return ISO 8601 text, UTC."""
    return from_micros(micros).isoformat()


def problem(error: RequestError, request_id: str) -> bytes:
    """Return the ``application/problem+json`` body of an error.

    Examples
    --------
    >>> problem(RequestError(404, "no-page", "There is no such page", next_step="see /"), "r1")
    b'{"type":"urn:windrow:problem:no-page","title":"Not found","status":404,"detail":"There is no such page","where":"","next":"see /","request_id":"r1"}'
    """
    title = _TITLES.get(error.status, "Error")
    kind = f"urn:windrow:problem:{error.kind}"
    return encode(Problem(kind, title, error.status, error.what, error.where, error.next_step, request_id))


def as_problem(error: Exception) -> RequestError:
    """Return what a caller is told of any exception: a store's failure is 503, all else 500 without internals."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, StoreError):
        return RequestError(
            503,
            "store-unavailable",
            "A store of the service cannot be used now",
            next_step="try again; the service's log says which store",
        )
    return RequestError(
        500, "internal", "The service failed on this request", next_step="look for the request_id in the service's log"
    )
