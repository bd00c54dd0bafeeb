"""The form that asks a service: made from the contract of a request, and read back into a row."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from windrow.clock import from_micros
from windrow.errors import RequestError
from windrow.features.contract import Contract
from windrow.schema import EVENT_TIME, Field

PREFIX = "v."  # of a value's field in the form, so that a column may have any name
_WHOLE = re.compile(r"[+-]?\d{1,20}")
_NUMBER = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?")
_BOOLEANS = {"true": True, "false": False}
_HINTS = {
    "bool": "true or false",
    "int32": "a whole number",
    "int64": "a whole number",
    "float32": "a number",
    "float64": "a number",
    "string": "text",
    "timestamp": "a time with zone, such as 2026-01-31T09:00:00Z",
}
_MODES = {"int32": "numeric", "int64": "numeric", "float32": "decimal", "float64": "decimal"}


def row_of(contract: Contract, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the row that a filled form means; what cannot be read stays text, for the contract to refuse.

    Examples
    --------
    >>> c = Contract(view="v", spine="s", request=(Field("n", "int64"), Field("x", "float64"), Field("plan", "string")),
    ...              optional=(Field("id", "int64"),), lookups=(), on_demand=(), features=())
    >>> row_of(c, {"v.n": " 7 ", "v.x": "seven", "v.plan": "", "v.id": "", "v.event_time": ""})
    {'n': 7, 'x': 'seven', 'plan': None}
    """
    row: dict[str, Any] = {}
    left_out = {f.name for f in contract.optional}
    for field in (*contract.request, *contract.optional):
        text = given.get(PREFIX + field.name, "")
        if text.strip() or field.name not in left_out:
            row[field.name] = _value(field, text)
    if moment := given.get(PREFIX + EVENT_TIME, "").strip():
        row[EVENT_TIME] = moment
    return row


def texts(contract: Contract, row: Mapping[str, Any]) -> dict[str, str]:
    """Return what a form shows of a row that was answered before; its time stays with it."""
    fields = (*contract.request, *contract.optional)
    return {PREFIX + f.name: _text(f, row[f.name]) for f in fields if f.name in row}


def fields(contract: Contract, given: Mapping[str, str], mistakes: Mapping[str, RequestError]) -> str:
    """Return the HTML of the inputs, filled, each with its hint and what is wrong with it."""
    keys = {name for lookup in contract.lookups for name in lookup.fields}
    needed = [(f, "key" if f.name in keys else "") for f in contract.request]
    more = [(f, "logged only: changes no prediction") for f in contract.optional]
    moment = Field(EVENT_TIME, "timestamp"), "" if contract.timed else "empty for now"
    drawn, wrong = [], [name for name in mistakes]
    for at, (field, said) in enumerate([*needed, *more, moment]):
        drawn.append(_field(at, field, said, given, mistakes.get(field.name), first=wrong[:1] == [field.name]))
    return "".join(drawn)


def _field(
    at: int, field: Field, said: str, given: Mapping[str, str], error: RequestError | None, *, first: bool
) -> str:
    told = f'<p class="error" id="e{at}">{escape(error.what)}: {escape(error.next_step)}.</p>' if error else ""
    optional = said not in ("", "key")
    empty = ", or empty for null" if field.nullable and said == "" and field.name != EVENT_TIME else ""
    facts = f'id="f{at}" name="{escape(PREFIX + field.name)}" aria-describedby="h{at}{f" e{at}" if error else ""}"'
    facts += "" if optional or empty else ' aria-required="true"'
    facts += ' aria-invalid="true"' if error else ""
    facts += " autofocus" if first else ""
    mark = f"<small>{escape(said)}</small>" if said else ""
    return (
        f'<div class="field{" bad" if error else ""}"><label for="f{at}">{escape(field.name)}{mark}</label>'
        f'{_input(field, given.get(PREFIX + field.name, ""), facts)}<p class="hint" id="h{at}">{_HINTS[field.dtype]}{empty}</p>{told}</div>'
    )


def _input(field: Field, value: str, facts: str) -> str:
    if field.dtype == "bool":
        options = "".join(f"<option{' selected' if text == value else ''}>{text}" for text in ("", *_BOOLEANS))
        return f"<select {facts}>{options}</select>"
    mode = f' inputmode="{_MODES[field.dtype]}"' if field.dtype in _MODES else ""
    return f'<input {facts}{mode} autocomplete="off" spellcheck="false" value="{escape(value)}">'


def _value(field: Field, text: str) -> Any:
    bare = text.strip()
    if not bare:
        return None if field.nullable or field.dtype != "string" else text
    if field.dtype == "bool":
        return _BOOLEANS.get(bare, text)
    if field.dtype in ("int32", "int64"):
        return int(bare) if _WHOLE.fullmatch(bare) else text
    if field.dtype in ("float32", "float64") and _NUMBER.fullmatch(bare) and math.isfinite(float(bare)):
        return float(bare)
    return bare if field.dtype == "timestamp" else text


def _text(field: Field, value: Any) -> str:
    if value is None:
        return ""
    if field.dtype == "timestamp" and isinstance(value, int):
        return from_micros(value).isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
