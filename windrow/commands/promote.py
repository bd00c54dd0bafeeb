"""``windrow promote``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show_json

if TYPE_CHECKING:
    from windrow.models.promotion import Override
    from windrow.models.registry import Registry


def signature(decorated: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a signature under what the rules refuse."""
    why = click.option("--override", metavar="WHY", help="Sign for what the rules refuse; it stays visible.")
    return why(click.option("--by", metavar="NAME", help="Who signs; needed with --override.")(decorated))


@declare(
    "windrow promote churn churn-3-2297fc\n"
    'windrow promote churn churn-4-81d0aa --override "the old model is down, minute 7" --by ada'
)
@click.argument("service", metavar="SERVICE")
@click.argument("release", metavar="RELEASE")
@click.option("--reason", default="by hand", show_default=True, help="Why, for whoever reads the history.")
@signature
def command(service: str, release: str, *, reason: str, override: str | None, by: str | None, as_json: bool) -> None:
    """Make RELEASE the one that answers for SERVICE, at once and without a restart.

    Refused where a gate failed, where it was never evaluated, and where a feature group of it had no
    materialisation for twice its schedule. Its files are checked and its golden answers repeated before.
    """
    registry = registry_of(service)
    live = registry.live(service)
    before = None if live is None else live.id
    with progress(f"promoting {release}"):
        signed = registry.promote(service, release, reason=override or reason, override=signed_by(override, by))
    if as_json:
        show_json({"service": service, "live": release, "before": before, "override": signed})
    _say(service, release, before, as_json=as_json)
    say_compared(service, release, as_json=as_json)
    if override and before != release and not as_json:
        say(
            f"Signed by {by}: {'; '.join(signed.objections)}." if signed else "No rule was in the way: nothing to sign."
        )


def _say(service: str, release: str, before: str | None, *, as_json: bool) -> None:
    if before == release:
        say(f"{release} is live already: nothing was changed.", as_json=as_json)
    else:
        say(f"{release} answers for {service} now (before: {before or 'none'}).", as_json=as_json)


def say_compared(service: str, live: str, *, as_json: bool) -> None:
    """Say which running experiments compare the live release with itself now: nobody can learn from them."""
    from windrow.models.experiments import newest
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    for one in newest(Metadata(Settings.read().metadata), service).values():
        if one.running and live in one.releases:
            told = f"Experiment {one.name} compares {live} with itself from now on. Next: windrow experiment stop {service} {one.name}"
            say(told, style="yellow", as_json=as_json)


def signed_by(override: str | None, by: str | None) -> Override | None:
    """Return the signature of the options; one without the other is refused."""
    from windrow.models.promotion import Override

    if override is None and by is None:
        return None
    return Override(by=by or "", reason=override or "")


def registry_of(service: str) -> Registry:
    """Return the project's registry, after a look whether it has the service."""
    from windrow.discover import pick, services
    from windrow.models.registry import Registry
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    settings = Settings.read()
    pick(services(project=settings.project), service)
    return Registry(Metadata(settings.metadata), settings.folder("releases"), clock=settings.clock)
