"""``windrow promote``."""

from __future__ import annotations

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show_json


@declare("windrow promote churn churn-3-2297fc")
@click.argument("service", metavar="SERVICE")
@click.argument("release", metavar="RELEASE")
@click.option("--reason", default="by hand", show_default=True, help="Why, for whoever reads the history.")
def command(service: str, release: str, *, reason: str, as_json: bool) -> None:
    """Make RELEASE the one that answers for SERVICE, at once and without a restart.

    Its files are checked and its golden answers repeated before.
    """
    with progress(f"promoting {release}"):
        before = deploy(service, release, reason=reason)
    if as_json:
        show_json({"service": service, "live": release, "before": before})
    say(f"{release} answers for {service} now (before: {before or 'none'}).", as_json=as_json)


def deploy(service: str, release: str | None, *, reason: str) -> str | None:
    """Make a release live and return the one that was; without `release`, the one that was live before it."""
    from windrow.discover import pick, services
    from windrow.errors import NotFoundError
    from windrow.models.registry import Registry
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    settings = Settings.read()
    pick(services(project=settings.project), service)
    metadata = Metadata(settings.metadata)
    live = metadata.live(service)
    if release is None:
        earlier = [d.release for d in metadata.deployments(service) if d.release != live]
        if not earlier:
            raise NotFoundError(
                f"service {service!r} never had another live release", next_step=f"run windrow releases {service}"
            )
        release = earlier[-1]
    Registry(metadata, settings.folder("releases")).promote(service, release, reason=reason)
    return live
