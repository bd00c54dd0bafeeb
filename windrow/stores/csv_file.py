"""CSV files of sources: every cell is read as text and cast strictly, and an error names its row and column."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from windrow.clock import parse_time
from windrow.errors import DataError, SchemaError, TimeError, closest, listed
from windrow.features.arrow import arrow_type, registered
from windrow.features.source import CsvFile, Source
from windrow.stores.engine import engine
from windrow.stores.zones import to_utc

if TYPE_CHECKING:
    import pyarrow as pa

_ZONE = r"([Zz]|[+-]\d{2}(:?\d{2})?)"
_DAY, _MINUTES = r"\d{4}-\d{2}-\d{2}", r"[T ]\d{2}:\d{2}"
_NUMERAL = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_SECONDS = r"(:\d{2}(\.\d{1,6}0*)?)?"
_DOUBLE = "try_cast(trimmed AS DOUBLE)"
# A whole number that float32 would store as another one; see windrow.features.exact.
_OTHER_WHOLE = f"(abs({_DOUBLE}) > 16777216 AND floor({_DOUBLE}) = {_DOUBLE} AND {_DOUBLE} <> CAST(try_cast(trimmed AS FLOAT) AS DOUBLE))"
# DuckDB rounds '1.7' to an integer, reads '1_000' and refuses times without seconds: so the form is checked first.
_CASTS = {
    "string": "text",
    "bool": "CASE lower(trimmed) WHEN 'true' THEN true WHEN 'yes' THEN true WHEN '1' THEN true WHEN 'false' THEN false WHEN 'no' THEN false WHEN '0' THEN false END",
    "int32": r"CASE WHEN regexp_full_match(trimmed, '[+-]?\d+(\.0*)?') THEN try_cast(split_part(trimmed, '.', 1) AS INTEGER) END",
    "int64": r"CASE WHEN regexp_full_match(trimmed, '[+-]?\d+(\.0*)?') THEN try_cast(split_part(trimmed, '.', 1) AS BIGINT) END",
    "float32": f"CASE WHEN regexp_full_match(trimmed, '{_NUMERAL}') AND isfinite(try_cast(trimmed AS FLOAT)) AND NOT {_OTHER_WHOLE} THEN try_cast(trimmed AS FLOAT) END",
    "float64": f"CASE WHEN regexp_full_match(trimmed, '{_NUMERAL}') AND isfinite(try_cast(trimmed AS DOUBLE)) THEN try_cast(trimmed AS DOUBLE) END",
}
_WITH_SECONDS = rf"regexp_replace(trimmed, '^({_DAY}{_MINUTES})({_ZONE}?)$', '\1:00\2')"
_AWARE = f"CASE WHEN regexp_full_match(trimmed, '{_DAY}{_MINUTES}{_SECONDS}{_ZONE}') THEN try_cast({_WITH_SECONDS} AS TIMESTAMPTZ) END"
_NAIVE = f"CASE WHEN regexp_full_match(trimmed, '{_DAY}({_MINUTES}{_SECONDS})?') THEN try_cast({_WITH_SECONDS} AS TIMESTAMP) END"
_MEANT = {
    "timestamp": 'an ISO 8601 time, such as "2026-01-31T09:00:00Z"',
    "bool": "true or false",
    "int32": "a whole number",
    "int64": "a whole number",
}


class Numbered(NamedTuple):
    """Typed columns, and for each row its number in the file (1 is the first after the header)."""

    columns: dict[str, pa.ChunkedArray]
    numbers: pa.ChunkedArray


def read_csv(source: Source, path: Path, *, since: int | None = None) -> Numbered:
    """Return the columns of ``source.fields`` from the file `path`, as the source's `CsvFile` maps them.

    Blank cells are null. Rows that `CsvFile.where` leaves out are not cast, nor those known up to `since`.

    Raises
    ------
    SchemaError
        For a missing column (with the closest name) or a cell that is not of its dtype (row and column).
    TimeError
        For a time that is naive without `timezone`, ambiguous, or unreadable.
    DataError
        If the file is not UTF-8 text in CSV form.
    """
    file = source.file or CsvFile(path.name, {name: name for name in source.fields})
    text = _filtered(_read_text(path, _header(path, file)), file)
    reading = _Reading(source, file, text if since is None else _later(_Reading(source, file, text), since))
    text = reading.text
    return Numbered({name: reading.column(name) for name in source.fields}, text.column(_NUMBER))


_NUMBER = "\0number"


class _Reading(NamedTuple):
    """One file on its way from text to typed columns."""

    source: Source
    file: CsvFile
    text: pa.Table

    def column(self, name: str) -> pa.ChunkedArray:
        dtype = self.source.fields[name]
        if name in self.file.constants:
            return self._constant(self.file.constants[name], dtype)
        return self._times(name) if dtype == "timestamp" else self._cast(name, _CASTS[dtype])

    def _constant(self, text: str, dtype: str) -> pa.ChunkedArray:
        import pyarrow as pa

        if dtype == "timestamp":
            value = pa.scalar(parse_time(text), pa.int64()).cast(arrow_type(dtype))
        else:
            sql = f"SELECT {_CASTS[dtype]} AS value FROM (SELECT $text AS text, trim($text) AS trimmed)"  # noqa: S608 - no outside text
            value = pa.scalar(engine().con.execute(sql, {"text": text}).fetchone()[0], arrow_type(dtype))
        if not value.is_valid:
            raise SchemaError(
                f"Source {self.source.name!r}: the constant {text!r} is not {dtype}",
                next_step="correct it in CsvFile(constants=...)",
            )
        return pa.chunked_array([pa.repeat(value, self.text.num_rows)])

    def _times(self, name: str) -> pa.ChunkedArray:
        import pyarrow.compute as pc

        aware = self._parse(name, _AWARE).cast(arrow_type("timestamp"))
        local = self._parse(name, _NAIVE)
        self._refuse_unparsed(name, pc.or_(pc.is_valid(aware), pc.is_valid(local)))
        if local.null_count == len(local):
            return aware
        zone, where = self.source.timezone, self._where(name)
        if zone is None:
            row = self._number(pc.index(pc.is_valid(local), True).as_py())
            raise TimeError(
                f"{where}, row {row}: a time without zone",
                exists="Naive times are never guessed",
                next_step=f'declare timezone="UTC" (or the zone they are in) on source {self.source.name!r}',
            )
        told = to_utc(local, zone, ambiguous=self.source.ambiguous, where=where, numbers=self.text.column(_NUMBER))
        return pc.coalesce(aware, told)

    def _cast(self, name: str, cast: str) -> pa.ChunkedArray:
        import pyarrow.compute as pc

        values = self._parse(name, cast).cast(arrow_type(self.source.fields[name]))
        self._refuse_unparsed(name, pc.is_valid(values))
        return values

    def _parse(self, name: str, cast: str) -> pa.ChunkedArray:
        con = engine()
        cells = self.text.select([self.file.columns[name]]).rename_columns(["text"])
        with registered(con, cells) as rows:
            # A blank cell is null before anything else looks at it.
            blank = f"SELECT CASE WHEN trim(text) <> '' THEN text END AS text, nullif(trim(text), '') AS trimmed FROM {rows.get_name()}"  # noqa: S608 - a name of ours
            sql = f"SELECT {cast} AS value FROM ({blank})"  # noqa: S608 - no outside text
            return con.con.execute(sql).to_arrow_table().column("value")

    def _refuse_unparsed(self, name: str, parsed: pa.ChunkedArray) -> None:
        import pyarrow.compute as pc

        text = self.text.column(self.file.columns[name])
        bad = pc.and_not(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(text), ""), False), parsed)
        count = pc.sum(bad).as_py() or 0
        if not count:
            return
        at, dtype = pc.index(bad, True).as_py(), self.source.fields[name]
        error = TimeError if dtype == "timestamp" else SchemaError
        raise error(
            f"{self._where(name)}, row {self._number(at)}: {_shown(text[at].as_py())} is not {_MEANT.get(dtype, 'a number')} ({dtype})",
            exists=f"{count} rows are like it",
            next_step="correct the file, or declare the column with another dtype",
        )

    def _where(self, name: str) -> str:
        return f"{self.file.name}, column {self.file.columns[name]!r}"

    def _number(self, at: int) -> int:
        return int(self.text.column(_NUMBER)[at].as_py())


def _header(path: Path, file: CsvFile) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            header = next(csv.reader(lines), [])
    except UnicodeDecodeError:
        raise DataError(f"{file.name} is not UTF-8 text", next_step="save it as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", next_step="make it a readable CSV file") from None
    if not header:
        raise DataError(f"{file.name} is empty", next_step="give it a header line and rows")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise SchemaError(f"{file.name} has two columns called {twice[0]!r}", next_step="rename one of them")
    for name in [*file.columns.values(), *file.where]:
        if name not in header:
            raise SchemaError(
                f"{file.name} has no column {name!r}",
                exists=f"It has {listed(header)}",
                next_step=closest(name, header) or _separated(header) or "correct the header or CsvFile(columns=...)",
            )
    return header


def _separated(header: list[str]) -> str:
    other = [mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]]
    return f"separate the cells by commas; the file has {other[0]!r}" if other else ""


def _read_text(path: Path, header: list[str]) -> pa.Table:
    """Return every cell as text, with the row numbers."""
    import duckdb
    import pyarrow as pa

    sql = """SELECT * FROM read_csv($path, auto_detect = false, header = true, delim = ',', quote = '"', escape = '"',
             strict_mode = true, columns = {columns})"""
    columns = "{" + ", ".join(f"'{i}': 'VARCHAR'" for i in range(len(header))) + "}"
    try:
        rows = engine().con.execute(sql.replace("{columns}", columns), {"path": str(path)}).to_arrow_table()
    except duckdb.Error as error:
        raise _broken(path, str(error)) from None
    table = rows.rename_columns(header)
    return table.append_column(_NUMBER, pa.array(range(1, table.num_rows + 1), pa.int64()))


def _broken(path: Path, message: str) -> DataError:
    # DuckDB's message repeats the whole line of the file; only where and why are kept.
    line = re.search(r"Line: (\d+)", message)
    where = f"{path.name}, line {line[1]}" if line else path.name
    width = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    why = f"{width[2]} cells where the header has {width[1]}" if width else _cause(message)
    return DataError(f"{where}: {why}", next_step="correct the file (comma-separated, double quotes, UTF-8)")


def _cause(message: str) -> str:
    causes = {"unterminated quote": "a quote that is never closed", "unicode": "not UTF-8 text"}
    return next((told for sign, told in causes.items() if sign in message), "not in CSV form")


def _filtered(text: pa.Table, file: CsvFile) -> pa.Table:
    import pyarrow.compute as pc

    for column, wanted in file.where.items():
        text = text.filter(pc.equal(text.column(column), wanted))
    return text


def _later(reading: _Reading, since: int) -> pa.Table:
    """Return the rows known after `since`, and those whose time is missing, which is told later."""
    import pyarrow as pa
    import pyarrow.compute as pc

    source = reading.source
    known = reading.column(source.known_at or str(source.event_time)).cast(pa.int64())
    return reading.text.filter(pc.fill_null(pc.greater(known, since - (0 if source.known_at else source.delay)), True))


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")
