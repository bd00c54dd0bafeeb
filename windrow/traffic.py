"""Real requests for a running service: rows drawn from what is stored, sent over one connection, each one measured."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np

from windrow.clock import duration, from_micros
from windrow.errors import StoreError
from windrow.schema import EVENT_TIME
from windrow.serving.run import connection

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake

_RECENT = duration("30d")
_TIMEOUT = 30.0

JsonRow = dict[str, Any]


class Answer(msgspec.Struct):
    """One answer: the id under which the log has it, the model's output, and what the caller waited."""

    request_id: str
    value: float
    micros: float


class Sender:
    """One kept-alive connection to the online service.

    Parameters
    ----------
    url
        Such as ``http://127.0.0.1:3000``.
    key
        An access key with the scopes predict and outcomes; "" where the service asks for none.
    cert
        With ``https``: the file of the certificate that is trusted, and no other.

    Attributes
    ----------
    predicted
        How many predictions were answered, by service.
    """

    def __init__(self, url: str, *, key: str = "", cert: str = "") -> None:
        self.predicted: Counter[str] = Counter()
        self._url, self._key, self._cert = url, key, cert
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._connection = connection(url, cert=cert, timeout=_TIMEOUT)

    def predict(self, service: str, row: JsonRow) -> Answer:
        """Ask for one row.

        Raises
        ------
        StoreError
            If the service does not answer with 200; the message has its problem.
        """
        body = msgspec.json.encode(row)
        begin = time.perf_counter_ns()
        answer = self._post(f"/v1/{service}/predict", body)
        micros = (time.perf_counter_ns() - begin) / 1000
        self.predicted[service] += 1
        return Answer(answer["request_id"], answer["predictions"][0]["value"], micros)

    def outcomes(self, service: str, found: Sequence[tuple[str, float]]) -> int:
        """Send what became true of requests, as (request id, value); return how many were accepted."""
        accepted = 0
        for start in range(0, len(found), 500):
            items = [{"request_id": id_, "row": 0, "value": value} for id_, value in found[start : start + 500]]
            accepted += self._post(f"/v1/{service}/outcomes", msgspec.json.encode({"outcomes": items}))["accepted"]
        return accepted

    def another(self) -> Sender:
        """Return one more connection to the same service."""
        return Sender(self._url, key=self._key, cert=self._cert)

    def following(self, service: str) -> list[str]:
        """Return the experiments that the service is in, as the worker that answers knows them."""
        return [one["experiment"] for one in msgspec.json.decode(self._get(f"/v1/{service}"))["experiments"]]

    def metrics(self) -> str:
        """Return the worker's metrics, as Prometheus reads them."""
        return self._get("/metrics").decode()

    def ingest(self, name: str, row: JsonRow) -> None:
        """Send one event of a source, or one row of a group."""
        self._post(f"/v1/ingest/{name}", msgspec.json.encode(row), wanted=202)

    def explained(self, request_id: str, kind: str = "shap") -> bool:
        """Ask why an earlier request was answered as it was; return whether it is said already, else there is a ticket.

        Raises
        ------
        StoreError
            If there will be no explanation.
        """
        path = f"/v1/requests/{request_id}/explanation?kind={kind}&row=0"
        status, text = self._exchange("GET", path, None)
        if status not in (200, 202):
            raise _refused(path, status, text)
        return status == 200

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def _get(self, path: str) -> bytes:
        status, text = self._exchange("GET", path, None)
        if status != 200:
            raise _refused(path, status, text)
        return text

    def _post(self, path: str, body: bytes, *, wanted: int = 200) -> Any:
        status, text = self._exchange("POST", path, body)
        if status != wanted:
            raise _refused(path, status, text)
        return msgspec.json.decode(text)

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            answer = self._answer(method, path, body)
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(
                f"the online service does not answer at {path}: {error}", next_step="look into its log"
            ) from error

    def _answer(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        for last in (False, True):
            try:
                self._connection.request(method, path, body, self._headers)
                return self._connection.getresponse()
            except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
                # The service closes connections on which nobody asked for some seconds: ask on a new one.
                self._connection.close()
                if last:
                    raise
        raise AssertionError("unreachable")


def _refused(path: str, status: int, text: bytes) -> StoreError:
    return StoreError(
        f"{path} was answered with {status}",
        exists=text.decode(errors="replace")[:500],
        next_step="look into the service's log",
    )


class Pool:
    """Rows that somebody could ask a service about now.

    Attributes
    ----------
    spine
        The rows with their own ``event_time``.
    """

    def __init__(self, service: PredictionService, spine: pa.Table, *, now: int | None = None) -> None:
        self.service, self.spine = service, spine
        # A service over its own events must be told the time; "now" is one.
        self._now = from_micros(now).isoformat() if now is not None and service.view.contract.timed else None
        self._fields = [field.name for field in service.view.contract.request]

    @classmethod
    def of(cls, service: PredictionService, lake: Lake, *, now: int) -> Pool:
        """Return the rows of the last 30 days, each key's newest."""
        return cls(service, _newest_rows(service, lake, now), now=now)

    def requests(self, count: int, *, seed: int = 0) -> list[JsonRow]:
        """Return `count` requests about now, their keys drawn with replacement."""
        chosen = np.random.default_rng(seed).integers(0, self.spine.num_rows, count)
        return list(self._rows(self.spine.take(chosen), timed=False))

    def present(self, count: int, *, seed: int = 0) -> list[JsonRow]:
        """Return at most `count` requests about now, each about another key."""
        rows = {msgspec.json.encode(row): row for row in self._rows(self.spine, timed=False)}
        order = np.random.default_rng(seed).permutation(len(rows))[:count]
        distinct = list(rows.values())
        return [distinct[i] for i in order]

    def past(self, rows: pa.Table) -> list[JsonRow]:
        """Return requests about the rows' own times."""
        return list(self._rows(rows, timed=True))

    def _rows(self, rows: pa.Table, *, timed: bool) -> Iterator[JsonRow]:
        for row in rows.select([*self._fields, EVENT_TIME]).to_pylist():
            moment = row.pop(EVENT_TIME)
            time = moment.isoformat() if timed else self._now
            yield {**row, EVENT_TIME: time} if time else row


def _newest_rows(service: PredictionService, lake: Lake, now: int) -> pa.Table:
    from windrow.models.keys import entity_fields
    from windrow.models.spine import spine_rows
    from windrow.stores.engine import engine

    rows = spine_rows(service, lake, engine(), start=now - _RECENT, now=now)
    if not rows.num_rows:
        rows = spine_rows(service, lake, engine(), now=now)
    keys = zip(*(rows[name].to_pylist() for name in entity_fields(service)), strict=True)
    return rows.take(sorted({key: place for place, key in enumerate(keys)}.values()))  # later rows replace earlier ones
