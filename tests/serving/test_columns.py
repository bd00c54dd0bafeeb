"""Vectors made column by column are those made row by row, whatever the values; and whole ones are made so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from windrow.errors import RequestError
from windrow.features.contract import Contract, Lookup, OnDemand
from windrow.schema import Field
from windrow.serving.transformer import Transformer
from windrow.serving.vectors import Vectors
from windrow.stores.online.store import OnlineStore, Row, open_online

SOURCE = """
import numpy as np

def spoil(x, y):
    x *= 2
    return x + y

def rounded(n):
    return [int(value) % 1000 for value in np.nan_to_num(n)]
"""
CARD = Lookup("card_v1", "f", {"card": "card"}, {"b": "b", "a": "a"}, {"a": "float64", "b": "float32"}, ttl=100)
SHOP = Lookup("shop_v1", "f", {"shop": "shop"}, {"c": "c"}, {"c": "float64"})
REQUEST = tuple(
    Field(name, dtype)
    for name, dtype in {"card": "int64", "shop": "string", "x": "float64", "n": "int64", "ok": "bool"}.items()
)
FUNCTIONS = (
    OnDemand("spoil", "spoil", "float32", {"x": "request.x", "y": "stored.a"}, {"x": "float64", "y": "float64"}),
    OnDemand("rounded", "rounded", "int64", {"n": "request.n"}, {"n": "int64"}),
)
CONTRACT = Contract(
    view="v", spine="s", request=REQUEST, optional=(), lookups=(CARD, SHOP), on_demand=FUNCTIONS,
    features=tuple(Field(n, "float32") for n in ("x", "spoil", "a", "c", "n", "ok", "b", "rounded")),
    on_demand_source=SOURCE,
)  # fmt: skip
WHOLE = 20  # cards and shops below it have floats only
AT = 1000


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineStore]:
    odd = [(None, 1.5), (1, 2.5), (float("nan"), 0.0), (float("inf"), 0.0), (1e300, -1e300), (-0.0, 1e-310)]
    with open_online(f"lmdb://{tmp_path_factory.mktemp('store')}/online", write=True) as store:
        whole = [(n / 3, -n * 1e7) for n in range(WHOLE)]
        cards = [((n,), Row(AT - n, AT - n, 1, values)) for n, values in enumerate([*whole, *odd])]
        store.write("card_v1", ["a", "b"], cards)
        store.write("shop_v1", ["z", "c"], [((f"shop{n}",), Row(0, 0, 1, (0.0, n * 0.1))) for n in range(WHOLE)])
        yield store


def row(card: int, **values: Any) -> dict[str, Any]:
    return {"card": card, "shop": f"shop{card % WHOLE}", "x": 0.1 * card, "n": card, "ok": card % 2 == 0, **values}


def one_by_one(transformer: Transformer, rows: list[dict[str, Any]], times: list[int]) -> list[Vectors]:
    return [transformer.vectors([row], [time]) for row, time in zip(rows, times, strict=True)]


def check(transformer: Transformer, rows: list[dict[str, Any]], times: list[int]) -> None:
    together, alone = transformer.vectors(rows, times), one_by_one(transformer, rows, times)
    assert together.matrix is not None
    expected = np.concatenate([one.matrix for one in alone if one.matrix is not None])
    np.testing.assert_array_equal(together.matrix, expected, strict=True)
    np.testing.assert_array_equal(np.signbit(together.matrix), np.signbit(expected))
    assert together.matrix.flags.c_contiguous
    assert [str(values) for values in together.lists] == [str(one.lists[0]) for one in alone]
    assert together.finite == [one.finite[0] for one in alone]
    assert together.statuses == [one.statuses[0] for one in alone]
    assert together.unknown == {i: one.unknown[0] for i, one in enumerate(alone) if one.unknown}


_NUMBERS = st.floats(-1e38, 1e38) | st.sampled_from([0.0, -0.0, 1e-45, 16777217.0, 3.5e38])
_GOOD = st.builds(
    row, st.integers(0, WHOLE - 1), x=_NUMBERS, n=st.integers(-(2**63), 2**63 - 1), ok=st.booleans()
)  # fmt: skip
_ANY = st.builds(
    row,
    st.integers(0, WHOLE + 8),
    x=_NUMBERS | st.none(),
    n=st.none() | st.integers(-(2**63), 2**63 - 1),
    ok=st.none() | st.booleans(),
    shop=st.sampled_from(["shop1", "shop2", "none"]),
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(_GOOD, min_size=9, max_size=20) | st.lists(_ANY, min_size=1, max_size=20), late=st.integers(0, 120)
)
def test_many_rows_are_answered_as_each_alone(online: OnlineStore, rows: list[dict[str, Any]], late: int) -> None:
    with np.errstate(all="ignore"):
        check(Transformer(CONTRACT, online), rows, [AT + late + i for i in range(len(rows))])


def test_rows_without_a_gap_are_not_made_one_by_one(online: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer, rows = Transformer(CONTRACT, online), [row(n) for n in range(WHOLE)]
    monkeypatch.setattr(transformer, "_one_by_one", lambda *_: pytest.fail("made one by one"))
    made = transformer.vectors(rows, [AT] * WHOLE)
    assert made.lists[3][:4] == [np.float32(0.3).item(), np.float32(1.6).item(), 1.0, np.float32(0.3).item()]


def test_one_entity_of_many_asked_about_the_past_refuses_the_request(online: OnlineStore) -> None:
    times = [AT] * WHOLE
    times[7] = AT - 8
    with pytest.raises(RequestError, match="event_time lies before the newest stored values of group 'card_v1'"):
        Transformer(CONTRACT, online).vectors([row(n) for n in range(WHOLE)], times)


def test_a_group_that_is_published_later_is_found_by_many_rows_too(tmp_path: Any) -> None:
    with open_online(f"lmdb://{tmp_path}/online", write=True) as store:
        transformer = Transformer(CONTRACT, store)
        rows, times = [row(n) for n in range(WHOLE)], [AT] * WHOLE
        assert set(transformer.vectors(rows, times).unknown) == set(range(WHOLE))
        store.write("card_v1", ["b", "a"], [((n,), Row(AT, AT, 1, (1.0, 2.0))) for n in range(WHOLE)])
        store.write("shop_v1", ["c"], [((f"shop{n}",), Row(0, 0, 1, (3.0,))) for n in range(WHOLE)])
        made = transformer.vectors(rows, times)
        assert made.unknown == {}
        assert made.lists[0][2:4] == [2.0, 3.0]
        check(transformer, rows, times)
