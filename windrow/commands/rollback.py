"""``windrow rollback``."""

from __future__ import annotations

import click

from windrow.commands.promote import deploy
from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show_json


@declare("windrow rollback churn")
@click.argument("service", metavar="SERVICE")
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why, for whoever reads the history.")
def command(service: str, *, reason: str, as_json: bool) -> None:
    """Let the release that was live before answer for SERVICE again, at once and without a restart."""
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    with progress(f"rolling back {service}"):
        before = deploy(service, None, reason=reason)
        live = Metadata(Settings.read().metadata).live(service)
    if as_json:
        show_json({"service": service, "live": live, "before": before})
    say(f"{live} answers for {service} again (before: {before}).", as_json=as_json)
