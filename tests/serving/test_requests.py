from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from windrow.errors import RequestError
from windrow.features.contract import Contract, Lookup
from windrow.schema import Field
from windrow.serving.requests import MAX_ROWS, RowReader, decode, read_outcomes

CARD = Lookup("card_v1", "f", {"card_id": "card_id"}, {"limit": "limit"}, {"limit": "float64"})
CONTRACT = Contract(
    view="fraud",
    spine="payments",
    request=(
        Field("card_id", "int64"),
        Field("amount", "float64"),
        Field("count", "int32", nullable=False),
        Field("note", "string"),
        Field("vip", "bool"),
        Field("opened", "timestamp"),
    ),
    optional=(Field("payment_id", "int64"),),
    lookups=(CARD,),
    on_demand=(),
    features=(Field("limit", "float64"), Field("amount", "float64")),
)
GOOD: dict[str, Any] = {
    "card_id": 7,
    "amount": 12.5,
    "count": 3,
    "note": "ok",
    "vip": True,
    "opened": "2026-01-01T00:00:00Z",
}
READER = RowReader(CONTRACT)


def _error(row: dict[str, Any]) -> RequestError:
    with pytest.raises(RequestError, match="Next:") as caught:
        READER.read(json.dumps(row).encode())
    return caught.value


def test_one_row_is_read_with_its_values_by_field() -> None:
    rows = READER.read(json.dumps({**GOOD, "event_time": "2026-01-01T01:00:00+01:00"}).encode())
    assert rows.values == [
        {"card_id": 7, "amount": 12.5, "count": 3, "note": "ok", "vip": True, "opened": 1767225600000000}
    ]
    assert rows.times == [1767225600000000]


def test_many_rows_keep_their_order() -> None:
    body = json.dumps({"rows": [{**GOOD, "card_id": n} for n in (3, 1, 2)]}).encode()
    assert [row["card_id"] for row in RowReader(CONTRACT).read(body).values] == [3, 1, 2]


def test_a_float_field_takes_a_whole_number_and_gives_a_float() -> None:
    value = READER.read(json.dumps({**GOOD, "amount": 2}).encode()).values[0]["amount"]
    assert (value, type(value)) == (2.0, float)


def test_an_optional_field_of_the_spine_is_accepted() -> None:
    assert READER.read(json.dumps({**GOOD, "payment_id": 9}).encode()).values[0]["payment_id"] == 9


def test_null_is_accepted_where_the_field_is_nullable() -> None:
    assert READER.read(json.dumps({**GOOD, "amount": None}).encode()).values[0]["amount"] is None


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("card_id", 7.0, "wrong-type"),
        ("card_id", True, "wrong-type"),
        ("card_id", "7", "wrong-type"),
        ("card_id", 2**63, "out-of-range"),
        ("card_id", [7], "wrong-type"),
        ("count", 2**31, "out-of-range"),
        ("count", None, "wrong-type"),
        ("amount", "12", "wrong-type"),
        ("amount", True, "wrong-type"),
        ("amount", 1e39, "out-of-range"),
        ("amount", 10**400, "out-of-range"),
        ("amount", {"x": 1}, "wrong-type"),
        ("note", 5, "wrong-type"),
        ("note", "x" * 1025, "out-of-range"),
        ("vip", 1, "wrong-type"),
        ("opened", 1767225600, "wrong-type"),
        ("opened", "2026-01-01T00:00:00", "wrong-time"),
        ("opened", "yesterday", "wrong-time"),
        ("event_time", "2026-01-01", "wrong-time"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused_with_its_place(field: str, value: Any, kind: str) -> None:
    error = _error({**GOOD, field: value})
    assert (error.status, error.kind, error.where) == (422, kind, f"$.{field}")


@pytest.mark.parametrize("value", ["secret-4711", "2026-13-99T00:00:00Z", 4711.5, [4711]])
def test_a_refused_value_is_never_repeated(value: Any) -> None:
    error = _error({**GOOD, "opened": value})
    assert "4711" not in error.message + error.where
    assert "2026-13" not in error.message + error.where


def test_an_unknown_field_is_refused_with_the_closest_name() -> None:
    error = _error({**GOOD, "amout": 1})
    assert (error.status, error.kind) == (422, "unknown-field")
    assert error.message == "There is no field 'amout' in a row. Next: did you mean 'amount'?"


def test_an_unknown_field_that_is_no_name_is_not_repeated() -> None:
    assert "4711" not in _error({**GOOD, "card 4711 <b>": 1}).message


@pytest.mark.parametrize("row", [{k: v for k, v in GOOD.items() if k != "card_id"}, {**GOOD, "card_id": None}])
def test_a_missing_or_null_key_is_refused_as_missing(row: dict[str, Any]) -> None:
    error = _error(row)
    assert (error.status, error.kind, error.where) == (422, "missing-key", "$")
    assert error.message == "The key 'card_id' is missing. Next: add 'card_id' (int64)."


def test_a_missing_field_says_that_null_would_do() -> None:
    error = _error({k: v for k, v in GOOD.items() if k != "amount"})
    assert (error.kind, error.next_step) == ("missing-field", "add 'amount' (float64), or null if it is not known")


def test_the_place_of_a_wrong_value_names_the_row() -> None:
    with pytest.raises(RequestError, match="'amount' is not a number") as caught:
        READER.read(json.dumps({"rows": [GOOD, {**GOOD, "amount": "x"}]}).encode())
    assert caught.value.where == "$.rows[1].amount"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "broken-json"),
        (b"{", 400, "broken-json"),
        (b'{"a": 1} x', 400, "broken-json"),
        (b'{"a": NaN}', 400, "broken-json"),
        (b'{"a": Infinity}', 400, "broken-json"),
        (b'{"a": -Infinity}', 400, "broken-json"),
        (b'{"a": 1e400}', 400, "broken-json"),
        (b"\xff\xfe", 400, "broken-json"),
        (b'"\\ud800"', 400, "broken-json"),
        (b"[" * 100_000, 400, "too-deep"),
        (b'{"a":' * 100_000, 400, "too-deep"),
        (b"[1, 2]", 422, "wrong-type"),
        (b"null", 422, "wrong-type"),
    ],
)
def test_what_is_not_a_json_object_is_refused(body: bytes, status: int, kind: str) -> None:
    with pytest.raises(RequestError, match="The body") as caught:
        decode(body)
    assert (caught.value.status, caught.value.kind) == (status, kind)


@pytest.mark.parametrize("rows", [[], [GOOD] * (MAX_ROWS + 1)])
def test_a_list_of_rows_is_neither_empty_nor_too_long(rows: list[Any]) -> None:
    with pytest.raises(RequestError, match="The list 'rows' is") as caught:
        READER.read(json.dumps({"rows": rows}).encode())
    assert (caught.value.status, caught.value.kind) == (422, "wrong-size")


def test_rows_must_be_objects() -> None:
    with pytest.raises(RequestError, match="A row must be an object") as caught:
        READER.read(b'{"rows": [1]}')
    assert caught.value.where == "$.rows[0]"


def test_nothing_stands_beside_a_list_of_rows() -> None:
    with pytest.raises(RequestError, match="no field 'extra' in the body"):
        READER.read(json.dumps({"rows": [GOOD], "extra": 1}).encode())


def test_outcomes_are_read_with_their_time() -> None:
    body = b'{"outcomes": [{"request_id": "ab-1", "row": 2, "value": 1, "known_at": "1970-01-01T00:00:01Z"}]}'
    assert read_outcomes(body)[0] == ("ab-1", 2, 1.0, 1_000_000)


@pytest.mark.parametrize(
    ("item", "where"),
    [
        ({"row": 0, "value": 1}, "$.outcomes[0]"),
        ({"request_id": "a", "row": 0}, "$.outcomes[0]"),
        ({"request_id": "a b", "value": 1}, "$.outcomes[0].request_id"),
        ({"request_id": "a", "value": "1"}, "$.outcomes[0].value"),
        ({"request_id": "a", "value": 1, "row": -1}, "$.outcomes[0].row"),
        ({"request_id": "a", "value": 1, "known_at": "2026-01-01"}, "$.outcomes[0].known_at"),
        ({"request_id": "a", "value": 1, "known_at": "1899-12-31T00:00:00Z"}, "$.outcomes[0].known_at"),
        ({"request_id": "a", "value": 1, "known_at": "2199-01-01T00:00:00Z"}, "$.outcomes[0].known_at"),
        ({"request_id": "a", "value": 1, "x": 1}, "$.outcomes[0]"),
        (5, "$.outcomes[0]"),
    ],
)
def test_an_outcome_in_another_form_is_refused_with_its_place(item: Any, where: str) -> None:
    with pytest.raises(RequestError, match="Next:") as caught:
        read_outcomes(json.dumps({"outcomes": [item]}).encode())
    assert (caught.value.status, caught.value.where) == (422, where)


def _outcomes(*items: dict[str, Any]) -> bytes:
    return json.dumps({"outcomes": items}).encode()


def test_the_outcome_of_a_class_is_0_or_1() -> None:
    body = _outcomes({"request_id": "a", "value": 1}, {"request_id": "b", "value": 0.5})
    with pytest.raises(RequestError, match="'value' is not 0 or 1. Next: send 1 for what happened") as caught:
        read_outcomes(body, classes=2)
    assert (caught.value.status, caught.value.where) == (422, "$.outcomes[1].value")
    assert [o.value for o in read_outcomes(body)] == [1.0, 0.5]


def test_outcomes_that_contradict_each_other_are_refused() -> None:
    body = _outcomes({"request_id": "a", "value": 1}, {"request_id": "a", "row": 0, "value": 0})
    with pytest.raises(RequestError, match="Two outcomes of one row differ. Next: send one value") as caught:
        read_outcomes(body)
    assert (caught.value.status, caught.value.where) == (400, "$.outcomes[1].value")


def test_an_outcome_that_is_corrected_later_is_no_contradiction() -> None:
    first = {"request_id": "a", "value": 1, "known_at": "2026-01-01T00:00:00Z"}
    body = _outcomes(first, {**first, "value": 0, "known_at": "2026-01-02T00:00:00Z"})
    assert [o.value for o in read_outcomes(body)] == [1.0, 0.0]


def test_an_outcome_that_is_said_twice_is_no_contradiction() -> None:
    body = _outcomes(
        {"request_id": "a", "value": 1}, {"request_id": "a", "value": 1}, {"request_id": "a", "row": 1, "value": 0}
    )
    assert [o.value for o in read_outcomes(body)] == [1.0, 1.0, 0.0]


PLAIN = RowReader(
    msgspec.structs.replace(CONTRACT, request=tuple(f for f in CONTRACT.request if f.dtype != "timestamp"))
)
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=5), st.just("x" * 1025),
    st.lists(st.integers(), max_size=1), st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 3.5e38, 1e400, "2026-01-01T00:00:00Z"]),
)  # fmt: skip
_RIGHT = {
    "card_id": st.integers(-(2**63), 2**63 - 1),
    "amount": st.none() | st.floats(-3e38, 3e38) | st.integers(-9, 9),
    "count": st.integers(-9, 9),
    "note": st.none() | st.text(),
    "vip": st.none() | st.booleans(),
}
_MORE = {
    "payment_id": st.none() | st.integers(-9, 9),
    "event_time": st.none() | st.just("2026-01-01T00:00:00Z"),
    "extra": st.integers(),
}


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(_RIGHT, optional=_MORE),
    st.dictionaries(st.sampled_from([*_RIGHT, *_MORE]), _VALUES, max_size=2),
    st.sets(st.sampled_from([*_RIGHT]), max_size=1),
)
def test_the_quick_way_gives_what_the_careful_way_gives(
    right: dict[str, Any], wrong: dict[str, Any], dropped: set[str]
) -> None:
    body = json.dumps({k: v for k, v in {**right, **wrong}.items() if k not in dropped}).encode()
    try:
        expected: Any = PLAIN.read_carefully(body)
    except RequestError as error:
        expected = (error.status, error.kind, error.where, error.message)
    try:
        found: Any = PLAIN.read(body)
    except RequestError as error:
        found = (error.status, error.kind, error.where, error.message)
    assert repr(found) == repr(expected) or (sorted(found.values[0].items(), key=str), found.times) == (
        sorted(expected.values[0].items(), key=str),
        expected.times,
    )


_TEXT = st.text('ab:\\\\" ,{}[]', max_size=6)


@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["a", "b", "a:b"]), _TEXT | st.integers(-5, 5)), max_size=3),
    escaped=st.booleans(),
    spaced=st.booleans(),
    twice=st.none() | st.sampled_from(["a", "b", "rows"]),
)
def test_a_name_is_found_twice_exactly_where_it_is(
    rows: list[dict[str, Any]], escaped: bool, spaced: bool, twice: str | None
) -> None:
    body = json.dumps({"rows": rows}, indent=1 if spaced else None, separators=None if spaced else (",", ":"))
    if escaped:
        body = body.replace("a", r"\u0061").replace("b:", r"b\u003a")
    where = "$.rows" if twice == "rows" else "$.x[0]." + (twice or "")
    if twice:
        more = '"rows":[],' if twice == "rows" else f'"x":[{{"{twice}":"\\u003a","{twice}":":"}}],'
        body = "{" + more + body.strip()[1:]
    if twice is None:
        assert decode(body.encode()) == {"rows": rows}
        return
    with pytest.raises(RequestError, match=f"The field '{twice}' is given twice") as caught:
        decode(body.encode())
    assert (caught.value.status, caught.value.where) == (400, where)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"card_id": 7, "card_id": 8, %s}', "$.card_id"),
        (b'{"note": ":::", %s, "c\\u0061rd_id": 8, "card_id": 7}', "$.note"),
        (b'{"rows": [{"card_id": 7, %s}, {"card_id": 7, %s, "vip": false}]}', "$.rows[1].vip"),
    ],
)
def test_a_field_that_is_given_twice_is_refused_with_its_place(body: bytes, where: str) -> None:
    rest = json.dumps({name: value for name, value in GOOD.items() if name != "card_id"})[1:-1].encode()
    with pytest.raises(RequestError, match=f"The field '{where.rpartition('.')[2]}' is given twice") as caught:
        RowReader(CONTRACT).read(body.replace(b"%s", rest))
    assert (caught.value.status, caught.value.kind, caught.value.where) == (400, "duplicate-field", where)


def test_one_of_two_outcomes_in_one_object_is_refused() -> None:
    with pytest.raises(RequestError, match="The field 'value' is given twice"):
        read_outcomes(b'{"outcomes": [{"request_id": "a1", "row": 0, "value": 1, "value": 0}]}')


def test_a_field_that_is_no_name_is_not_repeated_when_it_is_given_twice() -> None:
    with pytest.raises(RequestError, match="A field is given twice"):
        decode(b'{"a secret": 1, "a secret": 2}')


def test_the_quick_way_takes_right_rows() -> None:
    assert PLAIN._quick is not None
    row = {k: v for k, v in GOOD.items() if k != "opened"}
    assert PLAIN._quick.read(json.dumps(row).encode()) == PLAIN.read_carefully(json.dumps(row).encode())


def test_a_column_may_have_any_name() -> None:
    reader = RowReader(
        Contract(
            view="v",
            spine="s",
            request=(Field("Total Charges (€)", "float64"),),
            optional=(),
            lookups=(),
            on_demand=(),
            features=(),
        )
    )
    assert reader.read('{"Total Charges (€)": 2}'.encode()).values == [{"Total Charges (€)": 2.0}]


SECRET = "zq7-secret-zq7"
SECRETS = st.sampled_from([SECRET, 987_654_321_987, -9.87654321987e30, [SECRET], {"inner": SECRET}, SECRET * 200])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | SECRETS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(list(GOOD)), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def _mutated(changes: list[tuple[int, bytes]]) -> bytes:
    body = bytearray(json.dumps(GOOD).encode())
    for at, data in changes:
        body[at : at + len(data)] = data
    return bytes(body)


BODIES = st.one_of(
    st.binary(max_size=200),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from([*GOOD, "event_time", "rows"]), VALUES).map(
        lambda changed: json.dumps({**GOOD, **changed}).encode()
    ),
    st.lists(VALUES, max_size=3).map(lambda rows: json.dumps({"rows": rows}).encode()),
    st.lists(st.tuples(st.integers(0, 120), st.binary(max_size=3)), max_size=4).map(_mutated),
)


@given(BODIES)
@hypothesis_settings(max_examples=1000, deadline=None)
def test_any_body_is_read_or_refused_as_the_callers_mistake_without_repeating_it(body: bytes) -> None:
    for read in (READER.read, READER.read_carefully, READER.read_line, read_outcomes, decode):
        refused = _refusal(read, body)
        if refused is not None:
            told = f"{refused.message} {refused.where} {refused.kind}"
            assert refused.status in (400, 422)
            assert not any(secret in told for secret in (SECRET, "987654321", "87654321987"))


def _refusal(read: Callable[[bytes], Any], body: bytes) -> RequestError | None:
    try:
        read(body)
    except RequestError as error:
        return error
    return None
