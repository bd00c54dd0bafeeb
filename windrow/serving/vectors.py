"""The model's inputs for some rows, and what is known of each value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import Contract, Frame, canonical_column

UNKNOWN, OLD, AWAY = "unknown_entity", "expired", "store_away"
"""Why a vector is degraded: the names of the policies that say what becomes of it."""


class Vectors(msgspec.Struct, frozen=True, gc=False):
    """The model's inputs for n rows, and what is known of each value.

    Attributes
    ----------
    names
        The features, in the contract's order.
    matrix
        float32 of shape (n, features), or None where a feature is text.
    columns
        Arrays by name where a feature is text, else None; see `frame`.
    lists
        Each row as plain values, NaN for a missing number.
    finite
        Whether all values of a row are numbers, neither missing nor infinite.
    statuses
        Feature -> `Status` for each row.
    unknown
        Row -> names of the groups that have no row for an entity that the request names; rows without such a
        group are not in it.
    degraded
        Row -> why it is not what the release was trained for, of `UNKNOWN`, `OLD` and `AWAY`; whole rows are not in it.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.float32] | None
    columns: Frame | None
    lists: list[list[Any]]
    finite: list[bool]
    statuses: list[dict[str, int]]
    unknown: dict[int, tuple[str, ...]]
    degraded: dict[int, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self.lists)

    @property
    def frame(self) -> Frame:
        """Input arrays by name, as `canonical` makes them."""
        if self.matrix is None:
            return self.columns or {}
        return dict(zip(self.names, self.matrix.T, strict=True))

    def take(self, rows: Sequence[int]) -> Vectors:
        """Return those of some rows, in this order."""
        if len(rows) == len(self):
            return self
        chosen = list(rows)
        return Vectors(
            self.names,
            None if self.matrix is None else self.matrix[chosen],
            None if self.columns is None else {name: values[chosen] for name, values in self.columns.items()},
            [self.lists[i] for i in chosen],
            [self.finite[i] for i in chosen],
            [self.statuses[i] for i in chosen],
            {at: self.unknown[i] for at, i in enumerate(chosen) if i in self.unknown},
            {at: self.degraded[i] for at, i in enumerate(chosen) if i in self.degraded},
        )

    def rows(self) -> list[dict[str, float | str | None]]:
        """Return each row by name: floats, text as the model saw it, None for a missing number."""
        names = self.names
        whole = zip(self.lists, self.finite, strict=True)
        return [dict(zip(names, v if finite else _without_nan(v), strict=True)) for v, finite in whole]


def _without_nan(values: list[Any]) -> list[Any]:
    return [None if v != v else v for v in values]


def logged_vectors(contract: Contract, logged: Sequence[Mapping[str, Any]]) -> Vectors:
    """Return vectors by name, as the log has them, in the form in which the model was given them."""
    columns = {f.name: canonical_column(f.dtype, [row[f.name] for row in logged]) for f in contract.features}
    lists = [list(row) for row in zip(*(values.tolist() for values in columns.values()), strict=True)]
    matrix = np.column_stack(list(columns.values())) if contract.numeric else None
    nothing = [False] * len(lists)
    return Vectors(
        contract.feature_names, matrix, None if contract.numeric else columns, lists, nothing, [{}] * len(lists), {}
    )
