"""The HTTP interface as OpenAPI 3.1, generated from the contracts of the live releases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windrow.features.contract import Contract
from windrow.models.release import Release
from windrow.schema import Field
from windrow.serving.answers import SPOKEN
from windrow.serving.explaining.explanation import KINDS
from windrow.serving.forms import ARROW, NDJSON
from windrow.serving.guard import ANY, needs
from windrow.serving.requests import FLOAT32_MAX, MAX_ROWS, MAX_TEXT, REQUEST_ID
from windrow.stores.ingest.catalogue import Stream

_TYPES: dict[str, dict[str, Any]] = {
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "int64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float32": {"type": "number", "minimum": -FLOAT32_MAX, "maximum": FLOAT32_MAX},
    "float64": {"type": "number", "minimum": -FLOAT32_MAX, "maximum": FLOAT32_MAX},
    "string": {"type": "string", "maxLength": MAX_TEXT},
    "timestamp": {"type": "string", "format": "date-time", "maxLength": 40},
}
_EVENT_TIME = {
    "type": ["string", "null"],
    "format": "date-time",
    "description": "The time that is asked about, from 1900 to 2199; default: now",
}
_EXPLAIN = {
    "name": "explain",
    "in": "query",
    "required": False,
    "description": "Explain each row (at most 16) in these ways, in the field explanations of the answer",
    "style": "form",
    "explode": False,
    "schema": {"type": "array", "items": {"type": "string", "enum": list(KINDS)}, "minItems": 1},
}
_LOGGED = "Of the event, but no feature uses it: it is checked and logged, and changes no prediction"
_FAILED = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_DEFAULT = {"description": "Why there is no answer, and what to do", "content": _FAILED}
_STREAMED = (
    "One JSON object per line, or record batches of an Arrow IPC stream. Read while you send: the service reads on only as its"
    " answers are taken. A row that cannot be answered gets a line with its problem; one with `ended` says from which line"
    " on nothing was answered."
)
_SECURITY = {
    "key": {"type": "http", "scheme": "bearer", "description": "An access key: windrow keys create NAME --scope ..."}
}
_REFUSALS = {
    "401": "There is no access key, or none that is valid here",
    "403": "The access key lacks the scope of this address",
    "429": "The access key has used up its rate, or too much waits",
}
_SOMETIMES = {
    "degraded": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Why this row's answer is not what it could have been",
    },
    "answered_by": {"type": "string", "description": "Who answered this row, where the model did not"},
    "precomputed_for": {
        "type": "string",
        "format": "date-time",
        "description": "The time that a batch run's prediction is about; then no feature was read",
    },
    "age_seconds": {"type": "number", "minimum": 0, "description": "How long that is before the time asked about"},
    "release": {"type": "string", "description": "Who answered this row, where it is not the answer's release"},
    "arms": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "The row's arm in each experiment that it is in",
    },
}
_STATUS = {"type": "string", "enum": list(SPOKEN.values())}


def openapi(releases: Mapping[str, Release], streams: Mapping[str, Stream] | None = None) -> dict[str, Any]:
    """Return the document for the live releases, by service, and for the names that take events."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Problem": _problem(), "Outcomes": _outcomes()}
    for name, release in sorted(releases.items()):
        schemas |= {
            f"{name}.Row": row_schema(release.contract),
            f"{name}.Answer": _answer(release),
            f"{name}.Line": _line(release),
        }
        paths |= _paths(name)
    for name, stream in sorted((streams or {}).items()):
        schemas[f"ingest.{name}.Row"] = event_schema(stream)
        paths |= _ingest_path(name, stream)
    paths |= _explanation_path() if releases else {}
    facts = {"title": "windrow prediction services", "version": "1"}
    components = {"schemas": schemas, "securitySchemes": _SECURITY}
    return {"openapi": "3.1.0", "info": facts, "paths": _guarded(paths), "components": components}


def row_schema(contract: Contract) -> dict[str, Any]:
    """Return the JSON schema of one row of a request."""
    keys = {name for lookup in contract.lookups for name in lookup.fields}
    fields = {f.name: _field(f, key=f.name in keys) for f in contract.request}
    fields |= {f.name: {**_field(f, key=False), "description": _LOGGED} for f in contract.optional}
    return {
        "type": "object",
        "properties": {**fields, "event_time": _EVENT_TIME},
        "required": [*(f.name for f in contract.request), *(["event_time"] if contract.timed else [])],
        "additionalProperties": False,
    }


def event_schema(stream: Stream) -> dict[str, Any]:
    """Return the JSON schema of one event."""
    fields = {}
    for field in stream.fields:
        fields[field.name] = dict(_TYPES[field.dtype])
        if field.nullable:
            fields[field.name]["type"] = [fields[field.name]["type"], "null"]
    required = list(stream.names)
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _ingest_path(name: str, stream: Stream) -> dict[str, Any]:
    row = {"$ref": f"#/components/schemas/ingest.{name}.Row"}
    answer = {"type": "object", "properties": {"accepted": {"type": "integer"}}}
    operation = _operation(f"ingest.{name}", f"Send events to {stream.key}", {"oneOf": [row, _many(row)]}, answer)
    operation["responses"]["202"] = operation["responses"].pop("200")
    return {f"/v1/ingest/{name}": {"post": operation}}


def _guarded(paths: dict[str, Any]) -> dict[str, Any]:
    """Add to every operation which scope it needs, and how it is refused."""
    for path, operations in paths.items():
        scope = needs(path)
        for operation in operations.values():
            operation["security"] = [{"key": [] if scope == ANY else [scope]}]
            operation["responses"] |= {status: _refusal(status, text) for status, text in _REFUSALS.items()}
    return paths


def _refusal(status: str, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"description": text, "content": _FAILED}
    if status == "429":
        found["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}}
    return found


def _many(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"rows": {"type": "array", "items": row, "minItems": 1, "maxItems": MAX_ROWS}},
        "required": ["rows"],
        "additionalProperties": False,
    }


def _field(field: Field, *, key: bool) -> dict[str, Any]:
    schema = dict(_TYPES[field.dtype])
    if field.nullable and not key:
        schema["type"] = [schema["type"], "null"]
    if key:
        schema["description"] = "Entity key"
    return schema


def _paths(name: str) -> dict[str, Any]:
    row = {"$ref": f"#/components/schemas/{name}.Row"}
    answer = {"$ref": f"#/components/schemas/{name}.Answer"}
    predict = _operation(f"{name}.predict", "Predict one row or many", {"oneOf": [row, _many(row)]}, answer)
    predict["parameters"] = [_EXPLAIN]
    predict["responses"]["202"] = {
        **predict["responses"]["200"],
        "description": "The answer, with tickets for explanations that are still being made",
    }
    return {
        f"/v1/{name}/predict": {"post": predict},
        f"/v1/{name}/batch": {"post": _stream(name)},
        f"/v1/{name}/outcomes": {
            "post": _operation(
                f"{name}.outcomes",
                "Say what became true",
                {"$ref": "#/components/schemas/Outcomes"},
                {"type": "object"},
            )
        },
        f"/v1/{name}": {
            "get": {
                "operationId": f"{name}.describe",
                "summary": "Schema and release",
                "responses": _responses({"type": "object"}),
            }
        },
    }


def _explanation_path() -> dict[str, Any]:
    kinds = {"type": "string", "enum": list(KINDS), "default": KINDS[0]}
    row = {"type": "integer", "minimum": 0, "maximum": MAX_ROWS - 1, "default": 0}
    responses = _responses({"type": "object"})
    responses["202"] = {
        "description": "A ticket: ask again after the seconds in Retry-After",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    operation = {
        "operationId": "explanation",
        "summary": "Why a row of a logged request was answered as it was",
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "kind", "in": "query", "required": False, "schema": kinds},
            {"name": "row", "in": "query", "required": False, "schema": row},
        ],
        "responses": responses,
    }
    return {"/v1/requests/{id}/explanation": {"get": operation}}


def _stream(name: str) -> dict[str, Any]:
    sent, answered = (_items(f"#/components/schemas/{name}.{item}") for item in ("Row", "Line"))
    return {
        "operationId": f"{name}.batch",
        "summary": "Predict as many rows as you send, answered while they arrive",
        "description": _STREAMED,
        "requestBody": {"required": True, "content": sent},
        "responses": {"200": {"description": "The answers", "content": answered}, "default": _DEFAULT},
    }


def _items(schema: str) -> dict[str, Any]:
    # OpenAPI has a word for the schema of each item, `itemSchema`, from 3.2 on.
    whole = {"type": "string", "format": "binary"}
    return {kind.decode(): {"schema": whole, "x-itemSchema": {"$ref": schema}} for kind in (NDJSON, ARROW)}


def _line(release: Release) -> dict[str, Any]:
    answer = _answer(release)
    prediction = answer["properties"]["predictions"]["items"]
    texts = dict.fromkeys(("request_id", "release"), {"type": "string"})
    whole = {"type": "integer", "minimum": 0}
    fields = {"line": whole, "row": whole, **texts, "now": answer["properties"]["now"], **prediction["properties"]}
    told = {"type": "object", "properties": fields, "required": ["line", "row", *texts, "now", *prediction["required"]]}
    extra = {"line": whole, "ended": {"type": "boolean", "description": "No row from this line on is answered"}}
    wrong = {"type": "object", "properties": {**_problem()["properties"], **extra}, "required": ["line", "status"]}
    return {"oneOf": [told, wrong]}


def _operation(id: str, summary: str, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": body}}
    return {
        "operationId": id,
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": _responses(answer),
    }


def _responses(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "200": {"description": "The answer", "content": {"application/json": {"schema": answer}}},
        "default": _DEFAULT,
    }


def _answer(release: Release) -> dict[str, Any]:
    statuses = {"type": "object", "properties": dict.fromkeys(release.contract.feature_names, _STATUS)}
    prediction: dict[str, Any] = {"value": {"type": "number"}, "statuses": statuses}
    if release.task == "classification":
        prediction["probability"] = {"type": "number", "minimum": 0, "maximum": 1}
    if release.classes:
        share = {"type": "number", "minimum": 0, "maximum": 1}
        prediction["class"] = {"type": "string", "enum": list(release.classes)}
        prediction["probabilities"] = {"type": "object", "properties": dict.fromkeys(release.classes, share)}
    texts = dict.fromkeys(("request_id", "service", "release"), {"type": "string"})
    item = {"type": "object", "properties": {**prediction, **_SOMETIMES}, "required": list(prediction)}
    fields = {
        **texts,
        "predictions": {"type": "array", "items": item},
        "now": {"type": "string", "format": "date-time"},
    }
    required, explanations = list(fields), {"type": "array", "items": {"type": "object"}}
    return {"type": "object", "properties": {**fields, "explanations": explanations}, "required": required}


def _outcomes() -> dict[str, Any]:
    fields = {
        "request_id": {"type": "string", "pattern": f"^{REQUEST_ID}$"},
        "row": {"type": "integer", "minimum": 0, "maximum": MAX_ROWS - 1, "default": 0},
        "value": _TYPES["float64"],
        "known_at": {"type": ["string", "null"], "format": "date-time"},
    }
    item = {"type": "object", "properties": fields, "required": ["request_id", "value"], "additionalProperties": False}
    items = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_ROWS}
    return {
        "type": "object",
        "properties": {"outcomes": items},
        "required": ["outcomes"],
        "additionalProperties": False,
    }


def _problem() -> dict[str, Any]:
    texts = ("type", "title", "detail", "where", "next", "request_id")
    fields = {**dict.fromkeys(texts, {"type": "string"}), "status": {"type": "integer"}}
    return {"type": "object", "properties": fields}
