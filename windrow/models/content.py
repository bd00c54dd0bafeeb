"""The content hash of a table: the same values give the same hash, however they are laid out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def content_hash(rows: pa.Table) -> str:
    """Return the SHA-256 of a table's names, types and values, in the given order of rows.

    Chunks, dictionary encoding and the bits behind a null make no difference; missing numbers
    (null and NaN) are one thing.

    Examples
    --------
    >>> import pyarrow as pa
    >>> one = pa.table({"x": pa.chunked_array([[1.0], [None]], pa.float64())})
    >>> content_hash(one) == content_hash(pa.table({"x": [1.0, float("nan")]}))
    True
    """
    digest = hashlib.sha256()
    for name in rows.column_names:
        column = rows.column(name).combine_chunks()
        digest.update(f"{name}\0{_kind(column.type)}\0{len(column)}\0".encode())
        for part in _parts(column):
            digest.update(part)
    return digest.hexdigest()


def _kind(dtype: pa.DataType) -> str:
    import pyarrow as pa

    return "string" if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype) else str(dtype)


def _parts(column: pa.Array) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        values = np.asarray(pc.fill_null(column, float("nan")).to_numpy(zero_copy_only=False))
        return [np.where(np.isnan(values), np.nan, values).astype(values.dtype).tobytes()]
    nulls = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
    if _kind(column.type) == "string":
        texts = [text.encode() for text in pc.fill_null(column, "").to_pylist()]
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return [nulls.tobytes(), lengths.tobytes(), b"".join(texts)]
    integers = pc.fill_null(column.cast(pa.uint8() if pa.types.is_boolean(column.type) else pa.int64()), 0)
    return [nulls.tobytes(), np.asarray(integers.to_numpy(zero_copy_only=False)).tobytes()]
