"""Checks on rows before they are stored: the group's own schema, and what no stored row may lack."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from windrow.errors import DeclarationError, SchemaError, closest, listed
from windrow.features.arrow import registered
from windrow.schema import EVENT_TIME, KNOWN_AT, SYSTEM_COLUMNS

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from ibis.backends import BaseBackend
    from numpy.typing import NDArray

    from windrow.features.group import FeatureGroup

REASONS = "reasons"
_ROW = "windrow_row_number"
_ROW_BY_ROW = (
    "equal_to", "not_equal_to", "greater_than", "greater_than_or_equal_to", "less_than", "less_than_or_equal_to",
    "in_range", "isin", "notin", "str_matches", "str_contains", "str_startswith", "str_endswith", "str_length",
)  # fmt: skip

Found = dict[str, "NDArray[np.int64]"]


class Verdict(NamedTuple):
    """What validation found.

    Attributes
    ----------
    good
        The rows that pass every check, in the given order.
    bad
        The other rows, with a column ``reasons`` (the failed checks, joined by "; ").
    reasons
        Failed check -> number of rows; a row may fail several.
    """

    good: pa.Table
    bad: pa.Table
    reasons: dict[str, int]


def validate(group: FeatureGroup, rows: ir.Table | pa.Table, *, con: BaseBackend | None = None) -> Verdict:
    """Split the rows of a feature group into good and bad ones.

    Every group: keys and times are present, ``known_at`` is not before ``event_time``, and no two rows
    share keys and both times. Then the schema named by ``checks=``, by pandera on Ibis.

    Parameters
    ----------
    group
        Its `checks` name a ``pandera.ibis.DataFrameModel`` (or a schema, or a function that makes one).
        The schema sees keys, features, ``event_time`` and ``known_at``.
    rows
        Keys, features and both times.
    con
        A DuckDB backend of Ibis; default: that of `rows`, or a new one.

    Raises
    ------
    SchemaError
        If the schema asks for a column or dtype that the rows do not have.
    DeclarationError
        If `checks` is no pandera schema, cannot run, or asks for ``coerce``, which Ibis would ignore.

    Examples
    --------
    >>> import ibis, pyarrow as pa
    >>> from windrow.features.group import feature_group
    >>> from windrow.features.source import Source
    >>> from windrow.schema import Entity
    >>> bills = Source("bills", event_time="ts", columns={"customer_id": "string", "eur": "float64"})
    >>> def bill(bills):
    ...     return bills.select("customer_id", "eur")
    >>> bill.__globals__["bills"] = bills
    >>> group = feature_group(Entity("customer", customer_id="string"))(bill)
    >>> times = pa.array([0, 0], pa.timestamp("us", "UTC"))
    >>> rows = pa.table({"customer_id": ["a", None], "eur": [1.0, 2.0], "event_time": times, "known_at": times})
    >>> validate(group, rows).reasons
    {'customer_id is missing': 1}
    """
    import pyarrow as pa

    table = rows if isinstance(rows, pa.Table) else rows.to_pyarrow()
    return _verdict(table, failures(group, table, con=con or _backend(rows)))


def failures(
    group: FeatureGroup,
    table: pa.Table,
    *,
    con: BaseBackend,
    built_in: bool = True,
    columns: Collection[str] | None = None,
) -> Found:
    """Return failed check -> numbers of the rows that fail it, from 0; raises as `validate` does.

    Parameters
    ----------
    built_in
        Whether to look for missing keys and times, wrong order of times and repeated rows, as well.
    columns
        Only the schema's checks of these columns and of the whole table; default: all.
    """
    with registered(con, _numbered(table)) as numbered:
        found = _built_in(group, numbered) if built_in else {}
        if group.checks is not None:
            _merge(found, _checked(_schema(group), group, numbered, columns=columns))
    return {reason: at for reason, at in found.items() if len(at)}


def _backend(rows: Any) -> BaseBackend:
    import ibis
    import pyarrow as pa

    return ibis.duckdb.connect() if isinstance(rows, pa.Table) else rows.get_backend()


def check_names(group: FeatureGroup) -> list[str]:
    """Return every check of a group by the name under which `failures` reports it: built-in ones, then its schema's.

    Raises
    ------
    DeclarationError
        If two checks bear one name, so that one could hide the other.
    """
    identity = [*group.entity.key_names, EVENT_TIME, KNOWN_AT]
    names = [*(f"{name} is missing" for name in identity), "known_at is before event_time"]
    names.append(f"several rows for one ({', '.join(identity)})")
    schema = None if group.checks is None else _schema(group)
    declared = [] if schema is None else list(_declared(schema))
    twice = sorted({name for name in declared if declared.count(name) > 1})
    if twice:
        raise DeclarationError(
            f"Two checks in {str(group.checks)!r} of feature group {group.name!r} are called {twice[0]!r}",
            next_step="give one of them another name",
        )
    return list(dict.fromkeys([*names, *declared]))


def judges_rows_alone(group: FeatureGroup) -> bool:
    """Whether each row passes or fails the group's checks by itself, whatever other rows there are.

    Certain only of pandera's own comparisons: a function of the project's may look at the whole table.
    """
    if group.checks is None:
        return True
    from pandera.api.function_dispatch import Dispatcher

    schema = _schema(group)
    checks = [check for column in schema.columns.values() for check in column.checks]
    own = all(check.name in _ROW_BY_ROW and isinstance(check._check_fn, Dispatcher) for check in checks)
    return own and not schema.checks and not _unique(schema)


def _declared(schema: Any) -> Iterator[str]:
    for name, column in schema.columns.items():
        if not column.nullable:
            yield f"{name} is missing"
        yield from (_named(check, column=name) for check in column.checks)
    yield from (_named(check, column=None) for check in schema.checks)
    yield from (f"({', '.join(names)}) is not unique" for names in _unique(schema))


def _numbered(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    return table.append_column(_ROW, pa.array(np.arange(table.num_rows)))


def _built_in(group: FeatureGroup, rows: ir.Table) -> Found:
    identity = [*group.entity.key_names, EVENT_TIME, KNOWN_AT]
    present = rows.filter([rows[name].notnull() for name in identity])
    counted = present.mutate(same=present.count().over(group_by=identity))
    found = {f"{name} is missing": _numbers(rows.filter(rows[name].isnull())) for name in identity}
    found["known_at is before event_time"] = _numbers(rows.filter(rows[KNOWN_AT] < rows[EVENT_TIME]))
    found[f"several rows for one ({', '.join(identity)})"] = _numbers(counted.filter(counted.same > 1))
    return found


def _numbers(rows: ir.Table) -> NDArray[np.int64]:
    return np.sort(np.asarray(rows.select(_ROW).to_pyarrow().column(_ROW).to_numpy(), dtype=np.int64))


def _schema(group: FeatureGroup) -> Any:
    """Return the pandera schema that `checks` names, without what Ibis does not do."""
    assert group.checks is not None
    given = group.checks.load()
    schema = given.to_schema() if hasattr(given, "to_schema") else given
    if not hasattr(schema, "columns") and callable(schema):
        schema = schema()
    where = f"checks {str(group.checks)!r} of feature group {group.name!r}"
    if not (hasattr(schema, "validate") and hasattr(schema, "columns")):
        raise DeclarationError(
            f"The {where} is {type(schema).__name__}, not a pandera schema",
            next_step="name a class that derives from pandera.ibis.DataFrameModel",
        )
    if schema.coerce or any(column.coerce for column in schema.columns.values()):
        raise DeclarationError(
            f"The {where} asks for coerce, which pandera does not do on Ibis",
            next_step="cast in the feature group, and drop coerce",
        )
    return schema


def _checked(schema: Any, group: FeatureGroup, rows: ir.Table, *, columns: Collection[str] | None = None) -> Found:
    from pandera.errors import SchemaErrors

    _refuse_unknown(schema, group, rows)
    strict, every = schema.strict, schema.columns
    schema.strict = False  # the row number is no column of the group
    if columns is not None:
        schema.columns = {name: column for name, column in every.items() if name in columns}
    try:
        schema.validate(rows, lazy=True)
        errors = []
    except SchemaErrors as failed:
        errors = failed.schema_errors
    finally:
        schema.strict, schema.columns = strict, every
    found: Found = {}
    for error in errors:
        _merge(found, _failing(error, group, rows))
    _merge(found, _duplicates(schema, rows))
    return found


def _merge(found: Found, more: Found) -> None:
    # Two checks may bear one name; neither may hide the rows of the other.
    for reason, numbers in more.items():
        found[reason] = np.union1d(found.get(reason, numbers), numbers)


def _refuse_unknown(schema: Any, group: FeatureGroup, rows: ir.Table) -> None:
    extra = [n for n in rows.columns if n not in schema.columns and n not in (*SYSTEM_COLUMNS, _ROW)]
    if schema.strict is True and extra:
        raise SchemaError(
            f"The strict checks {str(group.checks)!r} know nothing of {listed(extra)}, made by feature group {group.name!r}",
            next_step="add them to the checks, or drop strict",
        )


def _failing(error: Any, group: FeatureGroup, rows: ir.Table) -> Found:
    """Return the rows behind one error of pandera, by reason."""
    kind, where = error.reason_code.name, f"checks {str(group.checks)!r} of feature group {group.name!r}"
    if kind == "SERIES_CONTAINS_NULLS":
        column = rows[error.schema.name]
        missing = column.isnull() | column.isnan() if column.type().is_floating() else column.isnull()
        return {f"{error.schema.name} is missing": _numbers(rows.filter(missing))}
    if kind == "DUPLICATES":
        return {}  # found again below, with the rows
    if kind == "DATAFRAME_CHECK":
        return {_reason(error): _failed_rows(error, rows)}
    if kind == "CHECK_ERROR":
        raise DeclarationError(f"The {where} cannot run: {_short(error)}", next_step="correct the check")
    if kind == "COLUMN_NOT_IN_DATAFRAME":
        raise SchemaError(
            f"The {where} ask for a column {error.failure_cases!r}",
            exists=f"It makes {_typed(rows)}",
            next_step=closest(str(error.failure_cases), rows.columns) or "correct the name in the checks",
        )
    raise SchemaError(
        f"The {where} do not fit its rows: {_short(error)}",
        exists=f"It makes {_typed(rows)}",
        next_step="correct the dtype in the checks, or cast in the feature group",
    )


def _reason(error: Any) -> str:
    return _named(error.check, column=None if hasattr(error.schema, "columns") else error.schema.name)


def _named(check: Any, *, column: str | None) -> str:
    name = str(check.error or check.name)
    return name if column is None else f"{column}: {name}"


def _short(error: Any) -> str:
    return str(error).strip().splitlines()[0][:200]


def _typed(rows: ir.Table) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in rows.schema().items() if name != _ROW)


def _failed_rows(error: Any, rows: ir.Table) -> NDArray[np.int64]:
    """Return the numbers of the rows that fail; of all of them, where a check judges the table as a whole."""
    import ibis.expr.types as ir

    output = error.check_output
    if isinstance(output, ir.Scalar):
        return np.arange(rows.count().to_pyarrow().as_py())
    table = output.name("check_output").as_table() if isinstance(output, ir.Column) else output
    answered = _with_row_numbers(table)
    failed = answered.filter(~answered.check_output.fill_null(True))
    return _numbers(failed)


def _with_row_numbers(table: ir.Table) -> ir.Table:
    """Carry the row number through to the output of a check, which pandera gives by position only."""
    import ibis.expr.operations as ops

    def keep(node: Any, kwargs: Mapping[str, Any] | None) -> Any:
        arguments = dict(kwargs or zip(node.argnames, node.args, strict=True))
        parent: Any = arguments.get("first", arguments.get("parent"))
        if not isinstance(node, ops.Project | ops.JoinChain) or _ROW not in parent.schema:
            return node.__recreate__(arguments) if kwargs else node
        if isinstance(node, ops.JoinChain):
            arguments["rest"] = tuple(_by_row_number(link, parent) for link in arguments["rest"])
        arguments["values"] = {_ROW: ops.Field(parent, _ROW), **arguments["values"]}
        return type(node)(**arguments)

    return table.op().replace(keep).to_expr()


def _by_row_number(link: Any, first: Any) -> Any:
    """Pandera joins the answers to the rows by position, and a window answers in another order."""
    import ibis.expr.operations as ops

    if link.how != "positional" or _ROW not in link.table.schema:
        return link
    same = ops.Equals(ops.Field(first, _ROW), ops.Field(link.table, _ROW))
    return ops.JoinLink("inner", link.table, [same])


def _duplicates(schema: Any, rows: ir.Table) -> Found:
    """Return repeated values of unique columns: pandera reads `unique` of one column and does nothing."""
    found: Found = {}
    for names in _unique(schema):
        counted = rows.mutate(same=rows.count().over(group_by=names))
        found[f"({', '.join(names)}) is not unique"] = _numbers(counted.filter(counted.same > 1))
    return found


def _unique(schema: Any) -> list[list[str]]:
    together = schema.unique or []
    groups = [together] if together and isinstance(together[0], str) else [list(g) for g in together]
    return groups + [[name] for name, column in schema.columns.items() if column.unique]


def _verdict(table: pa.Table, found: Found) -> Verdict:
    import pyarrow as pa

    told: dict[int, list[str]] = {}
    for reason, numbers in found.items():
        for number in numbers.tolist():
            told.setdefault(number, []).append(reason)
    bad = np.zeros(table.num_rows, dtype=bool)
    bad[list(told)] = True
    reasons = pa.array(["; ".join(told[number]) for number in sorted(told)], pa.string())
    return Verdict(
        good=table.filter(pa.array(~bad)),
        bad=table.filter(pa.array(bad)).append_column(REASONS, reasons),
        reasons={reason: len(numbers) for reason, numbers in found.items()},
    )
