"""Forgetting an entity: its rows leave every table, file and store that windrow writes, and a tombstone stays.

What is derived without its key stays: aggregates of other entities, models, their golden rows. What windrow
cannot take apart (executed notebooks, reports, Dagster's records) is searched for the key and named.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from windrow.errors import DataError, NotFoundError, StoreError
from windrow.schema import Entity
from windrow.settings import Settings
from windrow.stores.branching import refuse_branches
from windrow.stores.engine import engine
from windrow.stores.forgetting import erasure, sink_erasure
from windrow.stores.forgetting.erasure import Rows, Values
from windrow.stores.forgetting.log_erasure import committed, erase_from_segments, find_in_segments
from windrow.stores.forgetting.postgres_erasure import rows_in_postgres
from windrow.stores.forgetting.remains import remains, searchable
from windrow.stores.forgetting.stream_erasure import erase_from_streams
from windrow.stores.forgetting.tombstones import bury
from windrow.stores.ingest.erasure import await_lake, erase_later, events_on_their_way
from windrow.stores.lake import Lake
from windrow.stores.log import LogRecord
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import OnlineStore, open_online
from windrow.stores.postgres_sink import table_name
from windrow.stores.recent import drop

_SERVED = ("predictions/", "log/", "outcomes/", "datasets/", "sinks/")
_WAITING = "log (not committed yet)"
_ARRIVING, _LATER = "events (not committed yet)", "events (of a later time)"
_STREAMED = "events (in Redis streams)"
_REFUSED = "row"  # of an event that could not be applied, as JSON or as it came
_OBJECTS = ("keys", "request")
_Ids = set[tuple[str, int]]


class Places(NamedTuple):
    """Where an entity's key may stand, besides columns that are called as the key is.

    Attributes
    ----------
    entity
        Whom to look for.
    tables
        Table key -> choices of columns.
    services
        Service -> choices of request fields: in its predictions, log, training datasets and sinks.
    online
        Groups of the online store that are kept by the entity's key, and predictions of services that are asked by it.
    """

    entity: Entity
    tables: Mapping[str, Sequence[tuple[str, ...]]] = {}
    services: Mapping[str, Sequence[tuple[str, ...]]] = {}
    online: Sequence[str] = ()

    def of(self, place: str) -> list[tuple[str, ...]]:
        """Return the choices of columns in a table, dataset or sink, the key's own names first."""
        named = [self.entity.key_names, *self.tables.get(place, ())]
        room, _, name = place.partition("/")
        if room == "quarantine":
            named += [*self.tables.get(f"sources/{name}", ()), *self.tables.get(f"features/{name}", ())]
        if place.startswith(_SERVED):
            named += self.services.get(place.split("/")[1], ())
        return list(dict.fromkeys(named))

    @property
    def fields(self) -> list[tuple[str, ...]]:
        """Choices of request fields of any service."""
        return list(dict.fromkeys([self.entity.key_names, *(f for own in self.services.values() for f in own)]))


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased, or would be.

    Attributes
    ----------
    rows
        Where -> rows; places without any are left out.
    remains
        Files in which the key can still be read, and which windrow cannot take apart.
    searched
        Whether files were searched: a key of a few digits stands everywhere by accident.
    hash
        Of the tombstone; "" where nothing was erased yet.
    """

    entity: str
    rows: dict[str, int]
    remains: list[str]
    searched: bool = True
    hash: str = ""
    seconds: float = 0.0


def typed_key(entity: Entity, given: Sequence[str]) -> Values:
    """Return a key as its entity's dtypes have it.

    Raises
    ------
    DataError
        If there are more or fewer parts, or one is no whole number where the entity has one.

    Examples
    --------
    >>> typed_key(Entity("seat", hall="string", row="int64"), ["blue", "7"])
    ('blue', 7)
    """
    if len(given) != len(entity.keys):
        raise DataError(
            f"entity {entity.name!r} has {len(entity.keys)} key parts, but {len(given)} were given",
            next_step=f"give {' '.join(name.upper() for name in entity.key_names)}",
        )
    try:
        return tuple(_part(text, k.dtype) for text, k in zip(given, entity.keys, strict=True))
    except ValueError:
        dtypes = ", ".join(f"{k.name} is {k.dtype}" for k in entity.keys)
        raise DataError(
            f"a part of the key of {entity.name!r} is no whole number that fits",
            exists=dtypes,
            next_step="give it as it is stored",
        ) from None


def _part(text: str, dtype: str) -> Any:
    if dtype == "string":
        return text
    number, half = int(text), 1 << (31 if dtype == "int32" else 63)
    if not -half <= number < half:
        raise ValueError(dtype)
    return number


def look(key: Values, places: Places, settings: Settings) -> Forgotten:
    """Return what `forget` would erase; changes nothing."""
    begin, lake = time.perf_counter(), Lake(settings.lake)
    ids = _logged_ids(key, places, lake)
    records = find_in_segments(settings.home / "log", _Wanted(places, key, ids))
    ids |= {(record.request_id, record.row) for record in records}
    rows, arriving = Counter({_WAITING: len(records)}), _arriving(key, places)
    rows[_ARRIVING] = events_on_their_way(settings.home, arriving)
    rows[_LATER] = erase_later(settings.home, arriving, erase=False)
    rows[_STREAMED] = erase_from_streams(settings, arriving, key=key, erase=False)
    rows.update(_everywhere(key, places, settings, ids=ids, erase=False))
    return _result(key, places, rows, settings, begin=begin)


def forget(key: Values, places: Places, settings: Settings, metadata: Metadata) -> Forgotten:
    """Erase an entity from everything under the settings' places, and leave a tombstone.

    Rows of it that become known later are kept when they arrive; those of before do not come back. Done
    again it finishes what an interrupted run has left.

    Parameters
    ----------
    key
        As `typed_key` gives it.
    places
        `windrow.models.places.places` finds them from the declarations.

    Raises
    ------
    StoreError
        If a branch still holds rows; if something cannot be rewritten or is being written by somebody who does
        not finish: then what was erased until then stays erased.
    """
    refuse_branches(settings)
    begin, lake, name = time.perf_counter(), Lake(settings.lake), places.entity.name
    columns = {table: [list(place) for place in places.of(table)] for table in _present(places, lake)}
    bury(metadata, name, key, rows={}, columns=columns)
    log, arriving = settings.home / "log", _arriving(key, places)
    streamed = erase_from_streams(settings, arriving, key=key, erase=True)  # first: what is taken in comes to the lake
    await_lake(settings, arriving)
    ids = _logged_ids(key, places, lake)
    ids |= {(r.request_id, r.row) for r in find_in_segments(log, _Wanted(places, key, ids))}
    rows = Counter({_WAITING: len(erase_from_segments(log, _Wanted(places, key, ids))), _STREAMED: streamed})
    rows[_LATER] = erase_later(settings.home, arriving, erase=True)
    with committed(log, lake):
        ids |= _logged_ids(key, places, lake)
        drop(log)
        rows.update(_everywhere(key, places, settings, ids=ids, erase=True))
    stone = bury(metadata, name, key, rows={place: n for place, n in rows.items() if n}, columns=columns)
    return _result(key, places, rows, settings, begin=begin, hash=stone.hash)


def _everywhere(key: Values, places: Places, settings: Settings, *, ids: _Ids, erase: bool) -> Counter[str]:
    lake = Lake(settings.lake)
    rows = _tables(key, places, lake, erase=erase)
    rows.update(_outcomes(ids, lake, erase=erase))
    rows.update(_files(key, places, settings.home, erase=erase))
    rows.update(_in_postgres(key, places, settings, erase=erase))
    rows.update(_online(key, places, settings, erase=erase))
    return rows


def _result(
    key: Values, places: Places, rows: Mapping[str, int], settings: Settings, *, begin: float, hash: str = ""
) -> Forgotten:
    return Forgotten(
        entity=places.entity.name,
        rows={place: count for place, count in rows.items() if count},
        remains=[str(path) for path in remains(key, settings.home, Path(Lake(settings.lake).root))],
        searched=searchable(key),
        hash=hash,
        seconds=time.perf_counter() - begin,
    )


def _keys(lake: Lake, beginning: str = "") -> list[str]:
    stored = lake.keys()
    return [key for key in stored if key.startswith(beginning)]


def _present(places: Places, lake: Lake) -> list[str]:
    """Return the tables that have a place for the key, and those that will have one."""
    stored = [key for key in _keys(lake) if _rows_in(key, places, lake, key=("",) * len(places.entity.keys))]
    return list(dict.fromkeys([*stored, *places.tables]))


def _rows_in(table: str, places: Places, lake: Lake, *, key: Values) -> Rows | None:
    types = erasure.types_in_table(lake.table(table))
    found = erasure.rows_of(key, places.of(table), types)
    if table.startswith("quarantine/") and _REFUSED in types and found is None:
        return erasure.fields_of(key, places.of(table), [_REFUSED])
    if not set(_OBJECTS) <= set(types):
        return found
    return erasure.fields_of(key, places.of(table) if table != "log/_other" else places.fields, _OBJECTS)


def _tables(key: Values, places: Places, lake: Lake, *, erase: bool) -> Counter[str]:
    found, work = Counter[str](), erasure.erase_from_table if erase else erasure.count_in_table
    for name in _keys(lake):
        rows = _rows_in(name, places, lake, key=key)
        if rows is not None:
            found[name] = work(lake.table(name), rows).rows
    return found


def _logged_ids(key: Values, places: Places, lake: Lake) -> _Ids:
    """Return the (request_id, row) of the entity's logged predictions, by which its outcomes are found."""
    found: _Ids = set()
    for name in _keys(lake, "log/"):
        rows, con = _rows_in(name, places, lake, key=key), engine()
        if rows is not None:
            table = con.compile(lake.table(name).scan(con))
            query = f"SELECT request_id, row FROM ({table}) WHERE {rows.condition}"  # noqa: S608 - compiled; values are parameters
            found |= set(con.con.execute(query, rows.values).fetchall())
    return found


def _arriving(key: Values, places: Places) -> Callable[[str, Mapping[str, Any]], bool]:
    """Return what says whether an event of a stream is about the entity."""
    wanted = list(map(str, key))

    def holds(stream: str, values: Mapping[str, Any]) -> bool:
        chosen = dict.fromkeys([*places.of(f"sources/{stream}"), *places.of(f"features/{stream}")])
        return any([str(values.get(name)) for name in place] == wanted for place in chosen)

    return holds


class _Wanted:
    """Says whether a record is about the entity: by its fields, or by the prediction that it is the outcome of."""

    def __init__(self, places: Places, key: Values, ids: _Ids) -> None:
        self._places, self._key, self._ids = places, list(map(str, key)), ids

    def __call__(self, record: LogRecord) -> bool:
        if (record.request_id, record.row) in self._ids:
            return True
        fields = self._places.of(f"log/{record.service}")
        return any(
            all(name in found for name in place) and [str(found[name]) for name in place] == self._key
            for place in fields
            for found in (record.keys, record.request)
        )


def _outcomes(ids: _Ids, lake: Lake, *, erase: bool) -> Counter[str]:
    rows = Rows("request_id || '/' || row IN (SELECT unnest(?))", [[f"{id}/{row}" for id, row in sorted(ids)]])
    found, work = Counter[str](), erasure.erase_from_table if erase else erasure.count_in_table
    for name in _keys(lake, "outcomes/") if ids else ():
        found[name] = work(lake.table(name), rows).rows
    return found


def _files(key: Values, places: Places, home: Path, *, erase: bool) -> Counter[str]:
    found = Counter[str]()
    for path in sorted((home / "datasets").glob("*/*.parquet")):
        place = f"datasets/{path.parent.name}/{path.stem}"
        rows = erasure.rows_of(key, places.of(place), erasure.types_in([str(path)]))
        if rows is not None:
            work = erasure.erase_from_parquet if erase else erasure.count_in_parquet
            found[place] = work(path, rows).rows
    for path in sorted((home / "sinks").glob("*.duckdb")):
        place = f"sinks/{path.stem}"
        found[place] = sink_erasure.rows_in_sink(path, key, places.of(place), erase=erase)
    return found


def _in_postgres(key: Values, places: Places, settings: Settings, *, erase: bool) -> Counter[str]:
    url, found = settings.sink_postgres, Counter[str]()
    for service in places.services if url else ():
        chosen = places.of(f"sinks/{service}")
        found[f"postgres/{table_name(service)}"] = rows_in_postgres(url, service, key, chosen, erase=erase)
    return found


def _online(key: Values, places: Places, settings: Settings, *, erase: bool) -> Counter[str]:
    stored = [name.removeprefix("features/") for name in _keys(Lake(settings.lake), "features/")]
    try:
        # A writer makes the store where there is none.
        open_online(settings.online).close()
        store = open_online(settings.online, write=erase)
    except NotFoundError:
        return Counter()
    with store:
        groups = sorted({*places.online, *stored})
        found = Counter({f"online/{group}": _in_group(store, group, key, erase=erase) for group in groups})
        if erase:
            store.compact()  # also for an earlier run that did not come so far
    return found


def _in_group(store: OnlineStore, group: str, key: Values, *, erase: bool) -> int:
    if store.columns(group) is None:
        return 0
    try:
        there = store.read([(group, key)])[0] is not None
    except StoreError:
        return 0  # kept by a key of other types: it is another entity's
    # Also where it is not there yet: a bulk load under way may have read it, and begins again after a deletion.
    return store.delete(group, [key]) if erase else int(there)
