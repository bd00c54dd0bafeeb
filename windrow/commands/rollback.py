"""``windrow rollback``."""

from __future__ import annotations

import click

from windrow.commands.promote import registry_of, say_compared, signature, signed_by
from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show_json


@declare("windrow rollback churn")
@click.argument("service", metavar="SERVICE")
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why, for whoever reads the history.")
@signature
def command(service: str, *, reason: str, override: str | None, by: str | None, as_json: bool) -> None:
    """Let the release that was live before answer for SERVICE again, at once and without a restart.

    Refused where nobody materialises a feature group of it any more that the live release does not read.
    """
    registry = registry_of(service)
    before = registry.live(service)
    with progress(f"rolling back {service}"):
        live = registry.rollback(service, reason=override or reason, override=signed_by(override, by))
    left = None if before is None else before.id
    if as_json:
        show_json({"service": service, "live": live.id, "before": left})
    say(f"{live.id} answers for {service} again (before: {left}).", as_json=as_json)
    say_compared(service, live.id, as_json=as_json)
