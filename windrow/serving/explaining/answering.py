"""Explanations over HTTP: beside a prediction that asks for them, and of a request that was logged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from windrow.errors import RequestError
from windrow.models.release import EXPLAIN_MS
from windrow.serving.answers import encode, problem
from windrow.serving.explaining.explainer import Explainer
from windrow.serving.explaining.messages import checked_kind, explainable, unknown_request
from windrow.stores.log import LogRecord

if TYPE_CHECKING:
    from windrow.serving.live import LiveService
    from windrow.serving.plane import Log, Plane

MOST_ROWS = 16
RETRY_AFTER = 1
_LONGEST_ID = 200
_ROW = re.compile(r"\d{1,9}")


class Said(NamedTuple):
    """A status and a body of JSON; 202 if anything is still to come."""

    status: int
    body: bytes


class Explained:
    """A log around another one that also keeps what is written, for a request that asks to be explained."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []

    def around(self, log: Log) -> Explained:
        """Write to this log from now on."""
        self._log = log
        return self

    def append(self, records: Sequence[LogRecord]) -> None:
        """Write records, unless there are more than can be explained at once."""
        if len(records) > MOST_ROWS:
            raise RequestError(
                422,
                "too-many-rows",
                f"A request that asks for explanations has at most {MOST_ROWS} rows",
                where="$.rows",
                next_step="send fewer rows, or ask for the explanations of single rows later, at /v1/requests/{id}/explanation",
            )
        self._log.append(records)
        self.records += records


async def predict(
    plane: Plane, explainer: Explainer, name: str, body: bytes, *, request_id: str, kinds: Sequence[str],
    services: Mapping[str, LiveService], begun: float,
) -> Said:  # fmt: skip
    """Return the answer to the rows in `body` with their explanations; those that take too long are tickets.

    Parameters
    ----------
    kinds
        What is asked for, from `asked_kinds`.
    services
        The live ones: they say how long their callers wait.
    begun
        When the request began, of `time.monotonic`: what the prediction took is part of the time for explanations.
    """
    kept = Explained()
    plane = plane.with_log(kept.around)
    ask = plane.validate(name, body, request_id=request_id)
    # What a batch run has stored cannot be explained: it came without its vector.
    (answer,) = await plane.answer([msgspec.structs.replace(ask, stored=False)])
    rows = sorted((r for r in kept.records if r.kind == "prediction"), key=lambda record: record.row)
    explainer.remember(request_id, rows)
    until = begun + seconds_of(services, rows[0].release)
    explained = [await _explained(explainer, record, kinds, until=until) for record in rows]
    pending = any(isinstance(one, dict) and one.get("status") == "pending" for row in explained for one in row.values())
    document: dict[str, Any] = msgspec.json.decode(answer)
    return Said(202 if pending else 200, encode(document | {"explanations": explained}))


async def logged(
    explainer: Explainer, request_id: str, query: bytes, services: Mapping[str, LiveService], *, begun: float
) -> Said:
    """Return the explanation of a row of a logged request, or a ticket for it.

    Raises
    ------
    RequestError
        400 for a query that asks for nothing that there is, 404 and 409 where there is nothing to explain, and what
        the explanation itself raises.
    """
    kind, row = _of_query(query)
    if len(request_id) > _LONGEST_ID or not request_id.isprintable():
        raise unknown_request()  # not every store of a log can be asked about such text
    ticket = Said(202, encode(_ticket(request_id, kind, row)))
    found = await explainer.logged(request_id, row, until=begun + EXPLAIN_MS / 1000)
    if found is None:
        return ticket
    made = await explainer.explanation(found, kind, until=begun + seconds_of(services, found.release))
    return ticket if made is None else Said(200, made)


def asked_kinds(query: bytes) -> tuple[str, ...]:
    """Return the kinds of ``explain=`` in a query string, each once; none where it is not asked.

    Raises
    ------
    RequestError
        400 for a kind that there is not.

    Examples
    --------
    >>> asked_kinds(b"explain=shap,anchor"), asked_kinds(b"")
    (('shap', 'anchor'), ())
    """
    if b"explain" not in query:
        return ()
    asked = parse_qs(query.decode("ascii", "replace"), keep_blank_values=True).get("explain", [])
    return tuple(dict.fromkeys(checked_kind(kind) for text in asked for kind in text.split(",")))


def refuse_kinds(query: bytes) -> None:
    """Raise 400 where a query asks for explanations that its route does not give."""
    if asked_kinds(query):
        raise RequestError(
            400,
            "not-explained-here",
            "Rows of a stream are answered without explanations",
            where="query",
            next_step="leave out explain=, and ask for single rows later, at /v1/requests/{id}/explanation",
        )


def seconds_of(services: Mapping[str, LiveService], release: str) -> float:
    """Return how long callers of a release wait for explanations; of one that is not live, half a second."""
    found = (service.release.explain_ms for service in services.values() if service.release.id == release)
    return next(found, EXPLAIN_MS) / 1000


async def _explained(
    explainer: Explainer, record: LogRecord, kinds: Sequence[str], *, until: float
) -> dict[str, object]:
    """Return kind -> explanation, ticket or problem: the prediction is made, and no failure here takes it back."""
    found: dict[str, object] = {"row": record.row}
    for kind in kinds:
        try:
            made = await explainer.explanation(explainable(record), kind, until=until)
        except RequestError as error:
            found[kind] = {"status": "failed", "problem": msgspec.Raw(problem(error, record.request_id))}
            continue
        ticket = _ticket(record.request_id, kind, record.row)
        found[kind] = ticket if made is None else msgspec.Raw(made)
    return found


def _of_query(query: bytes) -> tuple[str, int]:
    fields = parse_qs(query.decode("ascii", "replace"), keep_blank_values=True)
    kinds, row = fields.get("kind", ["shap"]), fields.get("row", ["0"])[-1]
    if not _ROW.fullmatch(row):
        raise RequestError(400, "no-row", "The row is no number from 0 on", where="query", next_step="ask for row=0")
    return checked_kind(kinds[-1]), int(row)


def _ticket(request_id: str, kind: str, row: int) -> dict[str, object]:
    address = f"/v1/requests/{request_id}/explanation?kind={kind}&row={row}"
    return {"status": "pending", "kind": kind, "address": address, "retry_after": RETRY_AFTER}
