"""``windrow up``."""

from __future__ import annotations

import sys

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show_json


@declare("windrow up\nwindrow up --port 3000 --dagster-port 3001")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the online service. Default: 3000, or a free one.")
@click.option("--dagster-port", type=click.IntRange(1, 65535), help="Of Dagster. Default: 3001, or a free one.")
def command(*, port: int | None, dagster_port: int | None, as_json: bool) -> None:
    """Start Dagster and the online service, print their addresses, and keep them until Ctrl-C.

    Of each service that declares a stream, rows are answered as they come in (windrow run SERVICE --follow).
    """
    from windrow.settings import Settings
    from windrow.up import House

    with House(Settings.read()) as house:
        with progress("reading the project") as step:
            house.start(step if sys.stderr.isatty() else _line, port=port, dagster_port=dagster_port)
        if as_json:
            show_json(house.addresses)
        else:
            for name, url in house.addresses.items():
                say(f"  {name:<18} {url}")
            for service, log in house.streams.items():
                say(f"  stream of {service}: answered from its first release on; log: {log}")
            say("  Events of a source or group go to the online service: POST /v1/ingest/NAME")
            say(f"Logs: {house.logs}. Ctrl-C ends all.")
        house.wait(_line)


def _line(text: str) -> None:
    click.echo(text, err=True)
