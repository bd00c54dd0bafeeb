"""Probing: what an opaque step reads is found by changing its inputs."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from windrow.features.probe import difference, probe, sample, variations

ROWS = pa.table(
    {
        "k": [1, 2, 3, 4, 5, 6],
        "a": [1.0, 5.0, 9.0, 2.0, 7.0, 4.0],
        "b": ["x", "y", "x", "z", "y", "x"],
        "c": [True, False, True, True, False, True],
        "d": [3, 1, 2, 6, 5, 4],
    }
)


def found(step: Any, rows: pa.Table = ROWS) -> dict[str, str]:
    made = probe(lambda tables: step(tables["t"]), {"t": rows}, identity=["k"])
    columns = {**made.columns, "rows": made.rows}
    return {name: "".join(sorted(r.column for r in reads)) for name, reads in columns.items()}


def test_a_computed_column_reads_what_it_is_computed_from() -> None:
    assert found(lambda t: t.select(["k"]).append_column("f", pc.add(t["a"], t["d"]))) == {"f": "ad", "rows": "k"}


def test_a_filter_decides_rows_and_changes_no_value() -> None:
    assert found(lambda t: t.filter(t["c"]).select(["k", "a"])) == {"a": "a", "rows": "ck"}


def test_a_rank_is_noticed_though_its_values_are_always_the_same_numbers() -> None:
    assert found(lambda t: t.select(["k"]).append_column("f", pc.rank(t["a"]))) == {"f": "a", "rows": "k"}


def test_a_centred_column_is_noticed_though_moving_all_values_changes_nothing() -> None:
    def centred(t: pa.Table) -> pa.Table:
        return t.select(["k"]).append_column("f", pc.subtract(t["a"], pc.mean(t["a"])))

    assert found(centred) == {"f": "a", "rows": "k"}


def test_a_count_of_missing_values_is_noticed() -> None:
    def missing(t: pa.Table) -> pa.Table:
        return t.select(["k"]).append_column("f", pa.array([t["b"].null_count] * t.num_rows))

    assert found(missing) == {"f": "b", "rows": "k"}


def test_a_step_that_raises_has_noticed() -> None:
    def strict(t: pa.Table) -> pa.Table:
        if t["b"].null_count:
            raise ValueError("missing")
        return t.select(["k", "a"])

    assert found(strict) == {"a": "ab", "rows": "bk"}


def test_the_same_seed_gives_the_same_answer() -> None:
    assert [v.to_pylist() for v in variations(ROWS["a"], 3)] == [v.to_pylist() for v in variations(ROWS["a"], 3)]


@pytest.mark.parametrize(
    "column",
    [
        pa.chunked_array([[1, 2, None]], pa.int32()),
        pa.chunked_array([[1.5, None]], pa.float32()),
        pa.chunked_array([["a", None]]),
        pa.chunked_array([[True, None]]),
        pa.chunked_array([[0, 1]], pa.timestamp("us", "UTC")),
    ],
    ids=lambda c: str(c.type),
)
def test_a_variation_keeps_type_and_length(column: pa.ChunkedArray) -> None:
    for made in variations(column):
        assert (made.type, len(made)) == (column.type, len(column))


def test_the_order_of_rows_is_no_difference() -> None:
    assert difference(ROWS, ROWS.take(pa.array([5, 4, 3, 2, 1, 0])), ["k"]) == ("same", frozenset(), frozenset())


def test_a_difference_below_rounding_is_none() -> None:
    moved = ROWS.set_column(1, "a", pc.add(ROWS["a"], 1e-13))
    assert difference(ROWS, moved, ["k"]).columns == frozenset()


def test_a_sample_is_the_first_rows() -> None:
    assert sample(ROWS, 2)["k"].to_pylist() == [1, 2]
