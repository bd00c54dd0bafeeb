"""Strict reading of request bodies: what the contract says, nothing guessed, no value repeated in an error."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple

import msgspec

from windrow.clock import duration, parse_time, to_micros
from windrow.errors import RequestError, TimeError, listed
from windrow.features.contract import Contract
from windrow.schema import EVENT_TIME, Field
from windrow.serving.names import SPEAKABLE, refuse_duplicates

MAX_BODY = 1 << 20
MAX_ROWS = 1000
MAX_TEXT = 1024

FLOAT32_MAX = 3.4028234663852886e38
REQUEST_ID = "[A-Za-z0-9_.-]{1,64}"
_TIME = 'a time with zone, such as "2026-01-31T09:00:00Z"'
_FIRST, _END = parse_time("1900-01-01"), parse_time("2200-01-01")
_AHEAD = duration("1d")

_Check = Callable[[Any], Any]


class Rows(msgspec.Struct, frozen=True, gc=False):
    """A request that keeps its contract: values by field, and event times (None where not given)."""

    values: list[dict[str, Any]]
    times: list[int | None]


class Outcome(NamedTuple):
    """What became true of one row of one request; `known_at` in UTC microseconds, or None for now."""

    request_id: str
    row: int
    value: float
    known_at: int | None


class RowReader:
    """Reads the rows of one service's requests.

    Parameters
    ----------
    contract
        Its `request` fields are needed, its `optional` ones accepted; ``event_time`` always is.

    Examples
    --------
    >>> amount = Field("amount", "float64")
    >>> contract = Contract(view="v", spine="s", request=(amount,), optional=(), lookups=(), on_demand=(), features=(amount,))
    >>> RowReader(contract).read(b'{"amount": 2}')
    Rows(values=[{'amount': 2.0}], times=[None])
    >>> RowReader(contract).read(b'{"amont": 2}')
    Traceback (most recent call last):
    windrow.errors.RequestError: There is no field 'amont' in a row. Next: did you mean 'amount'?
    """

    def __init__(self, contract: Contract) -> None:
        self._fields = {f.name: f for f in (*contract.request, *contract.optional)}
        self._keys = {name for lookup in contract.lookups for name in lookup.fields}
        self._checks = {name: self._check_of(f) for name, f in self._fields.items()} | {
            EVENT_TIME: _or_null(_timestamp)
        }
        self._needed = tuple(f.name for f in contract.request)
        self._timed = contract.timed
        self._quick = _Quick.of(self._fields, self._keys, self._needed)

    def read(self, body: bytes) -> Rows:
        """Return the rows of a body: one object, or ``{"rows": [...]}``.

        Raises
        ------
        RequestError
            400 for what is not JSON or gives a field twice, 422 for what is not in the contract.
        """
        return self._timely((self._quick and self._quick.read(body)) or self.read_carefully(body))

    def read_line(self, line: bytes) -> Rows:
        """Return the one row of a line of JSON; raise `RequestError` as `read` does."""
        return self._timely((self._quick and self._quick.read(line)) or self._single(decode(line)))

    def read_row(self, row: dict[str, Any]) -> Rows:
        """Return one row, checked and taken over, that came in another form than JSON; raise `RequestError` (422)."""
        return self._timely(self._single(row))

    def read_carefully(self, body: bytes) -> Rows:
        """Do what `read` does field by field; it decides, and knows what to say of a mistake."""
        document = decode(body)
        rows = document.get("rows")
        if type(rows) is not list:
            return self._single(document)
        _only(document, ("rows",), where="$")
        _count(rows, "rows")
        values = [self._row(row, f"$.rows[{i}]") for i, row in enumerate(rows)]
        return Rows(values, [row.pop(EVENT_TIME, None) for row in values])

    def _timely(self, made: Rows) -> Rows:
        if self._timed and None in made.times:
            raise _no_time(made.times.index(None), many=len(made.times) > 1)
        return made

    def _single(self, document: dict[str, Any]) -> Rows:
        return Rows([self._row(document, "$")], [document.pop(EVENT_TIME, None)])

    def mistakes(self, row: Mapping[str, Any]) -> dict[str, RequestError]:
        """Return what is wrong with each field of one row, in the row's order: for people, who mend all of it at once."""
        found = dict[str, RequestError]()
        for name, value in row.items():
            try:
                self._value(name, value, "$")
            except RequestError as error:
                found[name] = error
        found |= {name: self._missing(name, "$") for name in self._needed if name not in row}
        return found | ({EVENT_TIME: _no_time(0, many=False)} if self._timed and EVENT_TIME not in row else {})

    def _row(self, row: Any, where: str) -> dict[str, Any]:
        # The checked values replace the given ones: the row is ours, and one dictionary is enough.
        if type(row) is not dict:
            raise RequestError(
                422, "wrong-type", "A row must be an object", where=where, next_step='write {"field": value, ...}'
            )
        for name, value in row.items():
            row[name] = self._value(name, value, where)
        for name in self._needed:
            if name not in row:
                raise self._missing(name, where)
        return row

    def _value(self, name: str, value: Any, where: str) -> Any:
        check = self._checks.get(name)
        if check is None:
            raise _unknown(name, list(self._checks), where)
        try:
            return check(value)
        except _WrongError as wrong:
            raise self._refused(name, value, wrong, f"{where}.{name}") from None

    def _check_of(self, field: Field) -> _Check:
        check = _CHECKS[field.dtype]
        return _or_null(check) if field.nullable and field.name not in self._keys else check

    def _refused(self, name: str, value: Any, wrong: _WrongError, where: str) -> RequestError:
        if value is None and name in self._keys:
            return self._missing(name, where.rpartition(".")[0])
        return RequestError(422, wrong.kind, f"Field {name!r} is not {wrong}", where=where, next_step=f"send {wrong}")

    def _missing(self, name: str, where: str) -> RequestError:
        field = self._fields[name]
        if name in self._keys:
            step = f"add {name!r} ({field.dtype})"
            return RequestError(422, "missing-key", f"The key {name!r} is missing", where=where, next_step=step)
        step = f"add {name!r} ({field.dtype})" + (", or null if it is not known" if field.nullable else "")
        return RequestError(422, "missing-field", f"Field {name!r} is missing", where=where, next_step=step)


def _no_time(row: int, *, many: bool) -> RequestError:
    # Its event may have been pushed already: only its time tells what came before it.
    what = "Field 'event_time' is missing, which this service needs: the event itself is in the stream it counts"
    where = f"$.rows[{row}]" if many else "$"
    step = 'add the event\'s own time, such as "2026-01-31T09:00:00Z"'
    return RequestError(422, "missing-field", what, where=where, next_step=step)


class _Quick:
    """One right row, decoded and checked in one step: most requests are that.

    It accepts nothing that the careful way does not, and leaves every other body to it.
    """

    def __init__(self, names: tuple[str, ...], row: type[msgspec.Struct], maybe: tuple[str, ...]) -> None:
        self._names, self._maybe = names, maybe
        self._decode = msgspec.json.Decoder(row).decode

    @classmethod
    def of(cls, fields: Mapping[str, Field], keys: set[str], needed: Sequence[str]) -> _Quick | None:
        """Return the reader for these fields, or None where one has a type it does not know."""
        if not all(f.dtype in _QUICK for f in fields.values()):
            return None
        types = {
            n: _QUICK[f.dtype] | None if f.nullable and n not in keys else _QUICK[f.dtype] for n, f in fields.items()
        }
        types[EVENT_TIME] = str
        maybe = tuple(name for name in types if name not in needed)
        # Fields are numbered, because a column may have a name that no attribute can have.
        numbered = {f"f{i}": name for i, name in enumerate(types)}
        defined = [
            (f, types[n] | msgspec.UnsetType, msgspec.UNSET) if n in maybe else (f, types[n])
            for f, n in numbered.items()
        ]
        row = msgspec.defstruct("Row", defined, kw_only=True, forbid_unknown_fields=True, rename=numbered)
        return cls(tuple(types), row, maybe)

    def read(self, body: bytes) -> Rows | None:
        try:
            values = dict(zip(self._names, msgspec.structs.astuple(self._decode(body)), strict=True))
            for name in self._maybe:
                if values[name] is msgspec.UNSET:
                    del values[name]
            refuse_duplicates(body, values)
            moment = values.pop(EVENT_TIME, None)
            return Rows([values], [None if moment is None else _timestamp(moment)])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _WrongError):
            return None


def decode(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises
    ------
    RequestError
        400 for broken JSON, NaN, Infinity, too deep nesting and a field that is given twice; 422 for JSON that is no object.

    Examples
    --------
    >>> decode(b'{"x": NaN}')
    Traceback (most recent call last):
    windrow.errors.RequestError: The body is not JSON (at byte 6). Next: send UTF-8 JSON; NaN and Infinity are written null.
    """
    try:
        document = msgspec.json.decode(body)
    except RecursionError:
        raise RequestError(400, "too-deep", "The body is nested too deep", next_step="send flat rows") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _broken(str(error)) from None
    if type(document) is not dict:
        step = 'send one row, or {"rows": [...]}'
        raise RequestError(422, "wrong-type", "The body is not a JSON object", where="$", next_step=step)
    refuse_duplicates(body, document)
    return document


def read_outcomes(body: bytes, *, classes: int = 0) -> list[Outcome]:
    """Return the outcomes of a body ``{"outcomes": [{"request_id", "row", "value", "known_at"?}]}``.

    Parameters
    ----------
    body
        JSON.
    classes
        How many classes the service tells apart: then a value is 0, 1, ...; 0 where it predicts a number.

    Raises
    ------
    RequestError
        400 for what is not JSON or says two things of one row, 422 for what is not in this form.

    Examples
    --------
    >>> read_outcomes(b'{"outcomes": [{"request_id": "a1", "row": 0, "value": 1}]}')
    [Outcome(request_id='a1', row=0, value=1.0, known_at=None)]
    """
    document = decode(body)
    _only(document, ("outcomes",), where="$")
    items = document.get("outcomes")
    if type(items) is not list:
        step = 'send {"outcomes": [{"request_id": ..., "row": 0, "value": ...}]}'
        raise RequestError(422, "missing-field", "The list 'outcomes' is missing", where="$", next_step=step)
    _count(items, "outcomes")
    outcomes = [_outcome(item, f"$.outcomes[{i}]") for i, item in enumerate(items)]
    _check_values(outcomes, classes=classes)
    return outcomes


def _check_values(outcomes: Sequence[Outcome], *, classes: int) -> None:
    # A correction that became known later is no contradiction.
    said: dict[tuple[str, int, int | None], float] = {}
    for i, outcome in enumerate(outcomes):
        where = f"$.outcomes[{i}].value"
        if classes and outcome.value not in range(classes):
            step = "send 1 for what happened, 0 for what did not" if classes == 2 else "send the place of the class"
            what = "0 or 1" if classes == 2 else f"a whole number from 0 to {classes - 1}"
            raise RequestError(422, "out-of-range", f"Field 'value' is not {what}", where=where, next_step=step)
        key = outcome.request_id, outcome.row, outcome.known_at
        if said.setdefault(key, outcome.value) != outcome.value:
            what, step = "Two outcomes of one row differ", "send one value for each request_id, row and known_at"
            raise RequestError(400, "contradiction", what, where=where, next_step=step)


def _outcome(item: Any, where: str) -> Outcome:
    if type(item) is not dict:
        raise RequestError(
            422,
            "wrong-type",
            "An outcome must be an object",
            where=where,
            next_step='write {"request_id": ..., "row": 0, "value": ...}',
        )
    _only(item, tuple(_OUTCOME), where=where)
    item = {"row": 0, "known_at": None, **item}
    for name, check in _OUTCOME.items():
        if name not in item:
            raise RequestError(
                422, "missing-field", f"Field {name!r} is missing", where=where, next_step=f"add {name!r}"
            )
        try:
            item[name] = check(item[name])
        except _WrongError as wrong:
            raise RequestError(
                422, wrong.kind, f"Field {name!r} is not {wrong}", where=f"{where}.{name}", next_step=f"send {wrong}"
            ) from None
    return Outcome(**item)


class _WrongError(Exception):
    """Says what a field must be; never what it was."""

    def __init__(self, expected: str, kind: str = "wrong-type") -> None:
        self.kind = kind
        super().__init__(expected)


def _whole(low: int, high: int) -> _Check:
    def check(value: Any) -> int:
        if type(value) is not int:
            raise _WrongError("a whole number")
        if not low <= value <= high:
            raise _WrongError(f"a whole number from {low} to {high}", "out-of-range")
        return value

    return check


def _number(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise _WrongError("a number")
    if not -FLOAT32_MAX <= value <= FLOAT32_MAX:
        raise _WrongError("a number within the range of float32, which models are given", "out-of-range")
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise _WrongError("a string")
    if len(value) > MAX_TEXT:
        raise _WrongError(f"a string of at most {MAX_TEXT} characters", "out-of-range")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise _WrongError("true or false")
    return value


def _timestamp(value: Any) -> int:
    if type(value) is not str or len(value) > 40:
        raise _WrongError(_TIME)
    try:
        micros = to_micros(datetime.fromisoformat(value))
    except (ValueError, OverflowError, TimeError):
        raise _WrongError(_TIME, "wrong-time") from None
    if not _FIRST <= micros < _END:
        raise _WrongError("a time from 1900 to 2199", "out-of-range")
    return micros


def _become_known(value: Any) -> int:
    micros = _timestamp(value)
    if micros > time.time_ns() // 1000 + _AHEAD:
        raise _WrongError("a time that has come (clocks may differ by a day)", "out-of-range")
    return micros


def _request_id(value: Any) -> str:
    if type(value) is not str or not re.fullmatch(REQUEST_ID, value):
        raise _WrongError("a request_id of an earlier answer")
    return value


def _or_null(check: _Check) -> _Check:
    return lambda value: None if value is None else check(value)


_CHECKS: dict[str, _Check] = {
    "bool": _boolean,
    "int32": _whole(-(2**31), 2**31 - 1),
    "int64": _whole(-(2**63), 2**63 - 1),
    "float32": _number,
    "float64": _number,
    "string": _text,
    "timestamp": _timestamp,
}
_Float = Annotated[float, msgspec.Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]
_QUICK: dict[str, Any] = {
    "bool": bool,
    "int32": Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
    "int64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "float32": _Float,
    "float64": _Float,
    "string": Annotated[str, msgspec.Meta(max_length=MAX_TEXT)],
}
_OUTCOME: dict[str, _Check] = {
    "request_id": _request_id,
    "row": _whole(0, MAX_ROWS - 1),
    "value": _number,
    "known_at": _or_null(_become_known),
}


def _broken(message: str) -> RequestError:
    at = re.search(r"\(byte (\d+)\)", message)
    place = f" (at byte {at[1]})" if at else ""
    step = "send UTF-8 JSON; NaN and Infinity are written null"
    return RequestError(400, "broken-json", f"The body is not JSON{place}", next_step=step)


def _only(document: dict[str, Any], known: tuple[str, ...], *, where: str) -> None:
    for name in document:
        if name not in known:
            raise _unknown(name, list(known), where)


def _unknown(name: str, known: list[str], where: str) -> RequestError:
    shown = repr(name) if SPEAKABLE.fullmatch(name) else "of this name"
    close = get_close_matches(name[:64], known, n=1, cutoff=0.5)
    step = f"did you mean {close[0]!r}?" if close else f"send only {listed(known)}"
    place = "a row" if EVENT_TIME in known else "the body"
    return RequestError(422, "unknown-field", f"There is no field {shown} in {place}", where=where, next_step=step)


def _count(items: list[Any], what: str) -> None:
    if not 1 <= len(items) <= MAX_ROWS:
        size = "empty" if not items else f"longer than {MAX_ROWS}"
        step = f"send 1 to {MAX_ROWS} {what} in one request"
        raise RequestError(422, "wrong-size", f"The list {what!r} is {size}", where=f"$.{what}", next_step=step)
