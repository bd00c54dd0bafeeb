"""External feature groups: features that another system keeps, read where they are, joined point-in-time all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from windrow.clock import duration
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.group import FeatureGroup, life, unbound
from windrow.features.kinds import check_kind, check_version
from windrow.features.place import External, IbisTable, Parquet, Place, Postgres
from windrow.features.reference import Reference, declaring_package
from windrow.schema import SYSTEM_COLUMNS, Entity, check_dtype, check_name

if TYPE_CHECKING:
    import ibis.expr.types as ir

_EXAMPLE = (
    'Postgres(url_env="BANK_URL", table="limits"), Parquet("limits/*.parquet") or IbisTable("tables:bank", "limits")'
)


@dataclass(frozen=True)
class _Rows:
    """Stands where other groups have a function: the rows are there already."""

    name: str
    fields: dict[str, str]

    def __call__(self) -> ir.Table:
        return unbound(self.fields, f"external/{self.name}")


def external_group(
    name: str,
    entity: Entity,
    *,
    connect: Place,
    event_time: str,
    features: Mapping[str, str],
    known_at: str | None = None,
    delay: str | None = None,
    version: int = 1,
    columns: Mapping[str, str] | None = None,
    ttl: str | None = None,
    timezone: Literal["UTC"] | None = None,
    seq: str | None = None,
    online: bool = True,
    owner: str | None = None,
    description: str = "",
) -> FeatureGroup:
    """Declare a feature group whose rows another system keeps; nothing is copied, and every join stays point-in-time.

    Training and batch scoring read it in place, each time, for the keys and times of their rows. Online it is
    published for the keys in use only: those that the service's events and its recent requests name.

    Parameters
    ----------
    entity
        Its keys are columns of the table.
    connect
        `Postgres`, `Parquet` or `IbisTable`: where the rows are. Addresses and passwords are taken from the environment.
    event_time
        Column that says since when a row is true.
    features
        Feature -> dtype (``bool int32 int64 float32 float64 string timestamp``).
    known_at
        Column that says when a row could be known; else its event time plus `delay` (such as ``"1d"``).
    columns
        Key or feature -> column of the table, where it has another name there.
    ttl
        Age after which values count as expired.
    timezone
        ``"UTC"`` if the table's times have no zone and are UTC; without it such times are refused.
    seq
        Whole-number column that grows with every write: of rows with equal keys and times the greatest wins.

    Returns
    -------
    FeatureGroup
        Used like any other, except that it is never materialised into the lake. A row that is changed there in
        place changes the past here as well: `known_at` keeps an answer the same only in a table that is added to.

    Raises
    ------
    DeclarationError
        When a name, dtype or time cannot be right. Whether the table has the columns is seen when it is read.

    Examples
    --------
    >>> card = Entity("card", card_id="int64")
    >>> bank = Postgres(url_env="BANK_URL", table="limits")
    >>> limits = external_group("card_limits", card, connect=bank, event_time="valid_from",
    ...                         features={"credit_limit": "float64"}, columns={"credit_limit": "eur"}, ttl="400d")
    >>> limits.key, limits.features
    ('features/card_limits_v1', {'credit_limit': 'float64'})
    """
    where = f"external group {check_name('feature group', name)!r}"
    check_kind(entity, Entity, where=f"the entity of {where}", example='Entity("card", card_id="int64")')
    check_kind(connect, (Postgres, Parquet, IbisTable), where=f"connect= of {where}", example=_EXAMPLE)
    _check(where, version, (known_at, delay, timezone))
    fields = {**{k.name: k.dtype for k in entity.keys}, **_features(where, entity, features)}
    external = External(
        place=_resolved(connect, declaring_package()),
        columns=_columns(where, fields, columns or {}),
        dtypes=fields,
        event_time=event_time,
        known_at=known_at,
        delay=duration(delay, where=f"delay= of {where}") if delay else 0,
        utc=timezone == "UTC",
        seq=seq,
    )
    return FeatureGroup(
        name, entity, version, _Rows(name, fields), {},
        ttl=life(ttl, where=where), online=online, owner=owner, description=description, external=external,
    )  # fmt: skip


def _check(where: str, version: int, times: Sequence[Any]) -> None:
    known_at, delay, timezone = times
    check_version(version, where=where)
    if known_at and delay:
        raise DeclarationError(f"{where} has both known_at and delay", next_step="keep one of them")
    if timezone not in (None, "UTC"):
        raise DeclarationError(
            f"{where} has timezone={timezone!r}",
            next_step='convert its times in a view there, and write timezone="UTC"',
        )


def _features(where: str, entity: Entity, features: Mapping[str, str]) -> dict[str, str]:
    for name, dtype in features.items():
        check_dtype(dtype, where=f"{where}, feature {name!r}")
        if name in (*entity.key_names, *SYSTEM_COLUMNS):
            raise DeclarationError(
                f"{where} has a feature {name!r}, which is a key or a time", next_step="leave it out"
            )
    if not features:
        raise DeclarationError(f"{where} has no feature", next_step='write features={"credit_limit": "float64"}')
    return dict(features)


def _columns(where: str, fields: Mapping[str, str], renamed: Mapping[str, str]) -> dict[str, str]:
    for name in renamed:
        if name not in fields:
            raise UnknownNameError("key or feature", name, list(fields), where=f"{where} (in columns=)")
    return {name: renamed.get(name, name) for name in fields}


def _resolved(place: Place, package: str | None) -> Place:
    if not isinstance(place, IbisTable):
        return place
    return IbisTable(str(Reference.to(place.connect, package)), place.table)
