"""What an online store knows of its groups, and under which bytes everything is kept (format 2).

``00 00`` + one letter (+ a name) is the store's own: format, version, groups, counts, marks. Everything else
is rows: four bytes that name a generation of a group, then the packed key. A bulk load fills a new generation
and switches by rewriting the one `Group` that points to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from windrow.errors import StoreError, listed
from windrow.stores.online.rows import pack

FORMAT = 2
OWN = b"\x00\x00"
FORMAT_KEY = OWN  # the same in every format
VERSION_KEY = OWN + b"v"  # changes when a group is declared, switched or moved: what readers remember holds until then
LAST_ID_KEY = OWN + b"i"
RETIRED_KEY = OWN + b"r"  # generations that no group points to, still to be erased
LOADS_KEY = OWN + b"l"  # groups with a bulk load under way
_FIRST_PREFIX = 0x01000000

_LONGEST_NAME = 200


class Group(msgspec.Struct, array_like=True):
    """Directory entry of one group.

    Attributes
    ----------
    id
        The generation that readers see; 0 before there is one.
    columns, key
        Names of the values; names of the types of the key's parts (empty until the first row).
    loading
        The generation that a bulk load is filling, or 0; rows written meanwhile go to both.
    touched
        When the bulk load was last heard of, UTC microseconds of the wall clock.
    """

    id: int
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    loading: int = 0
    touched: int = 0

    def check_columns(self, name: str, columns: Sequence[str]) -> None:
        """Raise if `columns` are not the group's."""
        if self.columns != tuple(columns):
            raise StoreError(
                f"group {name!r} is stored with columns {listed(self.columns)}, but {listed(columns)} were given",
                next_step="raise the group's version",
            )

    def joined(self, name: str, types: Sequence[str]) -> bool:
        """Take over the key types of the first row, or raise if they differ; return whether they are new."""
        if types and self.key and tuple(types) != self.key:
            given = ", ".join(types)
            raise StoreError(
                f"group {name!r} has a key of ({', '.join(self.key)}), but was given ({given})",
                next_step="cast the key to the entity's dtypes",
            )
        new = bool(types) and not self.key
        self.key = self.key or tuple(types)
        return new

    @property
    def prefix(self) -> bytes:
        """What the keys of the rows that readers see begin with."""
        return prefix(self.id)

    @property
    def generations(self) -> tuple[int, ...]:
        """Where a row that is written now has to go."""
        return (self.id, self.loading) if self.loading else (self.id,)


unpack_group = msgspec.msgpack.Decoder(Group).decode


def group_key(name: str) -> bytes:
    """Return the key of a group's directory entry."""
    return OWN + b"g" + name.encode()


def count_key(generation: int) -> bytes:
    """Return the key of the number of entities in a generation."""
    return OWN + b"n" + generation.to_bytes(4, "big")


def mark_key(name: str) -> bytes:
    """Return the key of a mark, such as a stream's position."""
    return OWN + b"m" + _short(name.encode())


def seen_prefix(name: str) -> bytes:
    """Return what the keys of event ids of one stream begin with."""
    return OWN + b"s" + hashlib.sha256(name.encode()).digest()[:8]


def due_prefix(name: str) -> bytes:
    """Return what the keys of the same ids by the time they may be forgotten begin with."""
    return OWN + b"t" + hashlib.sha256(name.encode()).digest()[:8]


def seen_id(id: str | int | bytes) -> bytes:
    """Return the bytes of an event's id; those of different types differ."""
    return _short(pack(id))


def prefix(generation: int) -> bytes:
    """Return what the keys of a generation's rows begin with."""
    return (_FIRST_PREFIX + generation).to_bytes(4, "big")


NOWHERE = prefix(0)  # no generation has the number 0


def _short(name: bytes) -> bytes:
    return name if len(name) <= _LONGEST_NAME else b"\xff" + hashlib.sha256(name).digest()
