"""The life of a generation: begun by a bulk load, switched to or retired, erased later. All inside transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windrow.clock import SECOND
from windrow.errors import StoreError
from windrow.stores.online.directory import LAST_ID_KEY, LOADS_KEY, RETIRED_KEY, Group
from windrow.stores.online.rows import pack, unpack

if TYPE_CHECKING:
    from windrow.stores.online.transaction import Transaction

LEFT_ALONE = 3600 * SECOND  # a load that was not heard of for so long is dead


def new_generation(txn: Transaction) -> int:
    """Return a number that no generation had."""
    last = txn.value(LAST_ID_KEY)
    number: int = unpack(last) + 1 if last else 1
    txn.changes.values[LAST_ID_KEY] = pack(number)
    return number


def begin(txn: Transaction, group: str, columns: Sequence[str], *, now: int) -> int:
    """Begin a load of a group, made now if it is new; return the generation to fill. An earlier load ends."""
    retire(txn, group, txn.declare(group, columns).loading)
    entry = txn.entry(group)
    entry.loading, entry.touched = new_generation(txn), now
    txn.keep(group, entry)
    _list_loads(txn, [*_loads(txn), group])
    return entry.loading


def switch(txn: Transaction, group: str, generation: int) -> None:
    """Let readers see the generation that was loaded; the one they saw is erased later."""
    entry = txn.entry(group)
    check_loading(group, entry, generation)
    _erase_later(txn, entry.id)
    entry.id, entry.loading = generation, 0
    txn.keep(group, entry)
    _list_loads(txn, [name for name in _loads(txn) if name != group])


def retire(txn: Transaction, group: str, generation: int) -> None:
    """End the load that fills `generation`, if it is still under way; its rows are erased later."""
    entry = txn.entry(group)
    if generation and entry.loading == generation:
        _erase_later(txn, generation)
        entry.loading = 0
        txn.keep(group, entry)
        _list_loads(txn, [name for name in _loads(txn) if name != group])


def retire_dead(txn: Transaction, *, now: int) -> None:
    """Retire the loads whose process has not been heard of for an hour."""
    for group in _loads(txn):
        entry = txn.entry(group)
        if now - entry.touched > LEFT_ALONE:
            retire(txn, group, entry.loading)


def check_loading(group: str, entry: Group | None, generation: int) -> None:
    """Raise if the load that fills `generation` was superseded."""
    if entry is None or entry.loading != generation:
        raise StoreError(
            f"the bulk load of group {group!r} was superseded: another one began, or an entity was deleted meanwhile",
            next_step="load it again",
        )


def retired(raw: bytes | None) -> list[int]:
    """Return the generations to be erased, from the bytes under `RETIRED_KEY`."""
    return unpack(raw, type=list[int]) if raw else []


def _erase_later(txn: Transaction, generation: int) -> None:
    txn.changes.values[RETIRED_KEY] = pack([*retired(txn.value(RETIRED_KEY)), generation])


def _loads(txn: Transaction) -> list[str]:
    raw = txn.value(LOADS_KEY)
    return unpack(raw, type=list[str]) if raw else []


def _list_loads(txn: Transaction, groups: list[str]) -> None:
    txn.changes.values[LOADS_KEY] = pack(groups)
