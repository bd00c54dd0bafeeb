"""``windrow new``."""

from __future__ import annotations

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import say, show_json


@declare("windrow new harvest\ncd harvest && make demo")
@click.argument("name", metavar="NAME")
def command(name: str, *, as_json: bool) -> None:
    """Make a new project in the folder NAME, which must be empty or not there.

    It has one small service that works, and the shape to add your own.
    """
    from pathlib import Path

    from windrow.new import create

    here = Path.cwd()
    written = create(name, parent=here)
    if as_json:
        show_json({"project": str(here / name), "files": [str(path.relative_to(here / name)) for path in written]})
    say(f"Made {name}/ with {len(written)} files. Next: cd {name} && make demo", as_json=as_json)
