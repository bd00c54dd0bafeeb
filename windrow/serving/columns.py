"""Many vectors made column by column: the short way where every value is there and is a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import Contract
from windrow.stores.online.rows import Block
from windrow.stores.online.store import Row

if TYPE_CHECKING:
    from windrow.serving.transformer import Store, StoredRead, ValueFunction

Found = list[Block | list[Row | None]]
_NO_NUMBER = ("string", "timestamp")


class Columns:
    """Makes the matrix of a contract that has numbers only and whose stored values are all read at once.

    Every place of a row (stored values, then the request's, then computed ones) is a line of an array.

    Parameters
    ----------
    contract
        What the vectors are of.
    reads, functions
        As the transformer prepared them.
    places
        Where each value stands in a row.
    """

    def __init__(
        self,
        contract: Contract,
        reads: Sequence[StoredRead],
        functions: Sequence[ValueFunction],
        places: Mapping[str, int],
    ) -> None:
        self._reads = reads
        stored = sum(len(read.columns) for read in reads)
        computed = stored + len(contract.request)
        self._pick = [places[field.name] for field in contract.features]
        needed = {*self._pick, *(place for function in functions for place in function.places)}
        request = [(stored + i, field) for i, field in enumerate(contract.request) if stored + i in needed]
        self._request = [(place, field.name) for place, field in request]
        self._functions = [(computed + i, function) for i, function in enumerate(functions)]
        self._lines = computed + len(functions)
        numbers = contract.numeric and all(function.numeric for function in functions)
        self.possible = numbers and not any(field.dtype in _NO_NUMBER for _, field in request)

    def read(self, online: Store, rows: Sequence[Mapping[str, Any]]) -> Found:
        """Return what is stored for the rows, group by group."""
        return online.read_blocks([(read.group, [read.key(row) for row in rows]) for read in self._reads])

    def matrix(
        self, found: Found, rows: Sequence[Mapping[str, Any]], times: Sequence[int]
    ) -> NDArray[np.float32] | None:
        """Return the vectors, float32 of shape (rows, features); None where a value is missing, expired or no number."""
        columns, at, now = np.empty((self._lines, len(rows))), 0, np.array(times, np.int64)
        for read, block in zip(self._reads, found, strict=True):
            if isinstance(block, list) or not read.holds(block, now):
                return None
            columns[at : at + len(read.columns)] = block.values.T[read.places]
            at += len(read.columns)
        for place, name in self._request:
            columns[place] = [row[name] for row in rows]
        for place, function in self._functions:
            function.fill(columns, place)
        with np.errstate(over="ignore"):  # what is too large for float32 is no number
            matrix = columns[self._pick].T.astype(np.float32, order="C")
        return matrix if np.isfinite(matrix).all() else None


def by_row(found: Found) -> list[Row | None]:
    """Return what was read group by group in the order of the rows, each with one part per group."""
    parts = [part.rows() if isinstance(part, Block) else part for part in found]
    return [part for row in zip(*parts, strict=True) for part in row]
