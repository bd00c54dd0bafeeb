"""SQL feature groups: a query over sources and groups, checked against their columns when it is declared."""
# ruff: noqa: S608 - the statements are the project's own queries and quoted names of its tables

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import ibis
import ibis.expr.operations as ops
from sqlglot import exp, parse
from sqlglot.errors import SqlglotError

from windrow.errors import DeclarationError, UnknownNameError, closest, listed
from windrow.features.group import FeatureGroup, check_policy, life, refuse_featureless
from windrow.features.kinds import check_kind
from windrow.features.reference import Reference, declaring_package
from windrow.features.repeatable import refuse_moving_query
from windrow.features.source import Source
from windrow.schema import EVENT_TIME, KNOWN_AT, SYSTEM_COLUMNS, Entity, check_name

if TYPE_CHECKING:
    import ibis.expr.types as ir

DIALECT = "duckdb"
_TIMES = (EVENT_TIME, KNOWN_AT)
_NO_COLUMN = re.compile(r'[Rr]eferenced column "(\w+)"')
_SQL = {"bool": "BOOLEAN", "int32": "INTEGER", "int64": "BIGINT", "float32": "REAL", "float64": "DOUBLE", "string": "VARCHAR",
        "timestamp": "TIMESTAMPTZ"}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """A definition in SQL, called with Ibis tables as other definitions are.

    Attributes
    ----------
    name
        The group's, for messages.
    text
        The query as it was written.
    fields
        Input -> its columns with dtypes, times included.
    """

    name: str
    text: str
    fields: dict[str, dict[str, str]]

    @cached_property
    def parsed(self) -> exp.Expression:
        """The query as a tree; both times are carried through every plain selection from one table."""
        try:
            trees = [tree for tree in parse(self.text, dialect=DIALECT) if tree is not None]
        except SqlglotError as error:
            # The text itself is full of escapes for a terminal.
            told = "; ".join(str(found.get("description")) for found in getattr(error, "errors", [])) or "it is not SQL"
            raise DeclarationError(
                f"the query of {self.where} cannot be read: {told[:200]}", next_step="correct it"
            ) from None
        if len(trees) != 1 or not isinstance(trees[0], exp.Query):
            raise DeclarationError(
                f"the query of {self.where} is not one SELECT", next_step='write "select ... from ..."'
            )
        tree: Any = trees[0]
        return _carry_times(tree)

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"SQL group {self.name!r}"

    @cached_property
    def definition(self) -> str:
        """The parsed query in one spelling: layout, comments and upper or lower case of keywords do not count."""
        return str(self.parsed.sql(dialect=DIALECT, comments=False))

    @cached_property
    def read(self) -> list[str]:
        """Names of the tables that the query reads, without those that it makes itself."""
        made = {cte.alias for cte in self.parsed.find_all(exp.CTE)}
        return list(dict.fromkeys(t.name for t in self.parsed.find_all(exp.Table) if t.name not in made))

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Column of the result -> its Ibis dtype, as the engine sees it over tables without rows."""
        from ibis.backends.sql.datatypes import DuckDBType

        with closing(_engine()) as con:
            for name, columns in self.fields.items():
                made = ", ".join(f'"{column}" {_SQL[dtype]}' for column, dtype in columns.items())
                con.execute(f'CREATE TABLE "{name}" ({made})')
            told = con.execute(f"DESCRIBE {self.definition}").fetchall()
        return {column: DuckDBType.from_string(kind) for column, kind, *_ in told}

    def __call__(self, **tables: ir.Table) -> ir.Table:
        """Return the result over `tables`; over tables without data, the result's columns."""
        if not tables or any(table.op().find(ops.UnboundTable) for table in tables.values()):
            return ibis.table(self.schema, name=f"sql/{self.name}")
        backends = {id(b): b for t in tables.values() for op in t.op().find(ops.DatabaseTable) for b in [op.source]}
        if len(backends) == 1 and not any(table.op().find(ops.InMemoryTable) for table in tables.values()):
            con = next(iter(backends.values()))
            named = ", ".join(f'"{name}" AS ({con.compile(table)})' for name, table in tables.items())
            # Inside brackets, so that a query with a WITH of its own stands as it is.
            return con.sql(f"WITH {named} SELECT * FROM ({self.definition})", schema=ibis.schema(self.schema))
        return ibis.memtable(self._alone(tables))

    def _alone(self, tables: Mapping[str, ir.Table]) -> Any:
        """Rows in memory: an engine of its own sees them under their names."""
        with closing(_engine()) as con:
            for name, table in tables.items():
                con.register(name, table.to_pyarrow())
            return con.execute(self.definition).to_arrow_table()


def _engine() -> Any:
    import duckdb

    con = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
    con.execute("SET TimeZone = 'UTC'")
    return con


def sql_group(
    name: str,
    entity: Entity,
    query: str,
    *,
    version: int = 1,
    ttl: str | None = None,
    online: bool = True,
    checks: str | None = None,
    on_bad: Literal["reject", "quarantine"] = "reject",
    owner: str | None = None,
    description: str = "",
) -> FeatureGroup:
    """Declare a feature group by a SQL query over sources and groups of the module.

    Parameters
    ----------
    entity
        Whose features these are; its keys must be columns of the result.
    query
        One SELECT in DuckDB's SQL. Tables are named after sources or groups. A selection from one table carries
        ``event_time`` and ``known_at`` by itself; joins and groupings say where they come from.
    version, ttl, online, checks, on_bad, owner
        As for `feature_group`.

    Raises
    ------
    DeclarationError
        When a table, column, key, time or dtype cannot be right; the message names what exists.

    Examples
    --------
    >>> card = Entity("card", card_id="int64")
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> sql_group("spend", card, "select card_id, amount * 100 as cents from payments").features
    {'cents': 'float64'}
    >>> sql_group("spend", card, "select card_id, amuont from payments")
    Traceback (most recent call last):
    windrow.errors.UnknownNameError: the query of SQL group 'spend' has no column 'amuont'... did you mean 'amount'?
    """
    known = {n: v for n, v in sys._getframe(1).f_globals.items() if isinstance(v, Source | FeatureGroup)}
    package = declaring_package()
    check_policy(check_name("feature group", name), version, on_bad)
    example = 'Entity("card", card_id="int64")'
    check_kind(entity, Entity, where=f"the entity of SQL group {name!r}", example=example)
    check_kind(query, str, where=f"the query of SQL group {name!r}", example='"select card_id, amount from payments"')
    inputs = _inputs(name, query, known)
    body = Query(name, query, {n: _columns(owner) for n, owner in inputs.items()})
    _check_columns(body)
    group = FeatureGroup(
        name, entity, version, body, inputs,
        ttl=life(ttl, where=f"SQL group {name!r}"), online=online, on_bad=on_bad, owner=owner, description=description,
        checks=Reference.to(checks, package) if checks else None,
    )  # fmt: skip
    return refuse_featureless(group)


def _inputs(name: str, query: str, known: Mapping[str, Source | FeatureGroup]) -> dict[str, Source | FeatureGroup]:
    body = Query(name, query, {})
    refuse_moving_query(body.parsed, where=body.where)
    _refuse_files(body, known)
    read = body.read
    for table in read:
        if table not in known:
            raise UnknownNameError("source or group", table, list(known), where=f"the module of SQL group {name!r}")
    return {table: known[table] for table in read}


def _refuse_files(body: Query, known: Mapping[str, Source | FeatureGroup]) -> None:
    for table in body.parsed.find_all(exp.Table):
        if isinstance(table.this, exp.Func):
            raise DeclarationError(
                f"the query of {body.where} reads from {table.this.sql('duckdb')[:60]}",
                exists=f"It may read sources and groups of its module: {listed(known)}",
                next_step='declare a source for it, or external_group(..., connect=Parquet("limits/*.parquet"))',
            )


def _columns(owner: Source | FeatureGroup) -> dict[str, str]:
    fields = {name: dtype for name, dtype in owner.fields.items() if name not in SYSTEM_COLUMNS}
    return {**fields, **dict.fromkeys(_TIMES, "timestamp")}


def _check_columns(body: Query) -> None:
    import duckdb

    try:
        _ = body.schema
    except duckdb.Error as error:
        told = str(error).splitlines()[0][:200]
        missing, known = _NO_COLUMN.search(told), [c for columns in body.fields.values() for c in columns]
        if missing:
            raise UnknownNameError(
                "column", missing[1], list(dict.fromkeys(known)), where=f"the query of {body.where}"
            ) from None
        raise DeclarationError(
            f"the query of {body.where} cannot run: {told}", next_step=closest(told, known) or "correct it"
        ) from None


def _carry_times(tree: exp.Expression) -> exp.Expression:
    """Select both times wherever one table that has them is selected from, as Ibis definitions do."""
    for select in list(tree.find_all(exp.Select)):
        if _plain(select):
            given = {column.alias_or_name for column in select.expressions}
            table = select.args["from_"].this.alias_or_name
            for name in _TIMES:
                if name not in given:
                    select.append("expressions", exp.column(name, table=table, quoted=True))
    return tree


def _plain(select: exp.Select) -> bool:
    """Whether each row of the result is one row of one table."""
    source = select.args.get("from_")
    alone = source is not None and isinstance(source.this, exp.Table | exp.Subquery) and bool(source.this.alias_or_name)
    if not alone or any(select.args.get(part) for part in ("joins", "laterals", "group", "distinct", "having")):
        return False
    if any(isinstance(column, exp.Star) or column.find(exp.Star) for column in select.expressions):
        return False
    if select.find_ancestor(exp.In, exp.Exists, exp.Binary) is not None:
        return False  # a question asked within a condition
    return not any(_folds(column) for column in select.expressions)


def _folds(column: exp.Expression) -> bool:
    return any(found.find_ancestor(exp.Window) is None for found in column.find_all(exp.AggFunc))
