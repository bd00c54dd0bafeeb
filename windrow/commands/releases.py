"""``windrow releases``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, show

if TYPE_CHECKING:
    from windrow.models.release import Release


@declare("windrow releases churn")
@click.argument("service", metavar="SERVICE")
def command(service: str, *, as_json: bool) -> None:
    """List the releases of SERVICE, newest first, the live one marked."""
    from windrow.discover import pick, services
    from windrow.models.registry import Registry
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    settings = Settings.read()
    with progress("reading the registry"):
        pick(services(project=settings.project), service)
        metadata = Metadata(settings.metadata)
        registry = Registry(metadata, settings.folder("releases"))
        live = metadata.live(service)
        rows = [_row(release, live) for release in reversed(registry.list(service))]
    show(rows, as_json=as_json, title=f"Releases of {service}", empty=f"None yet. Next: windrow run {service}")


def _row(release: Release, live: str | None) -> dict[str, Any]:
    from windrow.clock import from_micros

    return {
        "release": release.id,
        "live": release.id == live,
        "made": from_micros(release.created_at).isoformat(timespec="seconds"),
        "rows": release.dataset.rows,
        "backend": release.backend,
        "metrics": ", ".join(f"{name} {value:.4g}" for name, value in release.metrics.items()),
        "gates": "passed" if release.passed else "failed",
    }
