"""The command line: one word per verb, each in its own module of `windrow.commands`, loaded when it is used."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches

import click

from windrow.errors import SettingsError, UnknownNameError, WindrowError, listed
from windrow.telemetry import switch_off

# Told here and not in the modules, so that `windrow --help` imports none of them.
_COMMANDS = {
    "demo": "Run every service the whole way round and show what came of it.",
    "up": "Start Dagster, the online service and the followers of streams, until Ctrl-C.",
    "services": "List the prediction services of the project.",
    "run": "Materialise everything of one service, from its sources to its release.",
    "releases": "List the releases of a service, the live one marked.",
    "promote": "Make a release the one that answers.",
    "rollback": "Let the release that was live before answer again.",
    "keys": "Make, list and revoke access keys of the online service; read the audit.",
    "experiment": "Let other releases answer a share of the requests.",
    "onboard": "Make a release of a model that was made elsewhere.",
    "branch": "Try changes on everything stored, without a copy and without a trace.",
    "materialize": "Bring one feature group up to date, in the lake and online.",
    "audit": "Prove that what was served is what was known at the time.",
    "recreate": "Make a training dataset again and say what differs, and why.",
    "trace": "Show what was asked and answered under a request id.",
    "forget": "Erase an entity everywhere, for good.",
    "diff": "Show what two commits (or folders) declare differently.",
    "doctor": "Prove each configured part end to end.",
    "new": "Make a new project in an empty folder.",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"windrow.commands.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            close = get_close_matches(args[0], _COMMANDS, n=1)
            next_step = f"Did you mean {close[0]!r}?" if close else f"There are: {listed(_COMMANDS, shown=20)}."
            raise click.UsageError(f"There is no command {args[0]!r}. {next_step}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="windrow", message="windrow %(version)s")
def cli() -> None:
    """Notebook-first prediction services whose features, training and inference agree in time.

    Every command takes --json, and exits with 0 (it worked), 1 (it did not) or 2 (it was called wrongly: an
    argument, name or setting that cannot be used).
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the entry point of the installed ``windrow``."""
    switch_off()
    # Threads of numerical libraries wait by spinning: when somebody else uses the other core, a training of
    # one second takes half a minute. Read when the library is loaded, so before everything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: errors that windrow raises on purpose are shown as their message."""
    try:
        _check_text(arguments)
        # Without a command there is only the help, which is an answer and not an error.
        code = cli.main(list(arguments) or ["--help"], prog_name="windrow", standalone_mode=False)
    except WindrowError as error:
        click.echo(f"{type(error).__name__}: {error.message}", err=True)
        return 2 if _called_wrongly(error, arguments) else 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; the interpreter must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0


def _called_wrongly(error: WindrowError, arguments: Sequence[str]) -> bool:
    """Return whether what was typed, or a setting, cannot be used; a declaration that is wrong is no fault of the call."""
    if isinstance(error, UnknownNameError):
        return error.name in {part for argument in arguments for part in (argument, *re.split(r"=|\.\.|,", argument))}
    return isinstance(error, SettingsError)


def _check_text(arguments: Sequence[str]) -> None:
    # Python hands over bytes that are no text as lone surrogates, which no store takes.
    for argument in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise click.UsageError(f"{argument!r} is no text in UTF-8")


if __name__ == "__main__":
    main()
