"""``windrow audit``."""

from __future__ import annotations

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show, show_json


@declare("windrow audit churn\nwindrow audit churn --release churn-3-f00d42")
@click.argument("service", metavar="SERVICE")
@click.option("--release", metavar="ID", help="Judge what this release served. Default: the live one.")
@click.pass_context
def command(ctx: click.Context, service: str, *, release: str | None, as_json: bool) -> None:
    """Prove that what SERVICE served is what was known: each logged vector against the point-in-time join.

    Exits with 1 if a value differs.
    """
    import msgspec

    from windrow.discover import pick, services
    from windrow.monitoring.audit import audit
    from windrow.orchestrate.releases import bundle_of, live_bundle
    from windrow.orchestrate.resources import Stores
    from windrow.settings import Settings
    from windrow.stores.engine import engine

    stores = Stores(Settings.read())
    with progress("recomputing every served vector"):
        found = pick(services(project=stores.settings.project), service)
        bundle = live_bundle(found, stores) if release is None else bundle_of(found, stores, release)
        report = audit(found, bundle, lake=stores.lake, log=stores.log, con=engine())
    if as_json:
        show_json({**msgspec.to_builtins(report), "passed": report.passed})
    else:
        rows = [msgspec.structs.asdict(difference) for difference in report.shown]
        show(
            rows, as_json=False, title=f"Served by {report.release}, and not what was known", empty="No value differs."
        )
        say(f"  {report.equal:,} of {report.rows:,} logged vectors equal the offline ones")
        if report.others:
            left = ", ".join(f"{id} ({rows:,})" for id, rows in report.others.items())
            say(f"  Not judged: what other releases served, {left}; name one with --release")
    ctx.exit(0 if report.passed else 1)
