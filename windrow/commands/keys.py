"""``windrow keys``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from windrow.commands.screen import cell, group, say, show, show_json
from windrow.commands.screen import command as declare

if TYPE_CHECKING:
    from windrow.stores.metadata import AccessKey, Metadata


@group("windrow keys create till-7 --scope predict --scope outcomes --rate 50\nwindrow keys list --json")
def command() -> None:
    """Make, list and revoke the access keys of the online service, and read the audit.

    A key is sent as `Authorization: Bearer wr_...`. It may do what its scopes say: predict (also batches), ingest
    (events), outcomes, explain, metrics (also the pages at / and /ui), admin (everything). Every command takes --json.
    """


@declare("windrow keys create till-7 --scope predict --scope outcomes --rate 50 --expires 90d")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What it may do; give it once for each.")
@click.option("--rate", type=float, help="Requests per second (and worker) at most. Default: no limit.")
@click.option(
    "--expires", metavar="WHEN", help="After a time such as 90d, or at one such as 2027-01-31. Default: never."
)
def create(name: str, *, scopes: tuple[str, ...], rate: float | None, expires: str | None, as_json: bool) -> None:
    """Make a key for NAME and show it, this once: only its hash is kept."""
    from windrow.serving.keys import make_key

    expires_at = None if expires is None else _moment(expires)
    kept, key = make_key(_metadata(), name, scopes=scopes, rate=rate, expires_at=expires_at)
    if as_json:
        show_json({**_row(kept), "key": key})
        return
    say(f"Key {kept.id} of {kept.name} may: {', '.join(kept.scopes)}. It is shown this once:")
    click.echo(key)


@declare("windrow keys list")
def list_(*, as_json: bool) -> None:
    """List every key that was ever made; never the keys themselves."""
    rows = [_row(key) for key in _metadata().access_keys()]
    show(rows, as_json=as_json, title="Access keys", empty="None yet. Next: windrow keys create NAME --scope predict")


@declare("windrow keys revoke 0a1b2c3d4e")
@click.argument("id")
def revoke(id: str, *, as_json: bool) -> None:
    """Revoke the key with an ID for good; running services refuse it within a second."""
    now = _metadata().revoke_key(id)
    if as_json:
        show_json({"id": id, "revoked": now})
    say(f"Key {id} is revoked." if now else f"Key {id} was revoked before.", as_json=as_json)


@declare("windrow keys audit --last 20")
@click.option("--last", type=click.IntRange(1), help="Only so many, the newest. Default: all.")
def audit(*, last: int | None, as_json: bool) -> None:
    """Show who made and revoked keys, promoted releases, rolled back, and signed in."""
    from windrow.clock import from_micros

    rows = [
        {
            "at": from_micros(r.at).isoformat(timespec="seconds"),
            "who": r.who,
            "action": r.action,
            "of": r.subject,
            "facts": r.document if as_json else "; ".join(_fact(name, value) for name, value in r.document.items()),
        }
        for r in _metadata().audit()[-(last or 0) :]
    ]
    show(rows, as_json=as_json, title="Audit", empty="Nothing was administered yet.")


def _metadata() -> Metadata:
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    return Metadata(Settings.read().metadata)


def _row(key: AccessKey) -> dict[str, Any]:
    from windrow.clock import from_micros

    times = {"made": key.at, "expires": key.expires_at, "revoked": key.revoked_at}
    told = {name: at and from_micros(at).isoformat(timespec="seconds") for name, at in times.items()}
    return {"id": key.id, "name": key.name, "scopes": list(key.scopes), "rate": key.rate, **told}


def _fact(name: str, value: Any) -> str:
    from windrow.clock import from_micros

    if name.endswith("_at") and value is not None:
        value = from_micros(value).isoformat(timespec="seconds")
    return f"{name} {cell(value)}"


def _moment(text: str) -> int:
    """Return the time that a text names, or that lies a duration from now: UTC microseconds of the wall clock."""
    import time

    from windrow.clock import duration, parse_time
    from windrow.errors import DeclarationError, SettingsError, TimeError

    try:
        length = text[:-1].isdigit() and not text[-1:].isdigit()
        return time.time_ns() // 1000 + duration(text) if length else parse_time(text)
    except (TimeError, DeclarationError):
        raise SettingsError(
            f"--expires {text!r} is neither a time nor a duration", next_step="write 90d, or 2027-01-31"
        ) from None


command.add_command(create, "create")
command.add_command(list_, "list")
command.add_command(revoke, "revoke")
command.add_command(audit, "audit")
