"""The online store: the newest row of each entity, read in microseconds.

`OnlineStore` is what every backend promises; `open_online` chooses the backend by URL. Rows that reach a
backend are checked here, so that all of them keep and refuse the same keys and values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import msgspec

from windrow.errors import SettingsError, StoreError, listed

TXN_ROWS = 20_000  # a larger transaction keeps the next writer waiting for seconds
NEXT_STEP = "run `windrow run SERVICE`, which fills the online store"

KEY_TYPES: dict[str, type] = {"int": int, "str": str}
_VALUES = frozenset({float, int, str, bool, type(None)})

Key = tuple[Any, ...]


class Row(NamedTuple):
    """The newest values of one entity.

    Attributes
    ----------
    event_time, known_at
        UTC microseconds.
    seq
        Write order of the row in its table.
    values
        One per column: float, int, str, bool or None; times as UTC microseconds.
    """

    event_time: int
    known_at: int
    seq: int
    values: tuple[Any, ...]


class OnlineStore(Protocol):
    """What windrow needs of an online store; keys are tuples of int or str, in the order of the entity's keys."""

    def write(self, group: str, columns: Sequence[str], rows: Iterable[tuple[Key, Row]]) -> int:
        """Store rows by key, unless a row at least as new (event_time, known_at, seq) is there; return rows stored."""
        ...

    def columns(self, group: str) -> tuple[str, ...] | None:
        """Return the column names of a group's values, or None if nothing was ever written."""
        ...

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key), all as of one moment."""
        ...

    def count(self, group: str) -> int:
        """Return the number of entities of a group."""
        ...

    def close(self) -> None:
        """Give back files, locks and connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def open_online(url: str, *, write: bool = False) -> OnlineStore:
    """Open the online store that `url` names.

    Parameters
    ----------
    url
        ``lmdb:///folder``.
    write
        Whether rows will be written; readers never block and are never blocked.

    Raises
    ------
    SettingsError
        If no backend has the URL's scheme.
    NotFoundError
        If a reader comes before the first write.
    StoreError
        If another process is writing, or the files cannot be used.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> with open_online(f"lmdb://{mkdtemp()}/online", write=True) as store:
    ...     store.write("card_v1", ["limit"], [((7,), Row(10, 10, 1, (500.0,)))])
    ...     store.read([("card_v1", (7,)), ("card_v1", (8,))])
    1
    [Row(event_time=10, known_at=10, seq=1, values=(500.0,)), None]
    """
    scheme, found, path = url.partition("://")
    if not found or scheme != "lmdb" or not path.startswith("/"):
        raise SettingsError(
            "WINDROW_ONLINE names no online store",
            exists="The schemes are 'lmdb'",
            next_step="write lmdb:///absolute/folder",
        )
    from windrow.stores.online_lmdb import LmdbStore

    return LmdbStore(Path(path), write=write)


pack = msgspec.msgpack.Encoder().encode


def newest_rows(group: str, columns: Sequence[str], rows: Iterable[tuple[Key, Row]]) -> dict[Key, Row]:
    """Return the newest row of each key, after checking every key and value.

    Raises
    ------
    StoreError
        If a key or value has a type that no online store keeps, or a row has the wrong width.

    Examples
    --------
    >>> newest_rows("g_v1", ["x"], [((1,), Row(5, 5, 1, (0.5,))), ((1,), Row(4, 9, 2, (0.4,)))])
    {(1,): Row(event_time=5, known_at=5, seq=1, values=(0.5,))}
    """
    newest: dict[Key, Row] = {}
    types: tuple[type, ...] = ()
    width = len(columns)
    for key, row in rows:
        types = types or check_key_types(group, tuple(map(type, key)))
        if tuple(map(type, key)) != types:
            raise wrong_key(group, types, key)
        if len(row.values) != width or not _VALUES.issuperset(map(type, row.values)):
            raise _wrong_values(group, columns, row)
        if key not in newest or newest[key][:3] < row[:3]:
            newest[key] = row
    return newest


def check_key_types(group: str, types: tuple[type, ...]) -> tuple[type, ...]:
    """Return the types of a key's parts if a store keeps such keys (int or str; True is no int)."""
    if not types or any(t not in KEY_TYPES.values() for t in types):
        named = ", ".join(t.__name__ for t in types)
        raise StoreError(
            f"group {group!r} cannot have a key of ({named})",
            exists="Key parts are int or str",
            next_step="cast the key to the entity's dtypes",
        )
    return types


def wrong_key(group: str, types: Sequence[type], key: Key) -> StoreError:
    """Return the error of a key whose types are not those of the group's keys."""
    have = ", ".join(t.__name__ for t in types)
    given = ", ".join(type(part).__name__ for part in key)
    return StoreError(
        f"group {group!r} has a key of ({have}), but was given ({given})",
        next_step="cast the key to the entity's dtypes",
    )


def _wrong_values(group: str, columns: Sequence[str], row: Row) -> StoreError:
    if len(row.values) != len(columns):
        return StoreError(
            f"group {group!r} has {len(columns)} columns, but a row has {len(row.values)} values",
            next_step="give one value per column",
        )
    wrong = [f"{c} ({type(v).__name__})" for c, v in zip(columns, row.values, strict=True) if type(v) not in _VALUES]
    return StoreError(
        f"group {group!r}: values of {listed(wrong)} cannot be stored",
        exists="The store keeps float, int, str, bool and None; times as UTC microseconds",
        next_step="convert them, for example with .to_pylist()",
    )
