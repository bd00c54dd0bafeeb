"""``windrow releases``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from windrow.commands.promote import registry_of
from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show, show_json

if TYPE_CHECKING:
    from windrow.models.registry import Registry
    from windrow.models.release import Release
    from windrow.stores.metadata import Deployment


@declare("windrow releases churn\nwindrow releases churn --history\nwindrow releases churn --at 2026-01-31T09:00:00Z")
@click.argument("service", metavar="SERVICE")
@click.option(
    "--at", metavar="TIME", help="Which release answered at this time (ISO, with zone; a date is its first instant)."
)
@click.option("--history", is_flag=True, help="Every change of the live release, newest first.")
def command(service: str, *, at: str | None, history: bool, as_json: bool) -> None:
    """List the releases of SERVICE, newest first, the live one marked."""
    with progress("reading the registry"):
        registry = registry_of(service)
    if at is not None:
        _answered(registry, service, at, as_json=as_json)
        return
    rows = _history(registry, service) if history else _releases(registry, service)
    show(rows, as_json=as_json, title=f"Releases of {service}", empty=f"None yet. Next: windrow run {service}")


def _answered(registry: Registry, service: str, at: str, *, as_json: bool) -> None:
    from windrow.clock import from_micros, parse_time
    from windrow.errors import TimeError

    try:
        moment = parse_time(at)
    except TimeError as error:
        raise TimeError(f"--at {at!r}: {error.what}", next_step=error.next_step) from None
    if moment > time.time_ns() // 1000:
        raise TimeError(
            f"{at} is yet to come, and nobody knows what will answer then",
            next_step=f"leave --at out for what answers now: windrow releases {service}",
        )
    found = registry.live_at(service, moment)
    if as_json:
        show_json(
            {
                "service": service,
                "at": from_micros(moment).isoformat(),
                "deployment": None if found is None else _deployed(found),
            }
        )
    elif found is None:
        say(f"Nothing answered for {service} at {at}: its first release came later.")
    else:
        told = _deployed(found)
        signed = f" Override by {told['override']}." if told["override"] else ""
        say(f"{found.release} answered for {service} at {at}, since {told['since']} ({found.reason}).{signed}")


def _releases(registry: Registry, service: str) -> list[dict[str, Any]]:
    history, live = registry.history(service), registry.live(service)
    signed = {d.release: _signed(d) for d in history if d.override}
    return [
        {
            **_row(release),
            "latency": _latency(release),
            "live": live is not None and release.id == live.id,
            "override": signed.get(release.id, ""),
        }
        for release in reversed(registry.list(service))
    ]


def _history(registry: Registry, service: str) -> list[dict[str, Any]]:
    return [_deployed(one) for one in reversed(registry.history(service))]


def _deployed(found: Deployment) -> dict[str, Any]:
    from windrow.clock import from_micros

    since = from_micros(found.at).isoformat(timespec="seconds")
    return {"release": found.release, "since": since, "reason": found.reason, "override": _signed(found)}


def _signed(found: Deployment) -> str:
    if found.override is None:
        return ""
    return f"{found.override['by']}: {found.override['reason']} (against: {'; '.join(found.override['objections'])})"


def _row(release: Release) -> dict[str, Any]:
    from windrow.clock import from_micros

    return {
        "release": release.id,
        "live": False,
        "made": from_micros(release.created_at).isoformat(timespec="seconds"),
        "rows": release.dataset.rows,
        "backend": release.backend,
        "metrics": ", ".join(f"{name} {value:.4g}" for name, value in release.metrics.items()),
        "gates": _gates(release),
    }


def _latency(release: Release) -> str:
    """Say what the online service found when it was to go live, or that it has not been timed."""
    from windrow.serving.budget import latency_folder, read_timed
    from windrow.settings import Settings

    if release.p99_ms is None:
        return ""
    found = read_timed(latency_folder(Settings.read()), release.id)
    return f"not timed; budget {release.p99_ms:g} ms" if found is None else str(found)


def _gates(release: Release) -> str:
    """Say what the gates make of a release today; a waiver that has ended counts no more."""
    from windrow.clock import from_micros

    now = time.time_ns() // 1000
    failed = [gate.name or gate.metric for gate in release.failed(now)]
    if failed:
        return f"failed: {', '.join(failed)}"
    waived = [g for g in release.gates if g.verdict(now) == "waived" and g.waived is not None]
    told = (f"{g.name} until {from_micros(g.waived.until).date()} ({g.waived.reason})" for g in waived if g.waived)
    return f"waived: {', '.join(told)}" if waived else "passed"
