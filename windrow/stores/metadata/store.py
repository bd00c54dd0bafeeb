"""The metadata store: what was declared, built, released and deployed, as rows that are only ever added.

SQLite or PostgreSQL, through SQLAlchemy. Every write is one transaction, so a crash leaves all of it or none.
The newest row wins where only one can be true (a span, a definition, the live release).
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError

from windrow.errors import NotFoundError, StoreError, listed
from windrow.stores.metadata import tables
from windrow.stores.metadata.counter import Counter
from windrow.stores.metadata.database import Database, guarded, open_database
from windrow.stores.metadata.opening import bring_up_to_date
from windrow.stores.metadata.operator import operator
from windrow.stores.metadata.rows import (
    AccessKey,
    AuditRow,
    Definition,
    Deployment,
    ExperimentRow,
    Materialization,
    PerformanceRow,
    ReleaseRow,
    Span,
    TombstoneRow,
)

_CHANGE = sa.update(tables.changes).values(made=tables.changes.c.made + 1)
_A_MINUTE = 60_000_000


class Metadata:
    """The store behind `WINDROW_METADATA`.

    Parameters
    ----------
    url
        ``sqlite:////path/metadata.db`` (the file and its folder are made when missing) or
        ``postgresql://user:password@host:port/database[?schema=NAME]`` (the schema is made when missing). A store
        of an earlier windrow is brought to the present format when it is opened.

    Raises
    ------
    SettingsError
        If the URL names neither.
    StoreError
        If the store cannot be opened, is not a database, or comes from a newer windrow.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> store = Metadata(f"sqlite:///{mkdtemp()}/metadata.db")
    >>> store.add_release("churn", "churn-1", document=b"{}")
    True
    >>> store.deploy("churn", "churn-1", reason="first", at=0)
    >>> store.live("churn")
    'churn-1'
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._database = open_database(url)
        self._counter = Counter(self._database.engine)
        # A store that nobody closed gives its connections back when it goes: a server has not many.
        weakref.finalize(self, _close, self._counter, self._database)
        with guarded(self._database):
            bring_up_to_date(self._database)

    def record_span(self, source: str, *, first: int, last: int, known: int, rows: int) -> None:
        """Remember what `source` held (times in UTC microseconds); the newest record counts."""
        span = Span(first, last, known, rows)
        if self.spans().get(source) != span:
            self._add(tables.spans, source=source, **span._asdict())

    def spans(self) -> dict[str, Span]:
        """Return the newest span of every source that was ever read."""
        newest = sa.select(sa.func.max(tables.spans.c.number)).group_by(tables.spans.c.source)
        rows = self._rows(
            sa.select(tables.spans).where(tables.spans.c.number.in_(newest)).order_by(tables.spans.c.source)
        )
        return {r.source: Span(r.first, r.last, r.known, r.rows) for r in rows}

    def record_definition(self, key: str, fingerprint: str, definition: dict[str, Any]) -> None:
        """Remember the declaration of `key`; the same fingerprint again adds nothing."""
        before = self.definition(key)
        if before is None or before.fingerprint != fingerprint:
            self._add(tables.definitions, key=key, fingerprint=fingerprint, definition=_json(definition))

    def definition(self, key: str) -> Definition | None:
        """Return what was recorded last for `key`, such as ``features/card_profile_v1``."""
        query = (
            sa.select(tables.definitions)
            .where(tables.definitions.c.key == key)
            .order_by(tables.definitions.c.number.desc())
            .limit(1)
        )
        for r in self._rows(query):
            return Definition(r.key, r.fingerprint, msgspec.json.decode(r.definition), r.at)
        return None

    def add_dataset(self, id: str, service: str, document: dict[str, Any]) -> None:
        """Remember a training dataset; building the same one again makes it the newest."""
        self._add(tables.datasets, id=id, service=service, document=_json(document))

    def datasets(self, service: str) -> list[dict[str, Any]]:
        """Return the documents of a service's training datasets, each id once, newest last."""
        query = (
            sa.select(tables.datasets)
            .where(tables.datasets.c.service == service)
            .order_by(tables.datasets.c.number.desc())
        )
        newest: dict[str, dict[str, Any]] = {}
        for r in self._rows(query):
            newest.setdefault(r.id, msgspec.json.decode(r.document))
        return list(newest.values())[::-1]

    def add_run(self, service: str, document: dict[str, Any]) -> None:
        """Remember a training run (parameters, metrics, duration: whatever JSON can hold)."""
        self._add(tables.runs, service=service, document=_json(document))

    def runs(self, service: str) -> list[dict[str, Any]]:
        """Return the documents of a service's training runs, newest last."""
        query = sa.select(tables.runs.c.document).where(tables.runs.c.service == service).order_by(tables.runs.c.number)
        return [msgspec.json.decode(r.document) for r in self._rows(query)]

    def add_release(self, service: str, id: str, document: bytes, *, after: int | None = None) -> bool:
        """Register an immutable release; the same bytes again change nothing.

        Parameters
        ----------
        after
            How many releases the service has before this one: it is not added where there are more by now, so
            that of two who number theirs at the same time one has to count again.

        Returns
        -------
        bool
            Whether it is registered now.

        Raises
        ------
        StoreError
            If another release has this id.
        """
        table, row = tables.releases, {"service": service, "id": id, "document": document}
        count = sa.select(sa.func.count()).where(table.c.service == service)
        try:
            with self._writing() as connection:
                if after is not None and connection.execute(count).scalar_one() != after:
                    return False
                connection.execute(sa.insert(table).values({"at": time.time_ns() // 1000, **row}))
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            self._refuse_other(service, id, document)
        return True

    def _refuse_other(self, service: str, id: str, document: bytes) -> None:
        row = next(iter(self._rows(sa.select(tables.releases).where(tables.releases.c.id == id))))
        if (row.service, row.document) != (service, document):
            raise StoreError(
                f"release {id!r} exists with other contents (service {row.service!r})",
                next_step="register it under a new id: releases never change",
            )

    def releases(self, service: str) -> list[ReleaseRow]:
        """Return a service's releases, newest last."""
        query = (
            sa.select(tables.releases).where(tables.releases.c.service == service).order_by(tables.releases.c.number)
        )
        return [ReleaseRow(r.service, r.id, r.document, r.number, r.at) for r in self._rows(query)]

    def services(self) -> list[str]:
        """Return the names of all services that ever had a release, sorted."""
        return [
            str(r.service)
            for r in self._rows(sa.select(tables.releases.c.service).distinct().order_by(tables.releases.c.service))
        ]

    def release(self, id: str) -> bytes:
        """Return the document of a release; raise `NotFoundError` if there is none."""
        for r in self._rows(sa.select(tables.releases.c.document).where(tables.releases.c.id == id)):
            document: bytes = r.document
            return document
        known = [r.id for r in self._rows(sa.select(tables.releases.c.id))]
        raise NotFoundError(
            f"no release {id!r}", exists=f"There are {listed(known)}", next_step="run `windrow releases SERVICE`"
        )

    def deploy(
        self,
        service: str,
        release: str,
        *,
        reason: str,
        at: int,
        override: dict[str, Any] | None = None,
        action: str = "release promoted",
    ) -> None:
        """Make a release the live one, by one more row; `at` in UTC microseconds.

        `override` says who signed for a release that the rules refuse, and stays with the row. The audit has the
        `action` in the same transaction.

        Raises
        ------
        NotFoundError
            If the service has no such release.
        """
        query = sa.select(tables.releases.c.id).where(tables.releases.c.service == service)
        known = [r.id for r in self._rows(query)]
        if release not in known:
            raise NotFoundError(
                f"service {service!r} has no release {release!r}",
                exists=f"It has {listed(known)}",
                next_step=f"run `windrow releases {service}`",
            )
        row = {"service": service, "release": release, "reason": reason, "at": at}
        with self._writing() as connection:
            made = connection.execute(sa.insert(tables.deployments).values(row))
            if override is not None:
                number = (made.inserted_primary_key or (None,))[0]
                signed = {"deployment": number, "document": _json(override), "at": at}
                connection.execute(sa.insert(tables.overrides).values(signed))
            signed_by = {} if override is None else {"signed_by": override.get("by")}
            self._audited(connection, operator(), action, service, {"release": release, "reason": reason, **signed_by})

    def live(self, service: str) -> str | None:
        """Return the id of the live release, or None before the first deployment."""
        table = tables.deployments
        query = sa.select(table.c.release).where(table.c.service == service).order_by(table.c.number.desc()).limit(1)
        return next((str(r.release) for r in self._rows(query)), None)

    def deployments(self, service: str) -> list[Deployment]:
        """Return every change of the live release, newest last."""
        deployments, overrides = tables.deployments, tables.overrides
        both = deployments.outerjoin(overrides, overrides.c.deployment == deployments.c.number)
        query = sa.select(deployments, overrides.c.document).select_from(both)
        query = query.where(deployments.c.service == service).order_by(deployments.c.number)
        return [
            Deployment(
                r.service, r.release, r.reason, r.number, r.at,
                None if r.document is None else msgspec.json.decode(r.document),
            )
            for r in self._rows(query)
        ]  # fmt: skip

    def record_experiment(self, service: str, name: str, document: dict[str, Any], *, after: int, action: str) -> None:
        """Remember the next state of an experiment, decided by one who saw the service's rows up to number `after`.

        The audit has the `action`, such as ``experiment started``, and that state in the same transaction.

        Raises
        ------
        StoreError
            If another state of an experiment of the service was recorded meanwhile.
        """
        table = tables.experiments
        newest = sa.select(sa.func.coalesce(sa.func.max(table.c.number), 0)).where(table.c.service == service)
        row = {"service": service, "name": name, "document": _json(document), "at": time.time_ns() // 1000}
        with self._writing() as connection:
            if connection.execute(newest).scalar_one() != after:
                raise StoreError(
                    f"the experiments of service {service!r} were changed meanwhile",
                    next_step=f"look at them (windrow experiment list {service}), then try again",
                )
            connection.execute(sa.insert(table).values(row))
            self._audited(connection, operator(), action, f"{service}/{name}", document)

    def experiments(self, service: str | None = None, *, name: str | None = None) -> list[ExperimentRow]:
        """Return the states of all experiments, of a service or of one experiment, newest last."""
        table = tables.experiments
        query = sa.select(table).order_by(table.c.number)
        query = query if service is None else query.where(table.c.service == service)
        query = query if name is None else query.where(table.c.name == name)
        return [
            ExperimentRow(r.service, r.name, msgspec.json.decode(r.document), r.number, r.at) for r in self._rows(query)
        ]

    def add_performance(self, service: str, experiment: str, document: dict[str, Any]) -> None:
        """Remember what was measured of an experiment."""
        self._add(tables.performances, service=service, experiment=experiment, document=_json(document))

    def performances(self, service: str, experiment: str) -> list[PerformanceRow]:
        """Return what was measured of an experiment, newest last."""
        table = tables.performances
        query = sa.select(table).where(table.c.service == service, table.c.experiment == experiment)
        rows = self._rows(query.order_by(table.c.number))
        return [PerformanceRow(r.service, r.experiment, msgspec.json.decode(r.document), r.at) for r in rows]

    def record_materialization(self, key: str) -> None:
        """Remember that a group, such as ``features/card_profile_v1``, is as new now as its sources are."""
        known = {source: span.known for source, span in self.spans().items()}
        before, now = self.materialization(key), time.time_ns() // 1000
        if before is None or before.known != known or now - before.at > _A_MINUTE:  # followers do this every second
            self._add(tables.materializations, key=key, known=_json(known), at=now)

    def materialization(self, key: str) -> Materialization | None:
        """Return the last time a group was materialised, or None."""
        table = tables.materializations
        for r in self._rows(sa.select(table).where(table.c.key == key).order_by(table.c.number.desc()).limit(1)):
            return Materialization(r.key, msgspec.json.decode(r.known), r.at)
        return None

    def add_tombstone(self, entity: str, hash: str, salt: str, document: dict[str, Any]) -> None:
        """Remember that an entity was forgotten; of one hash the newest row counts."""
        self._add(tables.tombstones, entity=entity, hash=hash, salt=salt, document=_json(document))

    def tombstones(self) -> list[TombstoneRow]:
        """Return the newest tombstone of every forgotten entity, oldest first."""
        newest = sa.select(sa.func.max(tables.tombstones.c.number)).group_by(tables.tombstones.c.hash)
        query = (
            sa.select(tables.tombstones)
            .where(tables.tombstones.c.number.in_(newest))
            .order_by(tables.tombstones.c.number)
        )
        return [
            TombstoneRow(r.entity, r.hash, r.salt, msgspec.json.decode(r.document), r.at) for r in self._rows(query)
        ]

    def add_key(self, key: AccessKey) -> None:
        """Remember an access key; the audit has it in the same transaction."""
        told: dict[str, Any] = {"scopes": key.scopes, "rate": key.rate, "expires_at": key.expires_at}
        row = {"id": key.id, "name": key.name, "hash": key.hash, "document": _json(told), "at": key.at}
        with self._writing() as connection:
            connection.execute(sa.insert(tables.access_keys).values(row))
            self._audited(connection, operator(), "key created", key.id, {"name": key.name, **told})

    def revoke_key(self, id: str) -> bool:
        """Revoke an access key for good; return whether it was valid until now.

        Raises
        ------
        NotFoundError
            If there is no such key.
        """
        found = {key.id: key for key in self.access_keys()}
        if id not in found:
            raise NotFoundError(f"there is no access key {id!r}", next_step="run `windrow keys list` and copy its id")
        if found[id].revoked_at is not None:
            return False
        with self._writing() as connection:
            connection.execute(sa.insert(tables.revocations).values(id=id, at=time.time_ns() // 1000))
            self._audited(connection, operator(), "key revoked", id, {"name": found[id].name})
        return True

    def access_keys(self) -> list[AccessKey]:
        """Return every access key that was ever made, oldest first."""
        keys, revoked = tables.access_keys, tables.revocations
        both = keys.outerjoin(revoked, revoked.c.id == keys.c.id)
        query = sa.select(keys, revoked.c.at.label("revoked_at")).select_from(both).order_by(keys.c.number)
        return [
            AccessKey(
                r.id, r.name, r.hash, tuple(told["scopes"]), told["rate"], told["expires_at"], r.at, r.revoked_at
            )
            for r in self._rows(query)
            for told in [msgspec.json.decode(r.document)]
        ]  # fmt: skip

    def add_audit(self, who: str, action: str, subject: str, document: dict[str, Any]) -> None:
        """Remember that somebody (``key:ID`` or ``os:USER``) administered something."""
        with self._writing() as connection:
            self._audited(connection, who, action, subject, document)

    def audit(self) -> list[AuditRow]:
        """Return everything that was ever administered, newest last."""
        query = sa.select(tables.audit).order_by(tables.audit.c.number)
        return [
            AuditRow(r.who, r.action, r.subject, msgspec.json.decode(r.document), r.number, r.at)
            for r in self._rows(query)
        ]

    def change_counter(self) -> int:
        """Return how many changes were ever written, by any process.

        Costs some ten microseconds on SQLite and a round trip on PostgreSQL, so that workers can poll it.
        """
        with guarded(self._database):
            return self._counter.read()

    def close(self) -> None:
        """Give the connections back."""
        _close(self._counter, self._database)

    def _add(self, table: sa.Table, **values: Any) -> None:
        with self._writing() as connection:
            connection.execute(sa.insert(table).values({"at": time.time_ns() // 1000, **values}))

    def _audited(
        self, connection: sa.Connection, who: str, action: str, subject: str, document: dict[str, Any]
    ) -> None:
        row = {"who": who, "action": action, "subject": subject, "document": _json(document)}
        connection.execute(sa.insert(tables.audit).values(at=time.time_ns() // 1000, **row))

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Begin a transaction, after those of all others; it is counted as one change."""
        with guarded(self._database), self._database.engine.begin() as connection:
            connection.execute(_CHANGE)
            yield connection

    def _rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        with guarded(self._database), self._database.engine.connect() as connection:
            try:
                return list(connection.execute(query).all())
            except (DataError, UnicodeEncodeError):
                return []  # asked for text that the database cannot hold, such as a NUL: so no row has it


def _json(document: dict[str, Any]) -> str:
    return msgspec.json.encode(document).decode()


def _close(counter: Counter, database: Database) -> None:
    counter.close()
    database.engine.dispose()
