"""Which columns a SQL query reads for each of its columns, and for its rows; read off the parsed text.

Two questions are kept apart. *Columns*: what goes into the values of one column. *Rows*: what decides which
rows there are and how often (filters, joins, grouping, distinct, limits); that concerns every column.
What cannot be read with certainty is assumed to depend on everything, so that the answer is always complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any, Literal, NamedTuple

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from windrow.errors import DeclarationError

Kind = Literal["value", "window", "filter", "join", "group", "key", "time", "probed", "assumed"]


class Read(NamedTuple):
    """One column that is read, and what for.

    Attributes
    ----------
    kind
        ``value``: goes into values. ``window``: partitions or orders a window. ``filter``, ``join``, ``group``:
        decides which rows there are. ``key``, ``time``: is the entity's key or a time of the row.
        ``probed``: found by changing the column. ``assumed``: cannot be ruled out.
    """

    table: str
    column: str
    kind: Kind


Reads = frozenset[Read]
NOTHING: Reads = frozenset()
_UNREADABLE = ("pivots", "match", "connect", "laterals", "prewhere")
_LIMITS = ("limit", "offset")


class Relation(NamedTuple):
    """What a query gives: reads per column in order, reads that decide its rows, reads that order it."""

    columns: dict[str, Reads]
    rows: Reads = NOTHING
    order: Reads = NOTHING

    def column(self, name: str) -> Reads | None:
        """Return the reads of one column, or None if it is not there; SQL does not tell cases apart."""
        return self.columns.get(name) or next((r for n, r in self.columns.items() if n.lower() == name.lower()), None)

    @property
    def everything(self) -> Reads:
        """Reads of all columns together."""
        return joined(self.columns.values())


class _UnreadableError(Exception):
    """The query has a part whose reads are not known."""


class _Scope(NamedTuple):
    """What names mean at one place of a query."""

    relations: dict[str, Relation]
    named: dict[str, Relation]
    aliases: dict[str, Reads]
    outer: _Scope | None = None
    bound: frozenset[str] = frozenset()
    windows: tuple[exp.Expression, ...] = ()

    @property
    def everything(self) -> Reads:
        own = joined(r.everything for r in self.relations.values())
        return own | self.outer.everything if self.outer else own


def query_lineage(
    query: str | exp.Expression, tables: Mapping[str, Iterable[str]], *, dialect: str = "duckdb"
) -> Relation:
    """Return what a query reads of `tables` (table -> its columns, in their order).

    Raises
    ------
    DeclarationError
        If the text is not SQL.

    Examples
    --------
    >>> made = query_lineage("select sum(a) as s from t where b > 0 group by c", {"t": ["a", "b", "c"]})
    >>> [tuple(read) for read in made.columns["s"]]
    [('t', 'a', 'value')]
    >>> sorted((read.column, read.kind) for read in made.rows)
    [('b', 'filter'), ('c', 'group')]
    """
    named = {name.lower(): _base(name, columns) for name, columns in tables.items()}
    try:
        return _query(_parsed(query, dialect), _Scope({}, named, {}))
    except (_UnreadableError, RecursionError):
        return Relation({}, as_kind(joined(r.everything for r in named.values()), "assumed"))


def as_kind(reads: Reads, kind: Kind) -> Reads:
    """Return the same columns, read for another purpose.

    Examples
    --------
    >>> as_kind(frozenset({Read("t", "a", "value")}), "filter")
    frozenset({Read(table='t', column='a', kind='filter')})
    """
    return frozenset(Read(r.table, r.column, "assumed" if r.kind == "assumed" else kind) for r in reads)


def joined(parts: Iterable[Reads]) -> Reads:
    """Return all reads of `parts`."""
    return reduce(frozenset.union, parts, NOTHING)


def _parsed(query: str | exp.Expression, dialect: str) -> Any:
    if not isinstance(query, str):
        return query
    try:
        return parse_one(query, dialect=dialect)
    except SqlglotError as error:
        told = str(error).splitlines()[0][:200]
        raise DeclarationError(f"the text is not SQL of {dialect}: {told}", next_step="correct it") from None


def _base(table: str, columns: Iterable[str]) -> Relation:
    return Relation({c: frozenset({Read(table, c, "value")}) for c in columns})


def _query(query: Any, scope: _Scope) -> Relation:
    if any(query.args.get(part) for part in _UNREADABLE):
        raise _UnreadableError
    scope = _with_named(query, scope)
    if isinstance(query, exp.Subquery):
        inner = _query(query.this, scope)
        return _renamed(_limited(query, inner, scope._replace(relations={"": inner})), query)
    if isinstance(query, exp.SetOperation):
        made = _set(query, scope)
        return _limited(query, made, scope._replace(relations={"": made}))
    if isinstance(query, exp.Select):
        return _select(query, scope)
    if isinstance(query, exp.Values | exp.Table):
        return _source(query, scope)
    raise _UnreadableError


def _with_named(query: exp.Expression, scope: _Scope) -> _Scope:
    clause: Any = query.args.get("with_") or exp.With(expressions=[])
    for part in clause.expressions:
        made = _recursive(part, scope) if clause.args.get("recursive") else _query(part.this, scope)
        scope = scope._replace(named={**scope.named, part.alias.lower(): _renamed(made, part)})
    return scope


def _recursive(part: Any, scope: _Scope) -> Relation:
    if not isinstance(part.this, exp.SetOperation):
        return _query(part.this, scope)
    made = _query(part.this.this, scope)
    while True:  # the reads only grow, and there are finitely many
        named = {**scope.named, part.alias.lower(): _renamed(made, part)}
        after = _query(part.this, scope._replace(named=named))
        if after == made:
            return made
        made = after


def _renamed(made: Relation, source: Any) -> Relation:
    alias = source.args.get("alias")
    names = [c.name for c in alias.args.get("columns") or ()] if isinstance(alias, exp.TableAlias) else []
    renamed = dict(zip((*names, *list(made.columns)[len(names) :]), made.columns.values(), strict=False))
    return made._replace(columns=renamed) if names else made


def _set(query: Any, scope: _Scope) -> Relation:
    left, right = _query(query.this, scope), _query(query.expression, scope)
    if query.args.get("by_name"):
        names = dict.fromkeys((*left.columns, *right.columns))
        columns = {n: (left.column(n) or NOTHING) | (right.column(n) or NOTHING) for n in names}
    else:
        if len(left.columns) != len(right.columns):
            raise _UnreadableError
        pairs = zip(left.columns.items(), right.columns.values(), strict=True)
        columns = {name: one | other for (name, one), other in pairs}
    rows = left.rows | right.rows
    if query.args.get("distinct") or not isinstance(query, exp.Union):
        rows |= as_kind(joined(columns.values()), "group")
    return Relation(columns, rows)


def _select(query: exp.Select, scope: _Scope) -> Relation:
    inner = _Scope({}, scope.named, {}, scope, windows=tuple(query.args.get("windows") or ()))
    start = query.args.get("from_")
    rows = _add_source(start.this, inner) if start else NOTHING
    for join in query.args.get("joins") or ():
        rows |= _add_join(join, inner)
    columns, parts = dict[str, Reads](), list[tuple[exp.Expression, Reads]]()
    for projection in query.expressions:
        for name, reads in _projected(projection, inner, len(columns)):
            columns[name] = columns.get(name, NOTHING) | reads
            inner.aliases[name.lower()] = columns[name]
            parts.append((projection, reads))
    rows |= _chosen(query, inner, parts)
    return _limited(query, Relation(columns, rows), inner)


def _chosen(query: exp.Select, scope: _Scope, parts: list[tuple[exp.Expression, Reads]]) -> Reads:
    """What WHERE, GROUP BY, HAVING, QUALIFY, DISTINCT and UNNEST read: it decides the rows."""
    rows = joined(as_kind(_value(query.args.get(name), scope), "filter") for name in ("where", "having", "qualify"))
    rows |= joined(as_kind(reads, "join") for part, reads in parts if part.find(exp.Explode, exp.Unnest))
    group, distinct = query.args.get("group"), query.args.get("distinct")
    if group:
        rows |= as_kind(_value(group, scope) | _ordinals(group.expressions, parts), "group")
        if group.args.get("all"):
            rows |= as_kind(joined(reads for part, reads in parts if not part.find(exp.AggFunc)), "group")
    if distinct and distinct.args.get("on"):
        chosen = (distinct.args["on"], query.args.get("order"))
        rows |= joined(as_kind(_value(part, scope), "group") for part in chosen)
    elif distinct:
        rows |= as_kind(joined(reads for _, reads in parts), "group")
    return rows


def _ordinals(expressions: Iterable[exp.Expression], parts: list[tuple[exp.Expression, Reads]]) -> Reads:
    numbers = [e.this for e in expressions if isinstance(e, exp.Literal) and not e.is_string]
    if any(not n.isdigit() or not 0 < int(n) <= len(parts) for n in numbers):
        raise _UnreadableError
    return joined(parts[int(n) - 1][1] for n in numbers)


def _limited(query: exp.Expression, made: Relation, scope: _Scope) -> Relation:
    """Add what orders the rows; behind a limit it decides which of them there are."""
    order = query.args.get("order")
    by = [part.this for part in order.expressions] if order else []
    every = any(isinstance(part, exp.Literal) or part.name.lower() == "all" for part in by)
    ordering = _value(order, scope) | (made.everything if every else NOTHING)
    # A limit without an order takes the rows as they come: then any column may decide.
    ordering = ordering or joined(r.order for r in scope.relations.values())
    if not any(query.args.get(name) for name in _LIMITS):
        return made._replace(order=as_kind(ordering, "filter"))
    asked = joined(_value(query.args.get(name), scope) for name in _LIMITS)
    return made._replace(rows=made.rows | as_kind(asked | (ordering or scope.everything), "filter"))


def _projected(projection: Any, scope: _Scope, number: int) -> Iterator[tuple[str, Reads]]:
    star = projection.this if isinstance(projection, exp.Column) else projection
    if isinstance(star, exp.Star):
        yield from _starred(star, projection, scope)
    elif projection.find(exp.Columns):
        raise _UnreadableError
    else:
        yield projection.alias_or_name or f"column {number}", _value(projection, scope)


def _starred(star: exp.Star, projection: Any, scope: _Scope) -> Iterator[tuple[str, Reads]]:
    table = projection.table.lower() if isinstance(projection, exp.Column) else ""
    if table and table not in scope.relations or star.args.get("ilike"):
        raise _UnreadableError
    left_out = {part.name.lower() for part in star.args.get("except_") or ()}
    replaced = {part.alias.lower(): _value(part.this, scope) for part in star.args.get("replace") or ()}
    renamed = {part.this.name.lower(): part.alias for part in star.args.get("rename") or ()}
    merged = dict[str, Reads]()
    for alias, relation in scope.relations.items():
        for name, reads in relation.columns.items() if table in ("", alias) else ():
            if name.lower() not in left_out:
                shown = renamed.get(name.lower(), name)
                merged[shown] = merged.get(shown, NOTHING) | replaced.get(name.lower(), reads)
    yield from merged.items()


def _add_join(join: exp.Join, scope: _Scope) -> Reads:
    before = Relation({n: r for rel in scope.relations.values() for n, r in rel.columns.items()})
    known = set(scope.relations)
    rows = _add_source(join.this, scope)
    new = [scope.relations[alias] for alias in scope.relations if alias not in known]
    shared = [part.name for part in join.args.get("using") or ()]
    if "NATURAL" in (join.method or "").upper():
        shared = [name for relation in new for name in relation.columns if before.column(name) is not None]
    sides = [*(scope.relations[alias] for alias in known), *new]
    rows |= as_kind(joined(side.column(name) or NOTHING for name in shared for side in sides), "join")
    rows |= joined(as_kind(_value(join.args.get(part), scope), "join") for part in ("on", "match_condition"))
    if join.kind in ("SEMI", "ANTI"):  # their columns cannot be seen further on
        for alias in set(scope.relations) - known:
            del scope.relations[alias]
    return rows


def _add_source(source: Any, scope: _Scope) -> Reads:
    """Make a source's names known in `scope`, and return what decides its rows."""
    made = _source(source, scope)
    alias = source.alias_or_name.lower() or f"({len(scope.relations)})"
    if alias in scope.relations:
        raise _UnreadableError
    scope.relations[alias] = made
    rows = made.rows
    for join in source.args.get("joins") or ():
        rows |= _add_join(join, scope)
    return rows


def _source(source: Any, scope: _Scope) -> Relation:
    if any(source.args.get(part) for part in _UNREADABLE):
        raise _UnreadableError
    if isinstance(source, exp.Identifier):  # what Ibis writes once and uses twice, it names by nothing else
        source = exp.Table(this=source.copy())
    if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
        name = source.name.lower()
        if source.args.get("db") or name not in scope.named:
            raise _UnreadableError
        return _renamed(scope.named[name], source)
    if isinstance(source, exp.Lateral) and isinstance(source.this, exp.Subquery):
        return _renamed(_query(source.this, scope), source)
    if isinstance(source, exp.Query) and not isinstance(source, exp.Table):
        return _query(source, scope)
    return _rows_of_values(source, scope)


def _rows_of_values(source: Any, scope: _Scope) -> Relation:
    """UNNEST, VALUES and table functions: every column, and the number of rows, come from the arguments."""
    alias = source.args.get("alias")
    names = [c.name for c in alias.args.get("columns") or ()] if isinstance(alias, exp.TableAlias) else []
    asked = source.expressions if isinstance(source, exp.Unnest | exp.Values) else [source.this]
    reads = joined(_value(part, scope) for part in asked)
    if not names and not source.alias:
        raise _UnreadableError
    return Relation(dict.fromkeys(names or [source.alias, "unnest"], reads), as_kind(reads, "join"))


def _value(part: Any, scope: _Scope) -> Reads:
    """Return what an expression reads."""
    if isinstance(part, exp.Column):
        return _column(part, scope)
    if isinstance(part, exp.Query):
        made = _query(part, scope)
        return made.everything | made.rows
    if isinstance(part, exp.Window):
        named = scope.windows if part.args.get("alias") else ()
        around = [*(part.args.get("partition_by") or ()), part.args.get("order"), part.args.get("spec"), *named]
        return _value(part.this, scope) | joined(as_kind(_value(p, scope), "window") for p in around)
    if isinstance(part, exp.Filter):
        return _value(part.this, scope) | as_kind(_value(part.expression, scope), "filter")
    if isinstance(part, exp.Order):
        return _value(part.this, scope) | as_kind(joined(_value(p, scope) for p in part.expressions), "window")
    if isinstance(part, exp.Star):
        return scope.everything
    if isinstance(part, exp.Columns | exp.PositionalColumn):
        return as_kind(scope.everything, "assumed")
    if isinstance(part, exp.Lambda):
        scope = scope._replace(bound=scope.bound | {p.name.lower() for p in part.expressions})
    if part is None or isinstance(part, str) or _counts_rows(part):
        return NOTHING
    return joined(_value(p, scope) for p in part.iter_expressions())


def _counts_rows(part: Any) -> bool:
    # A star's parent does not tell: Ibis puts one and the same star into all its queries.
    return isinstance(part, exp.Count) and isinstance(part.this, exp.Star)


def _column(column: exp.Column, scope: _Scope) -> Reads:
    path = [part.name.lower() for part in column.parts]
    if isinstance(column.this, exp.Star):
        path = path[:-1]
    if path[0] in scope.bound:
        return NOTHING
    place: _Scope | None = scope
    while place is not None:
        found = _at(path, place)
        if found is not None:
            return found
        place = place.outer
    return as_kind(scope.everything, "assumed")


def _at(path: list[str], scope: _Scope) -> Reads | None:
    """Look a name up at one place: a table's column, a column (perhaps with its fields), a table as a whole."""
    head = scope.relations.get(path[0])
    if head is not None and len(path) > 1:
        found = head.column(path[1])
        return as_kind(head.everything, "assumed") if found is None else found
    named = [r.column(path[0]) for r in scope.relations.values()]
    seen = [reads for reads in (*named, scope.aliases.get(path[0])) if reads is not None]
    if seen:
        return joined(seen)
    return None if head is None else head.everything
