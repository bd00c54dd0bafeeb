"""One Settings object: every place windrow reads from or writes to, chosen by URL, never by ``if env ==``."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from windrow.clock import Clock, from_micros
from windrow.environment import checked, placed, template
from windrow.errors import SettingsError, closest, listed

_PREFIX = "WINDROW_"
_PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")  # of redis://:password@host and postgresql://user:password@host
_PLACES = ("HOME", "LAKE", "ONLINE", "METADATA", "STREAMS", "SINK_POSTGRES", "CACHE")  # all that is written to
BRANCHES, BRANCH_FILE = "branches", "branch.json"  # folder of a home, and what says that a branch in it is whole
REFUSE, SHED = "refuse", "shed"
_LAUNCH_ONLY = ("PYTHON", "CLEAN")  # read by the Makefile and the tests, not by the library


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are.

    Attributes
    ----------
    home
        Folder of everything windrow writes (default ``.windrow``).
    data
        Folder of data files; where a source's file is missing its simulator answers.
    project
        Folder with ``assets/``, ``notebooks/`` and ``bento/``.
    lake, online, metadata
        URLs of the tables, the online store and the metadata store; default: inside `home`.
    env
        Name of the environment (`WINDROW_ENV`, such as ``prod``; default: none). It has a part of its own of every place
        above, of `streams` and of `cache`: see `windrow.environment`.
    clock
        ``real``, ``data`` or ``fixed:<time>``.
    ingest_every
        Seconds (`WINDROW_INGEST_EVERY`) after which accepted events are committed to the lake.
    ingest_backlog
        Bytes (`WINDROW_INGEST_BACKLOG`) of accepted events that may wait for the lake before more are refused.
    log_backlog
        Bytes (`WINDROW_LOG_BACKLOG`) of the prediction log that may wait for the lake before it is full.
    log_full
        What becomes of a prediction that the log cannot take (`WINDROW_LOG_FULL`): ``refuse`` (503, the default), or
        ``shed``: it is answered, and its record is lost and counted.
    log_sync
        Whether every record is on the disk before its answer leaves (`WINDROW_LOG_SYNC=1`): it then survives a power
        cut, at milliseconds for each; without it, the death of the process.
    streams
        URL of a Redis server whose streams ``windrow-ingest:<name>`` are taken in too; default: none.
    cache
        URL (`WINDROW_CACHE`) of a Redis server that keeps outputs of models for all workers; default: each keeps its own.
    sink_postgres
        URL (`WINDROW_SINK_POSTGRES`) of the PostgreSQL database that the sink ``postgres`` writes to; default: none.
    keep_releases
        How many releases of a service (`WINDROW_KEEP_RELEASES`), beside the live one, keep the versions of the
        feature groups that they read declared and fed.
    insecure
        Whether the online service asks for no access keys (`WINDROW_INSECURE=1`, ``windrow up --insecure``); it answers
        this machine only then.
    note_every
        One in so many good requests (`WINDROW_NOTE_EVERY`) gets a line in the online service's output, as every failed,
        refused or slow one does; default 0: none of them.
    tls_cert, tls_key
        Files (`WINDROW_TLS_CERT`, `WINDROW_TLS_KEY`) with the certificate, its chain after it, and the private key, both
        in PEM: the online service speaks HTTPS. Default: neither.

    Examples
    --------
    >>> Settings.read({"WINDROW_HOME": "/tmp/w"}).metadata
    'sqlite:////tmp/w/metadata.db'
    >>> Settings.read({"WINDROW_HOME": "/tmp/w", "WINDROW_ENV": "prod"}).metadata
    'sqlite:////tmp/w/prod/metadata.db'
    """

    home: Path
    data: Path
    project: Path
    lake: str
    online: str
    metadata: str
    clock: Clock
    env: str = ""
    ingest_every: float = 5.0
    ingest_backlog: int = 256 << 20
    log_backlog: int = 4 << 30
    log_full: str = REFUSE
    log_sync: bool = False
    streams: str = ""
    cache: str = ""
    sink_postgres: str = ""
    keep_releases: int = 3
    insecure: bool = False
    note_every: int = 0
    tls_cert: str = ""
    tls_key: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Build settings from environment variables; raise on one that windrow does not know."""
        env = os.environ if environ is None else environ
        given = {k.removeprefix(_PREFIX): v for k, v in env.items() if k.startswith(_PREFIX) and v}
        _refuse_unknown(given)
        name = checked(given.get("ENV", ""))
        given |= {place: placed(given[place], name, setting=_PREFIX + place) for place in _PLACES if place in given}
        home = _home(given.get("HOME", placed(".windrow", name, setting="WINDROW_HOME")))
        whole = cls(
            home=home,
            data=Path(given.get("DATA", "data")).absolute(),
            project=Path(given.get("PROJECT", ".")).absolute(),
            lake=given.get("LAKE", str(home / "lake")),
            online=given.get("ONLINE", f"lmdb://{home / 'online'}"),
            metadata=given.get("METADATA", f"sqlite:///{home / 'metadata.db'}"),
            clock=Clock.parse(given.get("CLOCK", "data")),
            env=name,
            ingest_every=_number(given, "INGEST_EVERY", 5.0),
            ingest_backlog=_whole(given, "INGEST_BACKLOG", 256 << 20),
            log_backlog=_whole(given, "LOG_BACKLOG", 4 << 30),
            log_full=_choice(given, "LOG_FULL", (REFUSE, SHED)),
            log_sync=_flag(given, "LOG_SYNC"),
            streams=given.get("STREAMS", ""),
            cache=given.get("CACHE", ""),
            sink_postgres=given.get("SINK_POSTGRES", ""),
            keep_releases=_whole(given, "KEEP_RELEASES", 3),
            insecure=_flag(given, "INSECURE"),
            note_every=_whole(given, "NOTE_EVERY", 0, least=0),
            tls_cert=_file(given, "TLS_CERT"),
            tls_key=_file(given, "TLS_KEY"),
        )
        return whole.branch(given["BRANCH"]) if "BRANCH" in given else whole

    def branch(self, name: str) -> Settings:
        """Return the settings of a branch (`WINDROW_BRANCH`): every writable place is in its own home.

        Raises
        ------
        SettingsError
            If there is no such branch.
        """
        home = self.home / BRANCHES / name
        if not (home / BRANCH_FILE).is_file():
            raise SettingsError(
                f"there is no branch {name!r} of {self.home}", next_step=f"make it with `windrow branch {name}`"
            )
        stores = {
            "lake": f"{home}/lake",
            "online": f"lmdb://{home}/online",
            "metadata": f"sqlite:///{home}/metadata.db",
        }
        return msgspec.structs.replace(self, home=home, streams="", cache="", sink_postgres="", **stores)

    def __repr__(self) -> str:
        """Show everything but passwords: settings end up in tracebacks and logs."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        hidden = {
            name: _PASSWORD.sub("***", value) if isinstance(value, str) else value for name, value in shown.items()
        }
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in hidden.items())})"

    def environ(self) -> dict[str, str]:
        """Return the variables that make a child process read the same settings."""
        fixed = self.clock.kind == "fixed"
        clock = f"fixed:{from_micros(self.clock.at).isoformat()}" if fixed else self.clock.kind
        values = {"HOME": self.home, "DATA": self.data, "PROJECT": self.project, "LAKE": self.lake}
        values |= {"ONLINE": self.online, "METADATA": self.metadata, "CLOCK": clock, "STREAMS": self.streams}
        values |= {"CACHE": self.cache}
        values |= {"INGEST_EVERY": self.ingest_every, "INGEST_BACKLOG": self.ingest_backlog}
        values |= {"LOG_BACKLOG": self.log_backlog, "LOG_FULL": self.log_full, "LOG_SYNC": int(self.log_sync)}
        values |= {"KEEP_RELEASES": self.keep_releases, "SINK_POSTGRES": self.sink_postgres}
        values |= {"INSECURE": int(self.insecure), "TLS_CERT": self.tls_cert, "TLS_KEY": self.tls_key}
        values |= {"NOTE_EVERY": self.note_every}
        values |= {"BRANCH": "", "ENV": self.env, **{name: template(str(values[name]), self.env) for name in _PLACES}}
        return {_PREFIX + name: str(value) for name, value in values.items()}

    def folder(self, name: str) -> Path:
        """Return (and make) a folder inside `home`."""
        path = self.home / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"cannot make the folder {path}: {error.strerror}", next_step="set WINDROW_HOME to a writable folder"
            ) from error
        return path


def _home(text: str) -> Path:
    home = Path(text).absolute()
    odd = sorted({character for character in str(home) if character in "?#%" or not character.isprintable()})
    if odd:
        raise SettingsError(
            f"the home {str(home)!r} has {listed(odd)} in its path: its stores are named by URLs, where that means something else",
            next_step="set WINDROW_HOME to a folder without it",
        )
    return home


def _number(given: Mapping[str, str], name: str, default: float) -> float:
    text = given.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise SettingsError(f"{_PREFIX}{name} is {text!r}", next_step="write a number above 0, such as 5")
    return value


def _flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "0")
    if text not in ("0", "1"):  # what somebody means by "no" or "off" must not open a service
        raise SettingsError(f"{_PREFIX}{name} is {text!r}", next_step="write 1, or leave it out")
    return text == "1"


def _choice(given: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    text = given.get(name, choices[0])
    if text not in choices:
        raise SettingsError(f"{_PREFIX}{name} is {text!r}", next_step=f"write {' or '.join(choices)}")
    return text


def _file(given: Mapping[str, str], name: str) -> str:
    return str(Path(given[name]).absolute()) if name in given else ""


def _whole(given: Mapping[str, str], name: str, default: int, *, least: int = 1) -> int:
    if name not in given:
        return default
    text = given[name]
    # Half a release is none, and with room for no byte every event would be refused.
    if not re.fullmatch(r"0*[0-9]{1,18}", text) or int(text) < least:
        raise SettingsError(
            f"{_PREFIX}{name} is {text!r}",
            next_step=f"write a whole number {'above 0' if least else 'from 0 on'}, of 18 digits at most, such as {default or 100}",
        )
    return int(text)


def _refuse_unknown(given: Mapping[str, str]) -> None:
    known = [*(name.upper() for name in Settings.__struct_fields__), "BRANCH", *_LAUNCH_ONLY]
    for name in given:
        if name not in known:
            every = [_PREFIX + k for k in known]
            raise SettingsError(
                f"windrow has no setting {_PREFIX + name!r}",
                exists=f"It has {listed(every)}",
                next_step=closest(_PREFIX + name, every) or f"unset {_PREFIX + name}",
            )
