"""Entities, names, dtypes and fingerprints."""

from __future__ import annotations

import pytest

from windrow.errors import DeclarationError, UnknownNameError
from windrow.schema import RESERVED_NAMES, Entity, Field, Status, check_dtype, check_name, fingerprint


def test_statuses_have_the_numbers_that_tables_hold() -> None:
    numbers = {"PRESENT": 0, "NULL": 1, "NOT_FOUND": 2, "EXPIRED": 3, "UNAVAILABLE": 4}
    assert {s.name: int(s) for s in Status} == numbers


def test_an_entity_keeps_its_keys_in_order_and_never_null() -> None:
    assert Entity("trip", z="int64", a="string").keys == (Field("z", "int64", False), Field("a", "string", False))


def test_an_entity_without_a_key_is_refused() -> None:
    with pytest.raises(
        DeclarationError, match=r"Entity 'card' has no key. Next: write Entity\(\"card\", card_id=\"int64\"\)"
    ):
        Entity("card")


@pytest.mark.parametrize("dtype", ["float64", "bool", "timestamp", "int"])
def test_a_key_of_a_dtype_that_cannot_be_a_key_is_refused(dtype: str) -> None:
    with pytest.raises(
        UnknownNameError, match=f"entity 'card' has no dtype '{dtype}'. It has 'int32', 'int64', 'string'"
    ):
        Entity("card", card_id=dtype)


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_a_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(
        DeclarationError, match=f"service cannot be called '{name}': the name is part of the HTTP interface"
    ):
        check_name("service", name)


def test_the_reserved_names_are_those_of_the_http_interface() -> None:
    assert RESERVED_NAMES == ("ingest", "requests", "openapi.json", "services", "lineage", "login", "logout")


@pytest.mark.parametrize("name", ["", "Fraud", "1st", "_x", "a-b", "a b", "ä", "a" * 64, "a\n"])
def test_a_name_that_is_not_lower_snake_case_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="is not lower snake case"):
        check_name("service", name)


@pytest.mark.parametrize("name", ["a", "fraud_2", "a" * 63])
def test_a_lower_snake_case_name_is_taken(name: str) -> None:
    assert check_name("service", name) == name


def test_an_unknown_dtype_offers_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="source 's' has no dtype 'int46'.*did you mean 'int64'"):
        check_dtype("int46", where="source 's'")


def test_a_fingerprint_never_changes_between_releases_of_windrow() -> None:
    assert fingerprint({"b": [1, None, "x"], "a": 0.5}) == "bf50dc9362c3f79a"


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


@pytest.mark.parametrize("other", [{"a": 2}, {"b": 1}, {"a": "1"}, {"a": [1]}, {"a": None}, {}])
def test_a_fingerprint_changes_with_its_value(other: dict[str, object]) -> None:
    assert fingerprint({"a": 1}) != fingerprint(other)
