"""``windrow services``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, show

if TYPE_CHECKING:
    from windrow.models.service import PredictionService


@declare("windrow services")
@click.option("--package", default="assets", show_default=True, help="Package that declares the services.")
def command(*, package: str, as_json: bool) -> None:
    """List the prediction services of the project."""
    from windrow.discover import services
    from windrow.settings import Settings

    with progress("reading the declarations"):
        found = services(package, project=Settings.read().project)
        rows = [_row(service, long=as_json) for service in found.values()]
    show(rows, as_json=as_json, title="Prediction services")


def _row(service: PredictionService, *, long: bool) -> dict[str, Any]:
    contract = service.view.contract
    row: dict[str, Any] = {
        "service": service.name,
        "predicts": service.description
        or ("a class" if service.label.binary or service.label.multiclass else "a number"),
        "request": [field.name for field in contract.request],
        "features": len(contract.features),
        "online": f"p99 <= {service.online.p99_ms:g} ms" if service.online else None,
        "batch": service.batch.schedule if service.batch else None,
        "stream": f"looks back {service.stream.lookback}" if service.stream else None,
    }
    if long:
        row |= {"owner": service.owner, "fingerprint": service.fingerprint, "feature_names": contract.feature_names}
        row |= {"groups": [g.table_name for g in service.view.groups], "sources": [s.name for s in service.sources]}
    return row
