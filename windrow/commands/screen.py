"""What commands print: tables for people, JSON for programs, progress for those who wait."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console

_PATIENCE = 2.0  # seconds after which a wait is explained
_HELP = {"help_option_names": ["-h", "--help"]}
_BAR = 30  # characters
_PIPE_WIDTH = 120  # columns of a table that goes to a file or a log

Row = Mapping[str, Any]
Step = Callable[[str], None]


def command(example: str) -> Callable[[Callable[..., Any]], click.Command]:
    r"""Declare a command with ``--help`` that ends in an example, and with ``--json``.

    Examples
    --------
    >>> @command("windrow hello --json")
    ... def hello(*, as_json: bool) -> None:
    ...     "Say hello."
    >>> hello.epilog
    '\x08\nExample:\n  windrow hello --json'
    """

    def declare(function: Callable[..., Any]) -> click.Command:
        flag = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
        return click.command(epilog=_epilog(example), context_settings=_HELP)(flag(function))

    return declare


def group(example: str) -> Callable[[Callable[..., Any]], click.Group]:
    r"""Declare a command of several words, each declared by `command` and added to it.

    Examples
    --------
    >>> @group("windrow hello world")
    ... def hello() -> None:
    ...     "Say hello."
    >>> hello.epilog
    '\x08\nExample:\n  windrow hello world'
    """
    return click.group(epilog=_epilog(example), context_settings=_HELP)


def _epilog(example: str) -> str:
    lines = "\n".join(f"  {line}" for line in example.splitlines())
    return f"\b\nExample:\n{lines}"


def show(rows: Sequence[Row], *, as_json: bool, title: str = "", empty: str = "Nothing.") -> None:
    """Print rows as a table, or as a JSON list; the keys of the first row are the columns.

    Texts stand in the table as they are; a cell with a style is a ``rich.text.Text``.
    """
    if as_json:
        show_json(list(rows))
    elif not rows:
        click.echo(empty)
    else:
        _print_table(rows, title)


def show_json(value: Any) -> None:
    """Print a value as indented JSON on standard output."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def program() -> str:
    """Return how this command line is called from here: ``windrow``, or its path where that is not found.

    Examples
    --------
    >>> program().endswith("windrow")
    True
    """
    found = shutil.which("windrow")
    own = Path(sys.executable).parent / "windrow"
    return "windrow" if found or not own.exists() else os.path.relpath(own)


def say(text: str, *, as_json: bool = False, style: str = "") -> None:
    """Print one line for people, as it is: nothing with ``--json``, where standard output belongs to the program."""
    if not as_json:
        console().print(text, style=style or None, markup=False, emoji=False)


@contextmanager
def progress(what: str) -> Iterator[Step]:
    """Show what is being done, on standard error, once it has taken more than two seconds.

    The yielded function changes the text: ``step("training")``.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what)
    waiter = threading.Timer(_PATIENCE, bar.start)
    waiter.daemon = True
    waiter.start()
    try:
        yield lambda text: bar.update(task, description=text)
    finally:
        waiter.cancel()
        waiter.join()
        if bar.live.is_started:
            bar.stop()


class Teller:
    """Says what is being done while it is, and keeps a line with the seconds it took."""

    def __init__(self, *, as_json: bool) -> None:
        from rich.console import Console

        self._console = Console(stderr=True) if as_json else console()
        self._status = self._console.status("")
        self._text, self._begin = "", 0.0

    def __enter__(self) -> Step:
        self._status.start()
        return self.tell

    def __exit__(self, *error: object) -> None:
        self._status.stop()
        self._finish("stopped at: " if error[0] else "")

    def tell(self, text: str) -> None:
        """Say what is done from now on."""
        self._finish()
        self._text, self._begin = text, time.monotonic()
        self._status.update(text)

    def advance(self, text: str, share: float) -> None:
        """Say how much of it is over, as a bar."""
        done = round(share * _BAR)
        self._status.update(f"{self._text}  {'━' * done}{'╌' * (_BAR - done)}  {text}")

    def _finish(self, mark: str = "") -> None:
        if self._text:
            self._console.print(f"{time.monotonic() - self._begin:6.1f} s  {mark}{self._text}")


def console() -> Console:
    """Return a console on standard output, wide enough for tables where there is no terminal."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(width=_PIPE_WIDTH, highlight=False)


def _print_table(rows: Sequence[Row], title: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # As Text, because rich takes what stands in brackets, such as in a reason, for a style of its own.
    table = Table(title=Text(title) if title else None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    numbers = {key for key, value in rows[0].items() if isinstance(value, int | float) and not isinstance(value, bool)}
    for i, key in enumerate(rows[0]):
        side: Literal["left", "right"] = "right" if key in numbers else "left"
        table.add_column(key.replace("_", " "), justify=side, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else Text(cell(value)) for value in row.values()))
    console().print(table)


def cell(value: Any) -> str:
    """Return a value as the text of a table cell.

    Examples
    --------
    >>> cell(None), cell(True), cell(0.123456), cell(12345), cell(["a", {"b": 1}])
    ('-', 'yes', '0.123', '12,345', 'a, b 1')
    """
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name} {cell(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return str(value)
