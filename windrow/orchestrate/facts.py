"""Facts about assets in the form that Dagster shows: schemas, counts, times, failures."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from windrow.clock import from_micros
from windrow.errors import WindrowError
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ, fingerprint

if TYPE_CHECKING:
    from windrow.settings import Settings
    from windrow.stores.lake import LakeTable

Metadata = dict[str, Any]
_ADDRESS, _DEFAULT_ADDRESS = "service/url", "http://127.0.0.1:3000"
_SYSTEM = {EVENT_TIME: "when it was true", KNOWN_AT: "when it could be known", SEQ: "write order"}


def asset_key(key: str) -> dg.AssetKey:
    """Return the Dagster key of a windrow key: its parts between slashes.

    Examples
    --------
    >>> asset_key("features/card_v1").path
    ['features', 'card_v1']
    """
    return dg.AssetKey(key.split("/"))


def owners(owner: str | None) -> list[str]:
    """Return an owner in Dagster's form: an address, or ``team:`` and a plain name.

    Examples
    --------
    >>> owners("team:grid"), owners("Data Science"), owners(None)
    (['team:grid'], ['team:Data_Science'], [])
    """
    if owner is None:
        return []
    if "@" in owner:
        return [owner]
    return ["team:" + re.sub(r"\W", "_", owner.removeprefix("team:"))]


def declared_schema(item: Source | FeatureGroup) -> dg.TableSchema:
    """Return the columns of a source or group as declared, keys first."""
    keys = set(item.entity.key_names) if isinstance(item, FeatureGroup) else {item.id}
    columns = [(name, dtype, "key" if name in keys else None) for name, dtype in item.fields.items()]
    columns += [(name, "timestamp" if name != SEQ else "int64", text) for name, text in _SYSTEM.items()]
    return schema_of(columns)


def schema_of(columns: Sequence[tuple[str, str, str | None]]) -> dg.TableSchema:
    """Return a table schema of (name, dtype, description)."""
    return dg.TableSchema(columns=[dg.TableColumn(name, dtype, description=text) for name, dtype, text in columns])


def table_facts(table: "LakeTable") -> Metadata:
    """Return what a stored table holds now: rows, files, bytes, first and last time."""
    stats = table.stats()
    facts: Metadata = {"dagster/row_count": stats.rows, "files": stats.files, "bytes": stats.bytes}
    times = {"first event": stats.first, "last event": stats.last, "last known": stats.last_known}
    return facts | {name: moment(at) for name, at in times.items() if at is not None}


def moment(micros: int) -> dg.TimestampMetadataValue:
    """Return a time as the UI shows times."""
    return dg.MetadataValue.timestamp(from_micros(micros))


def table_fingerprint(table: "LakeTable") -> str:
    """Return 16 hex digits that change with the rows of a table, whatever their order or files."""
    from windrow.stores.engine import engine

    con = engine()
    rows = con.compile(table.scan(con).drop(SEQ))
    query = f"select count(*), sum(hash(r)::hugeint), bit_xor(hash(r)) from ({rows}) r"  # noqa: S608 - compiled by Ibis
    total = con.raw_sql(query).fetchone()
    return fingerprint([str(part) for part in total])


def counts(values: Mapping[str, int]) -> dg.MarkdownMetadataValue:
    """Return named counts as a small table."""
    lines = [f"| {_cell(name)} | {count:,} |" for name, count in values.items()]
    return dg.MetadataValue.md("\n".join(["| | rows |", "|---|---:|", *lines]))


def comparison(metrics: Mapping[str, float], others: Mapping[str, Mapping[str, float]]) -> dg.MarkdownMetadataValue:
    """Return the model's metrics beside others, such as the baseline's, a column each."""
    rows = [[n, f"{v:.5g}", *(_number(of.get(n)) for of in others.values())] for n, v in metrics.items()]
    return table_of(["metric", "model", *others], rows)


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> dg.MarkdownMetadataValue:
    """Return a table of text, names to the left and the rest to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines))


def failure(error: WindrowError, metadata: Mapping[str, Any] | None = None) -> dg.Failure:
    """Return the failure that the UI shows for an error: what is wrong, what exists, the next step."""
    facts = {"error": type(error).__name__, "what": error.what, "exists": error.exists, "next step": error.next_step}
    shown = {name: text for name, text in facts.items() if text}
    # Trying again does not mend what a person has to mend.
    return dg.Failure(error.message, metadata={**shown, **(metadata or {})}, allow_retries=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def report_address(settings: "Settings") -> str:
    """Return the address that reports and model cards are linked by; ``windrow up`` answers there, whatever its port."""
    file = settings.home / _ADDRESS
    return file.read_text(encoding="utf-8").strip() if file.is_file() else _DEFAULT_ADDRESS
