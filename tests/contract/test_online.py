"""What every online store promises of rows, whatever its backend."""

from __future__ import annotations

import math

import pytest

from tests.contract.rows import Open, row
from windrow.errors import NotFoundError, StoreError
from windrow.stores.online.rows import Block
from windrow.stores.online.store import Key, Row


def test_a_reader_gets_the_row_that_was_written(open_writer: Open, open_reader: Open) -> None:
    values = (1.5, None, True, "ü漢🎉", -(2**63), 0)
    with open_writer() as store:
        assert store.write("g_v1", ["a", "b", "c", "d", "e", "f"], [((7,), row(*values))]) == 1
    with open_reader() as store:
        assert store.read([("g_v1", (7,))]) == [Row(100, 100, 1, values)]
        assert store.columns("g_v1") == ("a", "b", "c", "d", "e", "f")


def test_an_integer_stays_an_integer_and_a_float_a_float(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a", "b", "c"], [((1,), row(1, 1.0, True))])
        (found,) = store.read([("g_v1", (1,))])
        assert found is not None
        assert [type(v) for v in found.values] == [int, float, bool]


def test_nan_and_infinity_are_kept(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a", "b"], [((1,), row(math.nan, -math.inf))])
        (found,) = store.read([("g_v1", (1,))])
        assert found is not None
        assert math.isnan(found.values[0])
        assert found.values[1] == -math.inf


@pytest.mark.parametrize(
    "key", [(0,), (-1,), (2**63 - 1,), (-(2**63),), ("",), ("ü漢🎉",), ("x" * 5000,), (1, "a", -5)]
)
def test_any_key_of_int64_or_text_is_found_again(open_writer: Open, key: Key) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [(key, row(1.0))])
        assert store.read([("g_v1", key)]) == [row(1.0)]


def test_long_keys_that_share_a_beginning_do_not_meet(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [(("x" * 1000 + end,), row(end)) for end in "ab"])
        assert store.read([("g_v1", ("x" * 1000 + "b",))]) == [row("b")]
        assert store.read([("g_v1", ("x" * 1000 + "c",))]) == [None]


def test_composite_keys_do_not_run_together(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [(("ab", "c"), row(1.0)), (("a", "bc"), row(2.0))])
        assert store.read([("g_v1", ("a", "bc")), ("g_v1", ("ab", "c"))]) == [row(2.0), row(1.0)]


@pytest.mark.parametrize("key", [("1",), (True,), (1.0,), (1, 1), (None,)])
def test_a_key_of_another_type_is_refused_not_confused(open_writer: Open, key: Key) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        with pytest.raises(StoreError, match=r"group 'g_v1' has a key of \(int\), but was given"):
            store.read([("g_v1", key)])


def test_an_integer_beyond_64_bits_is_not_found(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        assert store.read([("g_v1", (2**70,))]) == [None]


def test_groups_do_not_see_each_other(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("a_v1", ["x"], [((1,), row(1.0))])
        store.write("a_v2", ["x", "y"], [((1,), row(2.0, 3.0))])
        assert store.read([("a_v2", (1,)), ("a_v1", (1,))]) == [row(2.0, 3.0), row(1.0)]
        assert (store.columns("a_v1"), store.columns("a_v2")) == (("x",), ("x", "y"))


def test_answers_come_in_the_order_asked_with_none_for_the_missing(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((i,), row(float(i))) for i in range(5)])
        assert store.read([("g_v1", (3,)), ("g_v1", (9,)), ("no_v1", (1,)), ("g_v1", (0,)), ("g_v1", (3,))]) == [
            row(3.0), None, None, row(0.0), row(3.0),
        ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 3, 50])
def test_many_look_ups_of_several_groups_are_answered_in_order(open_writer: Open, count: int) -> None:
    with open_writer() as store:
        store.write("a_v1", ["x"], [((i,), row(i)) for i in range(0, 50, 2)])
        store.write("b_v1", ["x"], [((str(i), i), row(-i)) for i in range(50)])
        wanted = [w for i in range(count) for w in (("a_v1", (i,)), ("b_v1", (str(i), i)), ("no_v1", (i,)))]
        expected = [r for i in range(count) for r in (None if i % 2 else row(i), row(-i), None)]
        assert store.read(wanted) == expected
        with pytest.raises(StoreError, match=r"group 'a_v1' has a key of \(int\), but was given \(str\)"):
            store.read([*wanted, ("a_v1", ("1",))])


def test_asking_for_nothing_gives_nothing(open_writer: Open) -> None:
    with open_writer() as store:
        assert store.read([]) == []


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (row("old", at=1), row("new", at=2), "new"),
        (row("new", at=2), row("old", at=1), "new"),
        (row("late", at=1, known=9, seq=2), row("current", at=2, seq=1), "current"),
        (row("corrected", at=1, known=5), row("first", at=1, known=1, seq=9), "corrected"),
        (row("a", at=1, seq=2), row("b", at=1, seq=1), "a"),
        (row("a", at=1, seq=1), row("b", at=1, seq=2), "b"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_an_older_row_never_overwrites_a_newer(
    open_writer: Open, first: Row, second: Row, kept: str, together: bool
) -> None:
    with open_writer() as store:
        for batch in [[first, second]] if together else [[first], [second]]:
            store.write("g_v1", ["a"], [((1,), r) for r in batch])
        (found,) = store.read([("g_v1", (1,))])
        assert found is not None
        assert found.values == (kept,)


def test_writing_the_same_rows_again_stores_nothing(open_writer: Open) -> None:
    rows = [((i,), row(1.0)) for i in range(10)]
    with open_writer() as store:
        assert store.write("g_v1", ["a"], rows) == 10
        assert store.write("g_v1", ["a"], rows) == 0


def test_rows_of_more_than_one_transaction_are_all_stored(open_writer: Open) -> None:
    with open_writer() as store:
        assert store.write("g_v1", ["a"], (((i,), row(float(i))) for i in range(20_001))) == 20_001
        assert store.count("g_v1") == 20_001
        assert store.read([("g_v1", (20_000,))]) == [row(20000.0)]


def test_count_is_of_entities_not_of_writes(open_writer: Open) -> None:
    with open_writer() as store:
        for at in (1, 2, 3):
            store.write("g_v1", ["a"], [((i,), row(1.0, at=at)) for i in range(4)])
        assert (store.count("g_v1"), store.count("no_v1")) == (4, 0)


def test_a_group_without_rows_is_known_by_its_columns(open_writer: Open) -> None:
    with open_writer() as store:
        assert store.columns("g_v1") is None
        assert store.write("g_v1", ["a", "b"], []) == 0
        assert (store.columns("g_v1"), store.count("g_v1")) == (("a", "b"), 0)
        assert store.read([("g_v1", (1,))]) == [None]


def test_rows_may_follow_an_empty_write(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [])
        store.read([("g_v1", (1,))])
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        assert store.read([("g_v1", (1,))]) == [row(1.0)]


def test_other_columns_under_the_same_version_are_refused(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        with pytest.raises(
            StoreError, match="is stored with columns 'a', but 'b' were given. Next: raise the group's version"
        ):
            store.write("g_v1", ["b"], [((2,), row(1.0))])
        assert store.count("g_v1") == 1


def test_a_row_of_the_wrong_width_is_refused_and_nothing_of_its_batch_stored(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a", "b"], [])
        with pytest.raises(StoreError, match="has 2 columns, but a row has 1 values"):
            store.write("g_v1", ["a", "b"], [((1,), row(1.0, 2.0)), ((2,), row(1.0))])
        assert store.count("g_v1") == 0


def test_keys_of_two_types_are_refused_when_written(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        with pytest.raises(StoreError, match=r"has a key of \(int\), but was given \(str\)"):
            store.write("g_v1", ["a"], [(("1",), row(1.0))])


def test_bytes_are_kept(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((1,), row(b"\x00state\xff"))])
        assert store.read([("g_v1", (1,))]) == [row(b"\x00state\xff")]


def test_a_value_that_is_no_plain_value_is_refused_by_column(open_writer: Open) -> None:
    with open_writer() as store, pytest.raises(StoreError, match=r"values of 'b \(list\)' cannot be stored"):
        store.write("g_v1", ["a", "b"], [((1,), row(1.0, [1]))])


def test_a_key_beyond_64_bits_is_refused_when_written(open_writer: Open) -> None:
    with open_writer() as store, pytest.raises(StoreError, match="a key is beyond 64 bits"):
        store.write("g_v1", ["a"], [((2**70,), row(1.0))])


def test_a_reader_cannot_write(open_writer: Open, open_reader: Open) -> None:
    open_writer().close()
    with open_reader() as store, pytest.raises(StoreError, match="is open for reading"):
        store.write("g_v1", ["a"], [((1,), row(1.0))])


def test_a_reader_before_the_first_write_is_told_what_to_run(open_reader: Open) -> None:
    with pytest.raises(NotFoundError, match="no online store in .* yet. Next: run `windrow run SERVICE`"):
        open_reader()


def test_an_open_reader_sees_later_writes_of_old_and_new_groups(open_writer: Open, open_reader: Open) -> None:
    with open_writer() as writer:
        writer.write("a_v1", ["x"], [((1,), row(1.0))])
        with open_reader() as reader:
            assert reader.read([("a_v1", (1,)), ("b_v1", (1,))]) == [row(1.0), None]
            writer.write("a_v1", ["x"], [((1,), row(2.0, at=200))])
            writer.write("b_v1", ["x"], [((1,), row(3.0))])
            assert reader.read([("a_v1", (1,)), ("b_v1", (1,))]) == [row(2.0, at=200), row(3.0)]


def test_a_closed_store_says_so_and_closing_twice_does_nothing(open_writer: Open) -> None:
    store = open_writer()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.read([("g_v1", (1,))])


def test_a_transformer_makes_the_same_vectors_whatever_the_backend(open_writer: Open, open_reader: Open) -> None:
    from windrow.features.contract import Contract, Lookup
    from windrow.schema import Field
    from windrow.serving.transformer import Transformer

    with open_writer() as store:
        store.write("card_v1", ["limit", "age"], [((7,), row(500.0, 3, at=10)), ((9,), row(None, 4, at=10))])
        store.write("shop_v1", ["rate"], [(("ü", 1), row(0.5, at=90))])
    card = Lookup("card_v1", "f", {"card_id": "card_id"}, {"limit": "limit"}, {"limit": "float64"}, ttl=50)
    shop = Lookup("shop_v1", "f", {"shop": "shop", "n": "n"}, {"rate": "rate"}, {"rate": "float64"})
    request = (Field("card_id", "int64"), Field("shop", "string"), Field("n", "int64"))
    contract = Contract(
        view="v", spine="s", request=request, optional=(), lookups=(card, shop), on_demand=(),
        features=(Field("limit", "float64"), Field("rate", "float64")),
    )  # fmt: skip
    expired, unknown = {"limit": 3, "rate": 0}, {"limit": 2, "rate": 2}
    with open_reader() as reader:
        transformer = Transformer(contract, reader)
        asked = [{"card_id": card, "shop": "ü", "n": n} for card, n in ((7, 1), (9, 1), (8, 2))]
        assert transformer.vectors(asked, [95, 95, 95]).statuses == [expired, expired, unknown]
        made = transformer.vectors([{"card_id": 9, "shop": "ü", "n": 0}, {"card_id": 7, "shop": "", "n": 1}], [55, 55])
        assert (made.statuses, made.unknown) == (
            [{"limit": 1, "rate": 2}, {"limit": 0, "rate": 2}], {0: ("shop_v1",), 1: ("shop_v1",)},
        )  # fmt: skip


def _rows_of(part: Block | list[Row | None]) -> list[Row | None]:
    return [*part.rows()] if isinstance(part, Block) else part


@pytest.mark.parametrize("width", [1, 2, 15, 16, 300])
def test_rows_of_floats_are_read_as_one_block(open_writer: Open, width: int) -> None:
    columns = [f"c{i}" for i in range(width)]
    with open_writer() as store:
        store.write("g_v1", columns, [((n,), row(*[n / 3 + i for i in range(width)])) for n in range(5)])
        (block,) = store.read_blocks([("g_v1", [(3,), (0,), (3,)])])
        assert isinstance(block, Block)
        assert block.values.shape == (3, width)
        assert block.rows() == store.read([("g_v1", (3,)), ("g_v1", (0,)), ("g_v1", (3,))])


def test_blocks_and_rows_say_the_same(open_writer: Open) -> None:
    values = {
        "floats": [(1.5, -0.0), (math.inf, 1e-310)],
        "null": [(1.5, None), (2.5, 3.5)],
        "integer": [(1.5, 1), (2.5, 3.5)],
        # As long as two floats, and no float.
        "text": [("12345678", 1.0), (1.0, "12345678")],
        "long": [(b"123456789012345", None), (1.0, 2.0)],
    }
    with open_writer() as store:
        for group, made in values.items():
            store.write(group, ["a", "b"], [((n,), row(*one)) for n, one in enumerate(made)])
        keys = [(1,), (0,)]
        wanted = [*((group, keys) for group in values), ("floats", [(0,), (7,)]), ("never_v1", keys), ("null", [])]
        found = store.read_blocks(wanted)
        assert [_rows_of(part) for part in found] == [store.read([(g, k) for k in ks]) for g, ks in wanted]
        assert [isinstance(part, Block) for part in found] == [True] + [False] * 7


def test_a_key_of_another_type_is_refused_among_many(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        with pytest.raises(StoreError, match=r"'g_v1' has a key of \(int\), but was given \(str\)"):
            store.read_blocks([("g_v1", [(1,), ("1",)])])
