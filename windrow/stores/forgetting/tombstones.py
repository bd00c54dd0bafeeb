"""Tombstones: what is kept of a forgotten entity, so that it does not come back with the next load of a source.

Kept is a hash of the key with a salt of this metadata store, the time, and how many rows went from where.
Who holds the store can still try all keys, where keys are few: the hash hides, it does not encrypt.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.schema import KNOWN_AT

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.stores.metadata import Metadata


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """A forgotten entity.

    Attributes
    ----------
    hash
        SHA-256 of salt, entity and key.
    at
        When it was first forgotten, UTC microseconds of the wall clock.
    rows
        Where -> how many rows went: table keys, ``datasets/<service>/<id>``, ``sinks/<service>``, ``online/<group>``.
    columns
        Table key -> choices of columns that hold the key there.
    """

    entity: str
    hash: str
    salt: str
    at: int
    rows: dict[str, int]
    columns: dict[str, list[list[str]]]


def tombstones(metadata: Metadata) -> list[Tombstone]:
    """Return every tombstone, oldest first."""
    return [
        msgspec.convert({**row.document, "entity": row.entity, "hash": row.hash, "salt": row.salt}, Tombstone)
        for row in metadata.tombstones()
    ]


def bury(
    metadata: Metadata, entity: str, key: Sequence[Any], *, rows: dict[str, int], columns: dict[str, list[list[str]]]
) -> Tombstone:
    """Write the tombstone of an entity; what an earlier one counted is added to.

    Written twice: before anything is erased, so that what a killed run has erased is explained, and with the counts.
    """
    known = tombstones(metadata)
    salt = known[0].salt if known else secrets.token_hex(16)
    made = hash_key(entity, key, salt)
    before = next((stone for stone in known if stone.hash == made), None)
    counted = dict(before.rows) if before else {}
    for place, count in rows.items():
        counted[place] = counted.get(place, 0) + count
    at = time.time_ns() // 1000
    metadata.add_tombstone(entity, made, salt, {"at": at, "rows": counted, "columns": columns})
    return Tombstone(entity=entity, hash=made, salt=salt, at=at, rows=counted, columns=columns)


def hash_key(entity: str, key: Sequence[Any], salt: str) -> str:
    """Return the hash that stands for a key; 7 and "7" are one.

    Examples
    --------
    >>> hash_key("card", [7], "s") == hash_key("card", ["7"], "s") != hash_key("card", [7], "t")
    True
    """
    text = msgspec.json.encode([salt, entity, *map(str, key)])
    return hashlib.sha256(text).hexdigest()


def without_forgotten(rows: pa.Table, table: str, metadata: Metadata) -> pa.Table:
    """Return `rows` without those of entities that were forgotten since these became known.

    A later row stays: the entity has come back by itself.

    Parameters
    ----------
    rows
        On their way to the table of this key; with ``known_at`` where they have it.
    """
    import pyarrow as pa

    stones = [stone for stone in tombstones(metadata) if table in stone.columns]
    if not stones:
        return rows
    known = rows.column(KNOWN_AT).cast(pa.int64()).to_pylist() if KNOWN_AT in rows.column_names else [0] * rows.num_rows
    kept = [True] * rows.num_rows
    for entity, place in _places(stones, table, rows.column_names):
        until = {stone.hash: stone.at for stone in stones if stone.entity == entity}
        hashes = _hashes(rows.select(list(place)), entity, stones[0].salt)
        kept = [k and at > until.get(h, at - 1) for k, h, at in zip(kept, hashes, known, strict=True)]
    return rows.filter(pa.array(kept)) if not all(kept) else rows


def _places(stones: Sequence[Tombstone], table: str, names: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    found = {(stone.entity, tuple(place)): None for stone in stones for place in stone.columns[table]}
    return [(entity, place) for entity, place in found if set(place) <= set(names)]


def _hashes(keys: pa.Table, entity: str, salt: str) -> list[str]:
    made: dict[tuple[Any, ...], str] = {}
    found = list(zip(*(column.to_pylist() for column in keys.columns), strict=True))
    for key in found:
        if key not in made:
            made[key] = hash_key(entity, key, salt)
    return [made[key] for key in found]
