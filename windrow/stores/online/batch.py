"""From Arrow batches to packed rows, column by column: no Python object per value where all columns are numbers.

The bytes are msgpack, as `windrow.stores.online.rows.pack_row` makes them, but numbers always take their full
width (nine bytes for float64, int64 and times, five for float32 and int32), so that whole columns are written at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windrow.stores.online.rows import Packed, impossible_key, pack, pack_key

if TYPE_CHECKING:
    import pyarrow as pa

_NULL, _FALSE = 0xC0, 0xC2
# Arrow type -> tag and NumPy format of a number; a boolean is its tag alone.
_NUMBERS = {
    "double": (0xCB, ">f8"), "float": (0xCA, ">f4"), "int64": (0xD3, ">i8"), "int32": (0xD2, ">i4"), "bool": (_FALSE, "u1"),
}  # fmt: skip
_TEXT = ("string", "large_string", "string_view")
_ROW_OF_FOUR, _FIX_ARRAY, _ARRAY16, _ROW_OF_ONE = b"\x94", 0x90, b"\xdc", 0x91
# Whole numbers from, up to, tag and NumPy format: those that most keys are.
_WHOLE = ((1 << 16, 1 << 32, 0xCE, ">u4"), (1 << 8, 1 << 16, 0xCD, ">u2"), (1 << 32, 1 << 63, 0xCF, ">u8"))
_SHORT_ARRAY = 16

_Item = Any  # bytes that every row has, or a column


def pack_batch(group: str, batch: pa.RecordBatch, keys: int) -> Packed:
    """Return the rows of a batch, packed.

    Parameters
    ----------
    batch
        `keys` key columns (int32, int64, string), each key once; then event_time, known_at (timestamp) and
        _seq; then the features (bool, int32, int64, float32, float64, string, binary, timestamp).

    Raises
    ------
    StoreError
        If a key cannot be stored.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from windrow.stores.online.rows import unpack_row
    >>> columns = {"k": [7], "event_time": [1], "known_at": [2], "_seq": [3], "x": [0.5], "y": [None], "z": ["a"]}
    >>> made = pack_batch("g_v1", pa.RecordBatch.from_pydict(columns), keys=1)
    >>> unpack_row(made.rows[0]), made.types
    (Row(event_time=1, known_at=2, seq=3, values=(0.5, None, 'a')), ('int',))
    """
    columns = [_plain(column) for column in batch.columns]
    packed = _keys(group, columns[:keys], batch.num_rows)
    types = tuple("str" if str(column.type) in _TEXT else "int" for column in columns[:keys])
    features = columns[keys + 3 :]
    items = [_ROW_OF_FOUR, *columns[keys : keys + 3], _header(len(features)), *features]
    return Packed(types if packed else (), packed, _rows(items, batch.num_rows))


def _plain(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def _keys(group: str, columns: Sequence[pa.Array], rows: int) -> list[bytes]:
    if not columns:
        return [pack(())] * rows
    if any(column.null_count for column in columns):
        raise impossible_key(group)
    if len(columns) == 1 and str(columns[0].type) not in _TEXT:
        return _whole_keys(columns[0].to_numpy(zero_copy_only=False))
    keys = zip(*(column.to_pylist() for column in columns), strict=True)
    # Only text can be longer than a store takes.
    return list(map(pack_key if any(str(column.type) in _TEXT for column in columns) else pack, keys))


def _whole_keys(numbers: NDArray[Any]) -> list[bytes]:
    """Return the keys of one whole number each, as msgpack has them: in the fewest bytes."""
    low, high = (numbers.min(), numbers.max()) if len(numbers) else (0, 0)
    for first, end, tag, form in _WHOLE:
        if first <= low and high < end:
            made = np.empty(len(numbers), np.dtype([("row", "u1"), ("tag", "u1"), ("x", form)]))
            made["row"], made["tag"], made["x"] = _ROW_OF_ONE, tag, numbers
            keys: list[bytes] = made.view(f"V{made.itemsize}").tolist()
            return keys
    return [pack((number,)) for number in numbers.tolist()]  # of several widths


def _header(features: int) -> bytes:
    return bytes([_FIX_ARRAY | features]) if features < _SHORT_ARRAY else _ARRAY16 + features.to_bytes(2, "big")


def _rows(items: Sequence[_Item], rows: int) -> list[bytes]:
    """Return each row's bytes: runs of numbers, and between them what has no fixed width."""
    parts: list[list[bytes]] = []
    run: list[_Item] = []
    for item in items:
        if isinstance(item, bytes) or str(item.type) in _NUMBERS:
            run.append(item)
        else:
            parts += [_fixed(run, rows), [pack(value) for value in item.to_pylist()]]
            run = []
    parts.append(_fixed(run, rows))
    return parts[0] if len(parts) == 1 else [b"".join(row) for row in zip(*parts, strict=True)]


def _fixed(run: Sequence[_Item], rows: int) -> list[bytes]:
    """Return the bytes of a run of numbers in each row."""
    template = b"".join(item if isinstance(item, bytes) else _blank(item) for item in run)
    width, at = len(template), 0
    if not width:
        return [b""] * rows
    matrix = np.tile(np.frombuffer(template, np.uint8), (rows, 1))
    kept: NDArray[np.bool_] | None = None
    for item in run:
        if isinstance(item, bytes):
            at += len(item)
            continue
        end = at + len(_blank(item))
        _fill(matrix, at, item)
        if item.null_count:
            missing = item.is_null().to_numpy(zero_copy_only=False)
            kept = np.ones(matrix.shape, np.bool_) if kept is None else kept
            matrix[missing, at] = _NULL
            kept[missing, at + 1 : end] = False
        at = end
    return _cut(matrix, kept)


def _blank(column: pa.Array) -> bytes:
    tag, form = _NUMBERS[str(column.type)]
    return bytes([tag]) + bytes(0 if tag == _FALSE else int(form[2:]))


def _fill(matrix: NDArray[np.uint8], at: int, column: pa.Array) -> None:
    tag, form = _NUMBERS[str(column.type)]
    plain = column.fill_null(False if tag == _FALSE else 0) if column.null_count else column
    values = plain.to_numpy(zero_copy_only=False)
    if tag == _FALSE:
        matrix[:, at] = values
        matrix[:, at] += _FALSE
        return
    # A field of a record that begins in the middle of the row: NumPy swaps and places the bytes in one pass.
    fields = np.dtype({"names": ["x"], "formats": [form], "offsets": [at + 1], "itemsize": matrix.shape[1]})
    matrix.view(fields)["x"][:, 0] = values


def _cut(matrix: NDArray[np.uint8], kept: NDArray[np.bool_] | None) -> list[bytes]:
    if kept is None:
        whole: list[bytes] = matrix.view(f"V{matrix.shape[1]}").ravel().tolist()
        return whole
    flat, ends = matrix[kept].tobytes(), np.cumsum(kept.sum(axis=1)).tolist()
    return [flat[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
