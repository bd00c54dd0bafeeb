"""Where the rows of an external group are, as plain data: a contract carries it, and a release finds its tables by it.

A secret is never part of it. A place names the environment variable that holds the address of a server.
"""

from __future__ import annotations

import re

import msgspec

from windrow.errors import DeclarationError

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_TABLE = re.compile(r"\w+(\.\w+)?")


class Postgres(msgspec.Struct, frozen=True, tag="postgres"):
    """A table or view of a PostgreSQL server.

    Parameters
    ----------
    url_env
        Environment variable with ``postgresql://user:password@host:port/database``. It is read when rows are
        asked for, and never shown, logged or stored.
    table
        ``"limits"`` or ``"bank.limits"``.

    Examples
    --------
    >>> Postgres(url_env="BANK_URL", table="bank.limits")
    Postgres(url_env='BANK_URL', table='bank.limits')
    """

    url_env: str
    table: str

    def __post_init__(self) -> None:
        if "://" in self.url_env:
            # Not repeated in the message: it may hold a password.
            raise DeclarationError(
                "Postgres(url_env=...) was given an address", next_step='write the variable that holds it: "BANK_URL"'
            )
        if not _VARIABLE.fullmatch(self.url_env) or self.url_env.startswith("WINDROW_"):
            raise DeclarationError(
                f"Postgres(url_env={self.url_env!r}) names no environment variable of yours",
                next_step='write one in capitals that does not start with WINDROW_, such as "BANK_URL"',
            )
        _check_table(self.table)

    def __str__(self) -> str:
        return f"table {self.table} of the server that {self.url_env} names"


class Parquet(msgspec.Struct, frozen=True, tag="parquet"):
    """Parquet files: a path or a pattern such as ``"limits/*.parquet"``, in the folder of data files unless absolute."""

    path: str

    def __str__(self) -> str:
        return f"files {self.path}"


class IbisTable(msgspec.Struct, frozen=True, tag="ibis"):
    """A table of any Ibis backend.

    Parameters
    ----------
    connect
        ``"module:function"``; without arguments it returns a connected backend, with what is secret taken
        from the environment.
    table
        ``"limits"`` or ``"bank.limits"``.
    """

    connect: str
    table: str

    def __post_init__(self) -> None:
        _check_table(self.table)

    def __str__(self) -> str:
        return f"table {self.table} of {self.connect}"


Place = Postgres | Parquet | IbisTable


class External(msgspec.Struct, frozen=True, kw_only=True):
    """How the rows of an external group are read.

    Attributes
    ----------
    place
        Where they are.
    columns
        Key or feature -> column there.
    dtypes
        Key or feature -> dtype.
    event_time, known_at
        Columns there; without `known_at` a row is known at its event time plus `delay` (microseconds).
    utc
        Whether times without zone there are UTC; else they are refused.
    seq
        Column there that grows with every write, or None.
    """

    place: Place
    columns: dict[str, str]
    dtypes: dict[str, str]
    event_time: str
    known_at: str | None = None
    delay: int = 0
    utc: bool = False
    seq: str | None = None

    @property
    def definition(self) -> str:
        """What the rows mean, as JSON: everything but the variable or function that leads to the server."""
        facts = msgspec.to_builtins(self)
        facts["place"] = {name: value for name, value in facts["place"].items() if name not in ("url_env", "connect")}
        return msgspec.json.encode(facts, order="deterministic").decode()

    @property
    def wanted(self) -> list[str]:
        """Every column there that is read, once."""
        times = [self.event_time, *([self.known_at] if self.known_at else []), *([self.seq] if self.seq else [])]
        return list(dict.fromkeys([*self.columns.values(), *times]))


def _check_table(table: str) -> None:
    if not _TABLE.fullmatch(table):
        raise DeclarationError(f"{table!r} names no table", next_step='write "limits" or "bank.limits"')
