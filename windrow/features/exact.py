"""Casts that change no value: the one door through which a column comes to its declared dtype.

A cast is refused where a value would be another one afterwards: a number with a fraction as a whole one, one
beyond the range of its dtype, a whole number that the dtype's precision cannot tell from its neighbour. What
rounding a fraction to float32 or float64 does is what those dtypes mean, and no other value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from windrow.errors import SchemaError
from windrow.features.arrow import arrow_type

if TYPE_CHECKING:
    import pyarrow as pa

_NEXT = "return whole or smaller values, or declare another dtype"
_FLOAT32_WHOLE = 2**24  # from here on float32 leaves out whole numbers: 16,777,217 would be stored as 16,777,216


def exactly(values: pa.ChunkedArray, dtype: str, *, place: str) -> pa.ChunkedArray:
    """Return `values` as `dtype`, each with the value it has.

    Parameters
    ----------
    values
        n values; NaN becomes null, because missing is one thing everywhere.
    dtype
        One of windrow's.
    place
        Where the values are, for errors: ``"payments.csv, column 'amount'"``.

    Raises
    ------
    SchemaError
        If a value would change: ``1.7`` as int64, ``2**40`` as int32, ``2**24 + 1`` as float32, infinity.

    Examples
    --------
    >>> import pyarrow as pa
    >>> exactly(pa.chunked_array([[1.0, float("nan")]]), "int64", place="column 'n'").to_pylist()
    [1, None]
    >>> exactly(pa.chunked_array([[1.0, 1.7]]), "int64", place="column 'n'")
    Traceback (most recent call last):
    windrow.errors.SchemaError: column 'n', row 2: 1.7 cannot be int64 without changing...
    >>> exactly(pa.chunked_array([[0.1, 16_777_217.0]]), "float32", place="column 'cents'")
    Traceback (most recent call last):
    windrow.errors.SchemaError: column 'cents', row 2: 16777217.0 cannot be float32 without changing...
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    target = arrow_type(dtype)
    try:
        cast = values.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _refused(values, _first_uncastable(values, target), dtype, place=place) from error
    if pa.types.is_floating(target):
        _refuse_infinite(values, cast, dtype, place)
    if dtype == "float32" and values.type == pa.float64():
        _refuse_other_whole(values, cast, place)
    return cast


def _refuse_infinite(values: pa.ChunkedArray, cast: pa.ChunkedArray, dtype: str, place: str) -> None:
    import pyarrow.compute as pc

    at = pc.index(pc.is_inf(cast), True).as_py()
    if at >= 0:
        raise SchemaError(
            f"{place}, row {at + 1}: {values[at].as_py()!r} is no finite {dtype}",
            next_step="return None where there is no value",
        )


def _refuse_other_whole(values: pa.ChunkedArray, cast: pa.ChunkedArray, place: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    large = pc.greater(pc.abs(values), _FLOAT32_WHOLE)
    whole = pc.equal(pc.floor(values), values)
    other = pc.not_equal(cast.cast(pa.float64()), values)
    at = pc.index(pc.and_(pc.and_(large, whole), other), True).as_py()
    if at >= 0:
        raise _refused(values, at, "float32", place=place)


def _refused(values: pa.ChunkedArray, at: int, dtype: str, *, place: str) -> SchemaError:
    return SchemaError(
        f"{place}, row {at + 1}: {values[at].as_py()!r} cannot be {dtype} without changing", next_step=_NEXT
    )


def _first_uncastable(values: pa.ChunkedArray, target: pa.DataType) -> int:
    """Return the first position that cannot be cast, by halving."""
    import pyarrow as pa

    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            values.slice(low, middle - low).cast(target)
            low = middle
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            high = middle
    return low
