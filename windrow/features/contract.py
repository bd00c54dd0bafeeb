"""What a model is given and what a request must bring: the one agreement between training, batch and online.

A contract is plain data. The online service reads it from a release and needs neither Ibis nor the
project's declarations. `canonical` is the only way from values to model input arrays, for ``fit``,
batch scoring and a request alike, so that missing is one thing everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import UnknownNameError
from windrow.features.agg import Aggregate
from windrow.features.place import External
from windrow.schema import Field, fingerprint

FORMAT = 1
MISSING_TEXT = "(missing)"

Frame = dict[str, NDArray[Any]]


class Lookup(msgspec.Struct, frozen=True, omit_defaults=True):
    """One group read by entity key.

    Attributes
    ----------
    group
        Name with version, such as ``card_profile_v1``.
    keys
        Key of the group -> request field that holds it, in the order of the entity's keys; none for a
        group that is the same for everybody.
    columns
        Value name in the view -> column of the group.
    dtypes
        Value name in the view -> dtype.
    ttl
        Microseconds, or None.
    stored
        Keys of the group that are found through another group: what `keys` names for them is a value of
        another look-up, as it was known at the row's time.
    aggregate
        What to compute from events when the group is one of aggregates; `columns` name its features.
    external
        Where the rows are when the group is read in place.
    """

    group: str
    fingerprint: str
    keys: dict[str, str]
    columns: dict[str, str]
    dtypes: dict[str, str]
    ttl: int | None = None
    stored: tuple[str, ...] = ()
    aggregate: Aggregate | None = None
    external: External | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The request fields among `keys`."""
        return tuple(name for key, name in self.keys.items() if key not in self.stored)

    @property
    def through(self) -> tuple[str, ...]:
        """The values of other look-ups among `keys`."""
        return tuple(self.keys[key] for key in self.stored)

    @property
    def references(self) -> dict[str, str]:
        """Key of the group -> ``<field>`` or ``stored.<value>``, so that the two never meet."""
        return {key: f"stored.{name}" if key in self.stored else name for key, name in self.keys.items()}

    @property
    def current(self) -> tuple[str, ...]:
        """The request fields that aggregates read of the request's own event."""
        return () if self.aggregate is None else self.aggregate.current(self.columns.values())


class OnDemand(msgspec.Struct, frozen=True):
    """One function of the request and of stored values.

    `inputs` maps parameters to ``request.<field>``, ``stored.<value>`` or ``event_time``.
    """

    name: str
    function: str
    dtype: str
    inputs: dict[str, str]
    dtypes: dict[str, str]


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What a view promises.

    Attributes
    ----------
    request
        Fields that a request must bring; their dtypes are checked, never guessed.
    optional
        Fields of a spine row that no feature uses: accepted, checked, logged.
    features
        The model's inputs, in order; ``nullable=False`` refuses missing values.
    on_demand_source
        Text of the module of the on-demand functions ("" without any).
    """

    view: str
    spine: str
    request: tuple[Field, ...]
    optional: tuple[Field, ...]
    lookups: tuple[Lookup, ...]
    on_demand: tuple[OnDemand, ...]
    features: tuple[Field, ...]
    on_demand_source: str = ""
    format: int = FORMAT

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return tuple(f.name for f in self.features)

    @property
    def numeric(self) -> bool:
        """Whether every input is a number, so that the vector is one float32 matrix."""
        return all(f.dtype != "string" for f in self.features)

    @property
    def timed(self) -> bool:
        """Whether a request must say its event time: its own event may be among those that are aggregated."""
        return any(k.aggregate is not None and k.aggregate.source == f"sources/{self.spine}" for k in self.lookups)

    @property
    def fingerprint(self) -> str:
        """Changes when anything that decides a vector changes."""
        return fingerprint(self)


def stages(lookups: Sequence[Lookup]) -> list[list[Lookup]]:
    """Return look-ups in the order in which they can be read: those of a stage need only values of earlier ones.

    Examples
    --------
    >>> card = Lookup("card_v1", "", {"card": "card"}, {"card.region": "region"}, {"card.region": "int64"})
    >>> region = Lookup("region_v1", "", {"region": "card.region"}, {"rate": "rate"}, {"rate": "float64"}, stored=("region",))
    >>> [[lookup.group for lookup in stage] for stage in stages([region, card])]
    [['card_v1'], ['region_v1']]
    """
    made, waiting, found = list[list[Lookup]](), list(lookups), set[str]()
    while waiting:
        ready = [lookup for lookup in waiting if found.issuperset(lookup.through)]
        if not ready:
            wanted = sorted({name for lookup in waiting for name in lookup.through} - found)
            raise UnknownNameError("value", wanted[0], sorted(found), where=f"the key of group {waiting[0].group!r}")
        waiting = [lookup for lookup in waiting if lookup not in ready]
        found.update(name for lookup in ready for name in lookup.columns)
        made.append(ready)
    return made


def canonical(contract: Contract, columns: Mapping[str, NDArray[Any] | Sequence[Any]]) -> Frame:
    """Return the model's input arrays, by name and in the contract's order.

    Parameters
    ----------
    contract
        Names the inputs and their dtypes.
    columns
        Feature -> values of length n; more columns than needed are ignored.

    Returns
    -------
    dict of numpy.ndarray
        float32 of shape (n,) with NaN for missing, or object (str) of shape (n,) with
        ``"(missing)"`` for missing.

    Examples
    --------
    >>> c = Contract(view="v", spine="s", request=(), optional=(), lookups=(), on_demand=(),
    ...              features=(Field("x", "int64"), Field("plan", "string")))
    >>> canonical(c, {"plan": ["a", None], "x": [1, None]})
    {'x': array([ 1., nan], dtype=float32), 'plan': array(['a', '(missing)'], dtype=object)}
    """
    return {f.name: canonical_column(f.dtype, columns[f.name]) for f in contract.features}


def canonical_column(dtype: str, values: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    """Return one column in the form that models see: float32 or object (str)."""
    if dtype == "string":
        return text(values)
    return numbers(values).astype(np.float32)


def numbers(values: NDArray[Any] | Sequence[Any]) -> NDArray[np.float64]:
    """Return float64 of shape (n,), NaN for None; times become seconds since 1970.

    Examples
    --------
    >>> numbers([1, None, True])
    array([ 1., nan,  1.])
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        seconds = array.astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(array), np.nan, seconds)
    return array.astype(np.float64)


def text(values: NDArray[Any] | Sequence[Any]) -> NDArray[np.object_]:
    """Return str objects of shape (n,), ``"(missing)"`` for None and NaN.

    Examples
    --------
    >>> text(["a", None])
    array(['a', '(missing)'], dtype=object)
    """
    array = np.empty(len(values), dtype=object)
    array[:] = [v if isinstance(v, str) else MISSING_TEXT for v in values]
    return array


def on_demand_input(dtype: str, values: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    """Return what an on-demand function is given: float64, object (str) or datetime64[us], shape (n,).

    Examples
    --------
    >>> on_demand_input("timestamp", [0, None])
    array(['1970-01-01T00:00:00.000000',                        'NaT'],
          dtype='datetime64[us]')
    """
    if dtype == "string":
        return text(values)
    if dtype != "timestamp":
        return numbers(values)
    array = np.asarray(values)
    if array.dtype.kind == "M":
        return array.astype("datetime64[us]")
    return np.array([None if v is None else int(v) for v in values], dtype="datetime64[us]")


def matrix(frame: Frame) -> NDArray[np.float32]:
    """Return the columns of an all-number frame as one float32 array of shape (n, features), C order."""
    return np.ascontiguousarray(np.array(list(frame.values()), dtype=np.float32).T)
