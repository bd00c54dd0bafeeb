"""Definitions on DataFrames: a function of pandas or Polars frames stands where others return an Ibis expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import ibis
import ibis.expr.operations as ops

from windrow.errors import (
    DeclarationError,
    SchemaError,
    StoreError,
    TimeError,
    UnknownNameError,
    WindrowError,
    closest,
    listed,
)
from windrow.features.code import meaning
from windrow.features.exact import exactly
from windrow.features.kinds import said
from windrow.features.reference import stopped
from windrow.schema import EVENT_TIME, KNOWN_AT, check_dtype

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

Kind = Literal["pandas", "polars"]
KINDS = ("pandas", "polars")
ROWS = "rows"
"""What a declaration of reads calls the columns that decide which rows there are."""
_TIMES = {EVENT_TIME: "timestamp", KNOWN_AT: "timestamp"}


@dataclass(frozen=True)
class FrameFunction:
    """A definition on DataFrames, called with Ibis tables as other definitions are.

    Attributes
    ----------
    function
        From frames by parameter to one frame.
    kind
        ``pandas`` or ``polars``.
    fields
        Keys and features with the dtypes that the result has.
    reads
        Feature -> ``"input.column"`` that it is computed from, where that was declared.
    """

    function: Callable[..., Any]
    kind: Kind
    fields: dict[str, str]
    reads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    opaque: bool = True

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"feature group {self.function.__name__!r}"

    @cached_property
    def definition(self) -> str:
        """What the function means, as text."""
        return f"{self.kind}: {meaning(self.function, where=self.name)}"

    def __call__(self, **tables: ir.Table) -> ir.Table:
        """Return the result as a table; over tables without data, one without data."""
        fields = {**self.fields, **_TIMES}
        if not tables or any(table.op().find(ops.UnboundTable) for table in tables.values()):
            kinds = {n: "timestamp('UTC', 6)" if d == "timestamp" else d for n, d in fields.items()}
            return ibis.table(kinds, name=f"frames/{self.function.__name__}")
        return ibis.memtable(self.rows({name: table.to_pyarrow() for name, table in tables.items()}))

    def rows(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Return what the function makes of `tables`: keys, features and both times.

        Raises
        ------
        DeclarationError
            If the function raises (with file and line), or returns no frame.
        SchemaError, TimeError
            If the frame lacks a column, has another one, or holds a value that its dtype cannot.
        """
        given = {name: to_frame(table, self.kind) for name, table in tables.items()}
        try:
            made = self.function(**given)
        except WindrowError:
            raise
        except Exception as error:  # noqa: BLE001 - a project's own function may raise anything; it is told where
            raise stopped(f"the function of {self.name} fails", error) from error
        rows, wanted = self._arrow(made), {**self.fields, **_TIMES}
        self._check(rows.column_names)
        for name in (n for n, dtype in wanted.items() if dtype == "timestamp"):
            _refuse_naive(rows.column(name), f"{self.name} returns {name!r}")
        where = f"what {self.name} returns, column"
        import pyarrow as pa

        return pa.table({n: exactly(rows.column(n), d, place=f"{where} {n!r}") for n, d in wanted.items()})

    def _arrow(self, made: Any) -> pa.Table:
        import pyarrow as pa

        if self.kind == "polars" and hasattr(made, "collect"):
            made = made.collect()
        if type(made).__name__ != "DataFrame" or not type(made).__module__.startswith(self.kind):
            library = type(made).__module__.partition(".")[0]
            raise DeclarationError(
                f"the function of {self.name} returned {said(made)}"
                + (f" of {library}" if library != "builtins" else ""),
                next_step=f"return a {self.kind} DataFrame",
            )
        if self.kind == "pandas":
            self._check_labels(made)
        try:
            if self.kind == "polars":
                return made.to_arrow()
            return pa.Table.from_pandas(made, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise SchemaError(
                f"{self.name} returns a column that is of no one type: {str(error)[:200]}",
                next_step="give every column one dtype",
            ) from None

    def _check_labels(self, made: Any) -> None:
        twice = [str(name) for name in made.columns[made.columns.duplicated()]]
        if twice:
            raise SchemaError(f"{self.name} returns the columns {listed(twice)} twice", next_step="return each once")
        # What groupby() leaves behind.
        hidden = [name for name in made.index.names if name in (*self.fields, *_TIMES) and name not in made.columns]
        if hidden:
            raise SchemaError(
                f"{self.name} returns {listed(hidden)} as its index, not as a column",
                next_step="return frame.reset_index(), or group by with as_index=False",
            )

    def _check(self, given: Sequence[str]) -> None:
        for name in (*self.fields, EVENT_TIME, KNOWN_AT):
            if name not in given:
                times = f"keep {EVENT_TIME} and {KNOWN_AT}: what the function is given has both"
                raise SchemaError(
                    f"{self.name} returns no column {name!r}",
                    exists=f"It returns {listed(given)}",
                    next_step=times if name in _TIMES else closest(name, given) or f"return {name!r}",
                )
        for name in given:
            if name not in self.fields and name not in _TIMES:
                raise SchemaError(
                    f"{self.name} returns a column {name!r} that it does not declare",
                    exists=f"Declared are {listed(self.fields)}",
                    next_step=f"declare it in features=, or drop it: frame[[{', '.join(map(repr, self.fields))}, ...]]",
                )


def frame_function(
    function: Callable[..., Any], kind: str, *, keys: Mapping[str, str], features: Mapping[str, str] | None
) -> FrameFunction:
    """Return the definition of a group on DataFrames; its features must be declared, since only running it would tell.

    Raises
    ------
    DeclarationError
        If the kind or a dtype does not exist, or no feature is declared.
    """
    where = f"feature group {function.__name__!r}"
    if kind not in KINDS:
        raise UnknownNameError("frame", str(kind), KINDS, where=where)
    if not features:
        raise DeclarationError(
            f"{where} is made by {kind}, which does not say what it will make",
            next_step='declare its features: @feature_group(..., frame="pandas", features={"amount": "float64"})',
        )
    for name, dtype in features.items():
        check_dtype(dtype, where=f"{where}, feature {name!r}")
        if name in (*keys, *_TIMES):
            raise DeclarationError(
                f"{where} declares {name!r}, which is a key or a time", next_step="leave it out of features="
            )
    return FrameFunction(function, "pandas" if kind == "pandas" else "polars", {**keys, **features})


def with_reads(
    body: Callable[..., Any], reads: Mapping[str, Sequence[str]] | None, inputs: Mapping[str, Sequence[str]]
) -> Callable[..., Any]:
    """Return a definition on DataFrames with its declared reads; `inputs` are the columns of each input.

    Raises
    ------
    DeclarationError
        If something is declared for a feature, or read of an input, that does not exist.
    """
    if reads is None:
        return body
    if not isinstance(body, FrameFunction):
        raise DeclarationError(
            f"feature group {body.__name__!r} declares reads=, but an Ibis definition says itself what it reads",
            next_step="leave reads= out",
        )
    known = [f"{name}.{column}" for name, columns in inputs.items() for column in columns]
    for feature, places in reads.items():
        if feature not in body.fields and feature != ROWS:
            raise UnknownNameError("feature", feature, [*body.fields, ROWS], where=f"reads= of {body.name}")
        for place in [places] if isinstance(places, str) else places:
            if place not in known:
                raise UnknownNameError("column", place, known, where=f"reads= of {body.name}, whose inputs")
    declared = {feature: (places,) if isinstance(places, str) else tuple(places) for feature, places in reads.items()}
    return replace(body, reads=declared)


def to_frame(table: pa.Table, kind: Kind) -> Any:
    """Return a table as a DataFrame whose dtypes do not depend on whether there are nulls.

    Parameters
    ----------
    table
        n rows.
    kind
        pandas: ``Int64``, ``Int32``, ``boolean``, ``float64``, ``float32``, ``str`` and ``datetime64[us, UTC]``, with NA,
        NaN or NaT for missing. Polars: its own dtypes, with null for missing.

    Raises
    ------
    StoreError
        If Polars is not installed.

    Examples
    --------
    >>> import pyarrow as pa
    >>> frame = to_frame(pa.table({"n": pa.array([1, None], pa.int64()), "s": ["a", None]}), "pandas")
    >>> frame.dtypes.astype(str).tolist()
    ['Int64', 'str']
    """
    if kind == "polars":
        try:
            import polars
        except ImportError:
            raise StoreError("polars is not installed", next_step='pip install "windrow[frames]"') from None
        return polars.from_arrow(table)
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    return table.to_pandas(types_mapper=nullable.get)


def _refuse_naive(column: pa.ChunkedArray, what: str) -> None:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        raise TimeError(
            f"{what} without a time zone", next_step="keep the times that the function was given, which are UTC"
        )
