"""How every online store keeps keys and rows as bytes, and who wins when two rows meet.

A key is the msgpack of its tuple, so that 1, ``"1"`` and ``b"1"`` are three keys. A row is the msgpack of
`Row`, its three times always in nine bytes each, so that ages are compared without reading values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import StoreError, listed
from windrow.stores.online.store import KEY_TYPES, TXN_ROWS, Key, Row

_VALUES = frozenset({float, int, str, bool, bytes, type(None)})
_LONGEST_KEY = 400  # bytes; LMDB takes 511
_IMPOSSIBLE = b"\xfe"
_INT64, _ARRAY_OF_4, _FLOAT64 = 0xD3, 0x94, 0xCB
_SHORT = 15  # values that msgpack counts in one byte; it takes three for more
_AGE = Struct(">BBqBqBq")

# (event_time, known_at, seq) of a packed row: the greater one wins.
age: Callable[[bytes], tuple[int, ...]] = Struct(">xxqxqxq").unpack_from

_AGES = np.dtype({"names": ["event", "known", "seq"], "formats": [">i8"] * 3, "offsets": [2, 11, 20], "itemsize": 28})
_head = itemgetter(slice(_AGES.itemsize))

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.decode
unpack_row = msgspec.msgpack.Decoder(Row).decode


class Block(NamedTuple):
    """Rows of one group that are all there and have nothing but floats, as arrays; int64 and float64, big-endian.

    Attributes
    ----------
    event_times, known_ats, seqs
        Of shape (rows,), UTC microseconds and the write order.
    values
        Of shape (rows, columns of the group).
    """

    event_times: NDArray[Any]
    known_ats: NDArray[Any]
    seqs: NDArray[Any]
    values: NDArray[Any]

    def rows(self) -> list[Row]:
        """Return the same as rows."""
        times = (part.tolist() for part in (self.event_times, self.known_ats, self.seqs))
        return [Row(*row) for row in zip(*times, map(tuple, self.values.tolist()), strict=True)]


class Packed(NamedTuple):
    """Rows ready to be stored.

    Attributes
    ----------
    types
        Names of the types of the key's parts (``int``, ``str``); empty where there is no row.
    keys, rows
        Packed keys, each once, and the packed row of each; keys that ascend are faster to store.
    """

    types: tuple[str, ...]
    keys: list[bytes]
    rows: list[bytes]


def pack_key(key: Key) -> bytes:
    """Return the bytes of a key; of one that no store can hold, bytes under which nothing is stored.

    Examples
    --------
    >>> pack_key((1,)) == pack_key(("1",))
    False
    """
    try:
        packed = pack(key)
    except (OverflowError, UnicodeEncodeError, TypeError):
        return _IMPOSSIBLE
    # A packed tuple never begins with 0xff, so a digest cannot meet a short key.
    return packed if len(packed) <= _LONGEST_KEY else b"\xff" + hashlib.sha256(packed).digest()


def pack_keys(keys: Sequence[Key]) -> list[bytes]:
    """Return the bytes of each key, as `pack_key` does, quickly where none is special.

    Examples
    --------
    >>> pack_keys([(1,), (2**70,)]) == [pack_key((1,)), pack_key((2**70,))]
    True
    """
    try:
        packed = list(map(pack, keys))
    except (OverflowError, UnicodeEncodeError, TypeError):
        return list(map(pack_key, keys))
    return packed if max(map(len, packed), default=0) <= _LONGEST_KEY else list(map(pack_key, keys))


def pack_row(row: Row) -> bytes:
    """Return the bytes of a row.

    Examples
    --------
    >>> unpack_row(pack_row(Row(5, 6, 7, (0.5, None))))
    Row(event_time=5, known_at=6, seq=7, values=(0.5, None))
    """
    event_time, known_at, seq, values = row
    return _AGE.pack(_ARRAY_OF_4, _INT64, event_time, _INT64, known_at, _INT64, seq) + pack(values)


def as_block(rows: Sequence[bytes | None], width: int) -> Block | None:
    """Return packed rows of `width` values as one block; None where a row is missing or a value is no float.

    Floats take nine bytes each, so that such rows are as long as each other and are read without being unpacked.

    Examples
    --------
    >>> rows = [pack_row(Row(5, 6, n, (0.5, float(n)))) for n in (1, 2)]
    >>> as_block(rows, 2).values.tolist(), as_block([*rows, pack_row(Row(5, 6, 3, (0.5, None)))], 2)
    ([[0.5, 1.0], [0.5, 2.0]], None)
    """
    layout = _block_layout(width)
    if not width or None in rows or set(map(len, rows)) != {layout.itemsize}:  # type: ignore[arg-type]  # no None
        return None
    found = np.frombuffer(b"".join(rows), layout)  # type: ignore[arg-type]
    values = found["values"]
    # The first value begins where a row's head ends, each float ends where the next one begins: all are floats, or one says not.
    if (values["type"] != _FLOAT64).any():
        return None
    return Block(found["event"], found["known"], found["seq"], values["value"])


def block_or_rows(
    group: str, types: Sequence[str], width: int, keys: Sequence[Key], raws: Sequence[bytes | None]
) -> Block | list[Row | None]:
    """Return what was found under `keys` of a group whose keys have `types`: a block where it can be, else row by row."""
    block = as_block(raws, width)
    if block is not None:
        return block
    for key, raw in zip(keys, raws, strict=True):
        if raw is None:
            check_key(group, types, key)
    return [None if raw is None else unpack_row(raw) for raw in raws]


@lru_cache(maxsize=256)
def _block_layout(width: int) -> np.dtype[Any]:
    values = np.dtype([("type", "u1"), ("value", ">f8")])
    start = _AGES.itemsize + (1 if width <= _SHORT else 3)
    return np.dtype(
        {
            "names": ["event", "known", "seq", "values"],
            "formats": [">i8", ">i8", ">i8", (values, (width,))],
            "offsets": [2, 11, 20, start],
            "itemsize": start + width * values.itemsize,
        }
    )


def are_newer(rows: Sequence[bytes], old: Sequence[bytes]) -> list[bool]:
    """Return of each packed row whether it is newer than the one it would replace, as `age` compares them.

    Examples
    --------
    >>> old = pack_row(Row(5, 6, 7, (0.5,)))
    >>> are_newer([pack_row(Row(5, 6, 8, ())), pack_row(Row(5, -6, 8, ()))], [old, old])
    [True, False]
    """
    new, held = (np.frombuffer(b"".join(map(_head, side)), _AGES) for side in (rows, old))
    answer, equal = np.zeros(len(new), np.bool_), np.ones(len(new), np.bool_)
    for name in ("event", "known", "seq"):
        answer |= equal & (new[name] > held[name])
        equal &= new[name] == held[name]
    newer: list[bool] = answer.tolist()
    return newer


def packed_rows(group: str, columns: Sequence[str], rows: Iterable[tuple[Key, Row]]) -> Packed:
    """Return the newest row of each key, packed, after checking every key and value.

    Raises
    ------
    StoreError
        If a key or value has a type that no online store keeps, or a row has the wrong width.

    Examples
    --------
    >>> made = packed_rows("g_v1", ["x"], [((1,), Row(5, 5, 1, (0.5,))), ((1,), Row(4, 9, 2, (0.4,)))])
    >>> made.types, [unpack_row(row).values for row in made.rows]
    (('int',), [(0.5,)])
    """
    newest: dict[Key, Row] = {}
    types: tuple[type, ...] = ()
    for key, row in rows:
        types = types or check_key_types(group, tuple(map(type, key)))
        if tuple(map(type, key)) != types:
            raise wrong_key(group, [t.__name__ for t in types], key)
        check_values(group, columns, row)
        if key not in newest or newest[key][:3] < row[:3]:
            newest[key] = row
    items = sorted((pack_key(key), stored_row(group, row)) for key, row in newest.items())
    if any(key == _IMPOSSIBLE for key, _ in items):
        raise impossible_key(group)
    return Packed(tuple(t.__name__ for t in types), [key for key, _ in items], [row for _, row in items])


def packed_batches(group: str, columns: Sequence[str], rows: Iterable[tuple[Key, Row]]) -> Iterator[Packed]:
    """Yield `packed_rows` of at most `TXN_ROWS` rows at a time: one transaction each.

    Examples
    --------
    >>> rows = (((n,), Row(5, 5, 1, (0.5,))) for n in range(TXN_ROWS + 1))
    >>> [len(batch.keys) for batch in packed_batches("g_v1", ["x"], rows)]
    [20000, 1]
    """
    iterator = iter(rows)
    chunks = iter(lambda: list(islice(iterator, TXN_ROWS)), [])
    return (packed_rows(group, columns, chunk) for chunk in chunks)


def stored_row(group: str, row: Row) -> bytes:
    """Return the bytes of a row that is to be stored; raise if they are beyond what a store holds."""
    try:
        return pack_row(row)
    except (OverflowError, UnicodeEncodeError, StructError):
        raise StoreError(
            f"group {group!r}: a value or time is beyond 64 bits or not valid text",
            next_step="cast the values to the declared dtypes",
        ) from None


def stored_key(group: str, types: Sequence[str], key: Key) -> bytes:
    """Return the bytes of a key that is to be stored in a group whose keys have `types` (none yet: any)."""
    given = tuple(t.__name__ for t in check_key_types(group, tuple(map(type, key))))
    if types and given != tuple(types):
        raise wrong_key(group, types, key)
    packed = pack_key(key)
    if packed == _IMPOSSIBLE:
        raise impossible_key(group)
    return packed


def check_key_types(group: str, types: tuple[type, ...]) -> tuple[type, ...]:
    """Return the types of a key's parts if a store keeps such keys: int or str (True is no int), none where a group has no key."""
    if any(t not in KEY_TYPES.values() for t in types):
        named = ", ".join(t.__name__ for t in types)
        raise StoreError(
            f"group {group!r} cannot have a key of ({named})",
            exists="Key parts are int or str",
            next_step="cast the key to the entity's dtypes",
        )
    return types


def check_key(group: str, types: Sequence[str], key: Key) -> None:
    """Raise if a key that was asked for has other types than the group's keys: ``"1"`` is never ``1``."""
    if types and [type(part).__name__ for part in key] != list(types):
        raise wrong_key(group, types, key)


def wrong_key(group: str, types: Sequence[str], key: Key) -> StoreError:
    """Return the error of a key whose types are not those of the group's keys."""
    given = ", ".join(type(part).__name__ for part in key)
    return StoreError(
        f"group {group!r} has a key of ({', '.join(types)}), but was given ({given})",
        next_step="cast the key to the entity's dtypes",
    )


def impossible_key(group: str) -> StoreError:
    """Return the error of a key that is beyond what any store holds."""
    return StoreError(
        f"group {group!r}: a key is beyond 64 bits or not valid text",
        next_step="cast the key to the entity's dtypes",
    )


def check_values(group: str, columns: Sequence[str], row: Row) -> None:
    """Raise if a row has not one value per column, each of a type that every store keeps."""
    if len(row.values) != len(columns):
        raise StoreError(
            f"group {group!r} has {len(columns)} columns, but a row has {len(row.values)} values",
            next_step="give one value per column",
        )
    if _VALUES.issuperset(map(type, row.values)):
        return
    wrong = [f"{c} ({type(v).__name__})" for c, v in zip(columns, row.values, strict=True) if type(v) not in _VALUES]
    raise StoreError(
        f"group {group!r}: values of {listed(wrong)} cannot be stored",
        exists="The store keeps float, int, str, bool, bytes and None; times as UTC microseconds",
        next_step="convert them, for example with .to_pylist()",
    )
