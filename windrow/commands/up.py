"""``windrow up``."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show_json

if TYPE_CHECKING:
    from windrow.up import House


@declare("windrow up\nwindrow up --port 3000 --dagster-port 3001\nwindrow up --insecure")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the online service. Default: 3000, or a free one.")
@click.option("--dagster-port", type=click.IntRange(1, 65535), help="Of Dagster. Default: 3001, or a free one.")
@click.option("--insecure", is_flag=True, help="Ask for no access keys: everybody on this machine may do everything.")
def command(*, port: int | None, dagster_port: int | None, insecure: bool, as_json: bool) -> None:
    """Start Dagster and the online service, print their addresses, and keep them until Ctrl-C.

    The online service asks for an access key: one for this machine is made, others come from `windrow keys create`.

    Of each service that declares a stream, rows are answered as they come in (windrow run SERVICE --follow).
    """
    import msgspec

    from windrow.settings import Settings
    from windrow.up import House

    settings = Settings.read()
    with House(msgspec.structs.replace(settings, insecure=insecure or settings.insecure)) as house:
        with progress("reading the project") as step:
            house.start(step if sys.stderr.isatty() else _line, port=port, dagster_port=dagster_port)
        if as_json:
            show_json(house.addresses)
        else:
            for name, url in house.addresses.items():
                say(f"  {name:<18} {url}")
            for service, log in house.streams.items():
                say(f"  stream of {service}: answered from its first release on; log: {log}")
            _say_key(house)
            say("  Events of a source or group go to the online service: POST /v1/ingest/NAME")
            say(f"Logs: {house.logs}. Ctrl-C ends all.")
        house.wait(_line)


def _say_key(house: House) -> None:
    file = house.key_file
    if file is None:
        say("  No access keys are asked for: everybody on this machine may do everything.", style="yellow")
        return
    say(f"  access key         in {file}: sign in with it, or")
    say(f'                     curl -H "authorization: Bearer $(cat {shlex.quote(str(file))})" ...')


def _line(text: str) -> None:
    click.echo(text, err=True)
