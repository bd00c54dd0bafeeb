"""From Arrow to NumPy, pandas and the engine: the only functions that do it, so that nulls and dtypes come out one way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from windrow.features.contract import Frame, text
from windrow.schema import check_dtype

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import pyarrow as pa
    from ibis.backends import BaseBackend
    from numpy.typing import NDArray


def arrow_type(dtype: str) -> pa.DataType:
    """Return the Arrow type that stores a dtype.

    Examples
    --------
    >>> arrow_type("timestamp")
    TimestampType(timestamp[us, tz=UTC])
    """
    import pyarrow as pa

    check_dtype(dtype, where="arrow_type()")
    return pa.timestamp("us", "UTC") if dtype == "timestamp" else pa.type_for_alias(dtype)


def arrow_schema(fields: Mapping[str, str]) -> pa.Schema:
    """Return the Arrow schema of name -> dtype.

    Examples
    --------
    >>> arrow_schema({"card_id": "int64", "plan": "string"}).names
    ['card_id', 'plan']
    """
    import pyarrow as pa

    return pa.schema([pa.field(name, arrow_type(dtype)) for name, dtype in fields.items()])


def to_numpy(column: pa.ChunkedArray | pa.Array, dtype: str) -> NDArray[Any]:
    """Return one column in the form of its declared dtype, whether or not the data have nulls.

    Parameters
    ----------
    column
        Arrow data of length n.
    dtype
        The declared dtype; the data decide nothing.

    Returns
    -------
    numpy.ndarray
        Shape (n,): float64 with NaN for null (numbers and bool; integers beyond 2**53 are rounded),
        object (str) with ``"(missing)"`` for null, or datetime64[us] (UTC) with NaT for null.

    Raises
    ------
    UnknownNameError
        If `dtype` is not one of windrow's.

    Examples
    --------
    >>> import pyarrow as pa
    >>> to_numpy(pa.array([1, None]), "int64")
    array([ 1., nan])
    >>> to_numpy(pa.array(["a", None]), "string")
    array(['a', '(missing)'], dtype=object)
    >>> to_numpy(pa.array([0, None], pa.timestamp("us", "UTC")), "timestamp")
    array(['1970-01-01T00:00:00.000000',                        'NaT'],
          dtype='datetime64[us]')
    """
    check_dtype(dtype, where="to_numpy()")
    if dtype == "string":
        return text(column.to_pylist())
    return _times(column) if dtype == "timestamp" else _numbers(column)


def to_pandas(frame: Frame) -> pd.DataFrame:
    """Return model inputs as a DataFrame with float32 and object columns, in the frame's order.

    Parameters
    ----------
    frame
        Name -> array of shape (n,), as `windrow.features.contract.canonical` makes it.

    Examples
    --------
    >>> frame = {"x": np.array([1.0, np.nan], "float32"), "plan": np.array(["a", "(missing)"], object)}
    >>> to_pandas(frame).dtypes.astype(str).tolist()
    ['float32', 'object']
    """
    import pandas as pd

    if frame and all(values.dtype == np.float32 for values in frame.values()):
        # One block of memory: scikit-learn turns it back into an array five times as fast as columns of their own.
        return pd.DataFrame(np.array(list(frame.values())).T, columns=list(frame), copy=False)
    # dtype is given, because pandas turns object arrays of text into its own str with NaN for missing.
    columns = {name: pd.Series(values, dtype=values.dtype) for name, values in frame.items()}
    return pd.DataFrame(columns, copy=False)


@contextmanager
def registered(con: BaseBackend, table: pa.Table) -> Iterator[ir.Table]:
    """Show `table` to a DuckDB backend without a copy, for as long as the block runs.

    Examples
    --------
    >>> import ibis, pyarrow as pa
    >>> with registered(ibis.duckdb.connect(), pa.table({"x": [1, 2]})) as rows:
    ...     rows.x.sum().to_pyarrow()
    <pyarrow.Int64Scalar: 3>
    """
    name = f"arrow_{uuid4().hex}"
    con.con.register(name, table)
    try:
        yield con.table(name)
    finally:
        con.con.unregister(name)


def _numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = pc.fill_null(column.cast(pa.float64(), safe=False), float("nan"))
    return np.asarray(_to_numpy(values), dtype=np.float64)


def _times(column: pa.ChunkedArray | pa.Array) -> NDArray[np.datetime64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    micros = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    # The smallest integer is NumPy's NaT.
    filled = pc.fill_null(micros, np.iinfo(np.int64).min)
    return np.asarray(_to_numpy(filled)).view("datetime64[us]")


def _to_numpy(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        array: NDArray[Any] = column.to_numpy()
        return array
    return np.asarray(column.to_numpy(zero_copy_only=False))
