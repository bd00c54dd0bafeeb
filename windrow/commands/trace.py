"""``windrow trace``."""

from __future__ import annotations

from typing import Any

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, show, show_json


@declare("windrow trace 7c1f0a2b9d3e-1")
@click.argument("request_id", metavar="REQUEST_ID")
def command(request_id: str, *, as_json: bool) -> None:
    """Show what was asked under REQUEST_ID, the vector, the answer, and the outcome if it is known."""
    with progress("reading the prediction log"):
        found = _records(request_id)
    if as_json:
        show_json(found)
        return
    for record in found:
        record["statuses"] = _worded(record.get("statuses"))
        rows = [{"part": name, "value": str(value)} for name, value in record.items() if value not in (None, "", "{}")]
        show(rows, as_json=False, title=f"{record['kind']} {record['request_id']}, row {record['row']}")


def _records(request_id: str) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    from windrow.discover import services
    from windrow.errors import NotFoundError
    from windrow.settings import Settings
    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog

    settings = Settings.read()
    log = PredictionLog(settings.folder("log"), Lake(settings.lake))
    found: list[dict[str, Any]] = []
    for name in services(project=settings.project):
        for kind in ("prediction", "shadow", "outcome", "error"):
            rows = log.table(name, kind=kind)
            rows = rows.filter(pc.equal(rows["request_id"], request_id))
            found += [{"kind": kind, **{k: _plain(v) for k, v in row.items()}} for row in rows.to_pylist()]
    if not found:
        raise NotFoundError(f"the log has no request {request_id!r}", next_step="copy the request_id of an answer")
    return found


def _worded(statuses: str | None) -> str:
    import msgspec

    from windrow.schema import Status

    codes = msgspec.json.decode(statuses or "{}")
    return ", ".join(f"{feature} {Status(code).name.lower()}" for feature, code in codes.items())


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
