"""Small frozen values that every room speaks of: entities, fields, dtypes, statuses, fingerprints, keys of answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec

from windrow.errors import DeclarationError, UnknownNameError

DTYPES = ("bool", "int32", "int64", "float32", "float64", "string", "timestamp")
KEY_DTYPES = ("int32", "int64", "string")

EVENT_TIME, KNOWN_AT, SEQ = "event_time", "known_at", "_seq"
SYSTEM_COLUMNS = (EVENT_TIME, KNOWN_AT, SEQ)

RESERVED_NAMES = ("ingest", "requests", "openapi.json", "services", "lineage", "login", "logout")
_pack = msgspec.msgpack.Encoder().encode
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Status(IntEnum):
    """What is known of one feature value at one time."""

    PRESENT = 0
    NULL = 1
    NOT_FOUND = 2
    EXPIRED = 3
    UNAVAILABLE = 4  # of a request only: the store that has it did not answer


class Field(msgspec.Struct, frozen=True):
    """One named, typed value.

    Examples
    --------
    >>> Field("amount", "float64")
    Field(name='amount', dtype='float64', nullable=True)
    """

    name: str
    dtype: str
    nullable: bool = True


class PredictionKey(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Everything that decides what a model says of one row, or how that is explained.

    What is decided beside the model (policies on missing values, experiments, the statuses of values) is decided anew
    for every request; that a release was made with other policies changes its `content`.

    Attributes
    ----------
    release
        Its id.
    content
        Fingerprint of all that the release is; "" where its id can mean one release only.
    asked
        ``prediction``, or the kind of explanation.
    vector
        What the model is given, after features were read and computed: a changed feature is another vector.

    Examples
    --------
    >>> one = PredictionKey("churn-1", "", "prediction", [24.0, "gold"])
    >>> one.packed == PredictionKey("churn-1", "", "prediction", [24.5, "gold"]).packed
    False
    """

    release: str
    content: str
    asked: str
    vector: Sequence[Any]

    @property
    def packed(self) -> bytes:
        """Bytes that are equal for equal keys only."""
        return _pack(self)

    @property
    def digest(self) -> bytes:
        """SHA-256 of `packed`: 32 bytes, for where keys are to be short."""
        return hashlib.sha256(_pack(self)).digest()


@dataclass(frozen=True, init=False)
class Entity:
    """A thing that predictions are about, found by one or more key fields.

    Parameters
    ----------
    name
        What it is called, such as ``"card"``.
    **keys
        Key names with their dtypes (``int32``, ``int64`` or ``string``).

    Examples
    --------
    >>> Entity("card", card_id="int64").key_names
    ('card_id',)
    """

    name: str
    keys: tuple[Field, ...]

    def __init__(self, name: str, /, **keys: str) -> None:
        check_name("entity", name)
        if not keys:
            raise DeclarationError(
                f"Entity {name!r} has no key",
                next_step=f'write Entity("{name}", {name}_id="int64"); what is the same for everybody needs no entity: @feature_group()',
            )
        for dtype in keys.values():
            check_dtype(dtype, where=f"entity {name!r}", allowed=KEY_DTYPES)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "keys", tuple(Field(key, dtype, nullable=False) for key, dtype in keys.items()))

    @classmethod
    def keyless(cls) -> Entity:
        """Return the entity without keys, of which there is one: what is the same for everybody at a time.

        Examples
        --------
        >>> Entity.keyless()
        Entity(name='everybody', keys=())
        """
        made = object.__new__(cls)
        object.__setattr__(made, "name", "everybody")
        object.__setattr__(made, "keys", ())
        return made

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the key fields, in order."""
        return tuple(key.name for key in self.keys)


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can name a `kind`, in lower snake case and not reserved.

    Raises
    ------
    DeclarationError
        If the name is reserved or not lower snake case.

    Examples
    --------
    >>> check_name("service", "fraud")
    'fraud'
    """
    if name in RESERVED_NAMES:
        raise DeclarationError(
            f"{kind} cannot be called {name!r}: the name is part of the HTTP interface",
            next_step=f"choose a name other than {', '.join(RESERVED_NAMES)}",
        )
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{kind} name {name[:80]!r} is not lower snake case",
            next_step="use letters a-z, digits and underscores, starting with a letter (63 at most)",
        )
    return name


def check_dtype(dtype: str, *, where: str, allowed: tuple[str, ...] = DTYPES) -> str:
    """Return `dtype` if it is one of `allowed`, else raise with the closest one.

    Examples
    --------
    >>> check_dtype("int64", where="source 'payments'")
    'int64'
    """
    if dtype not in allowed:
        raise UnknownNameError("dtype", str(dtype), allowed, where=where)
    return dtype


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that change when `value` (JSON-like) changes.

    The recipe (format 1): SHA-256 of msgspec's JSON with sorted keys, first 64 bits.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    encoded = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:16]
