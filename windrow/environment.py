"""Environments: one set of places, and for each environment its own part of every one of them.

A place carries its environment where ``{env}`` stands in it. Where it does not, the environment is added in the place's own
way: a folder gets a folder in it, a Redis server a namespace, a PostgreSQL database a schema. So no two environments share
a place, whoever forgot what; and no code asks which environment it runs in.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from windrow.errors import SettingsError

_MARK = "{env}"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_NAMESPACE = re.compile(r"[a-z0-9_]{1,63}")
_DIVIDING = ("namespace", "schema", "db")  # what in a URL's query says which part of a server it is
_REDIS = ("redis", "rediss", "unix")


def checked(env: str) -> str:
    """Return the environment's name; raise `SettingsError` for one that not every place can carry.

    Examples
    --------
    >>> checked("prod")
    'prod'
    """
    if env and not _NAME.fullmatch(env):
        raise SettingsError(
            f"WINDROW_ENV is {env!r}", next_step="write a name of small letters, digits and underscores, such as prod"
        )
    return env


def placed(text: str, env: str, *, setting: str) -> str:
    """Return the part of a place, a folder or a URL, that belongs to an environment; without one, the place itself.

    Raises
    ------
    SettingsError
        If the place needs an environment and there is none, or there is no way to divide it.

    Examples
    --------
    >>> placed("/srv/lake", "prod", setting="WINDROW_LAKE")
    '/srv/lake/prod'
    >>> placed("/srv/{env}/lake", "prod", setting="WINDROW_LAKE")
    '/srv/prod/lake'
    >>> placed("redis://host:6379/0", "prod", setting="WINDROW_ONLINE")
    'redis://host:6379/0?namespace=prod'
    >>> placed("postgresql://host/db", "prod", setting="WINDROW_METADATA")
    'postgresql://host/db?schema=windrow_prod'
    """
    if not env or not text:
        _refuse_open(text, setting)
        return text
    bare, _, query = text.rpartition("@")[2].partition("?")
    # A user, a password or a certificate of its own makes no place of its own.
    parts = [bare, *(value for name, value in parse_qsl(query) if name.replace(_MARK, env) in _DIVIDING)]
    own, made = any(_MARK in part for part in parts), text.replace(_MARK, env)
    return made if own else _divided(made, env, setting)


def template(text: str, env: str) -> str:
    """Return what `placed` makes `text` of again, such as for a child process."""
    return text.replace(env, _MARK) if env else text


class Place(NamedTuple):
    """A Redis server's URL as its client takes it, and the part of its keys that is ours ("" for all)."""

    url: str
    namespace: str

    def key(self, name: str, end: str) -> str:
        """Return what keys begin with: the name, the namespace, the end.

        Examples
        --------
        >>> Place("redis://h", "prod").key("windrow", ":"), Place("redis://h", "").key("windrow", ":")
        ('windrow-prod:', 'windrow:')
        """
        return f"{name}-{self.namespace}{end}" if self.namespace else f"{name}{end}"


def is_there(url: str) -> bool:
    """Return whether a metadata store was ever made at `url`; asking makes none, and a server is taken to hold one.

    Examples
    --------
    >>> is_there("sqlite:////nowhere/metadata.db")
    False
    """
    return not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).is_file()


def read_place(url: str, *, what: str) -> Place:
    """Take ``namespace=NAME`` out of a Redis URL.

    Raises
    ------
    SettingsError
        If the namespace is no plain name, or the database no number (the client would take 0 for it).

    Examples
    --------
    >>> read_place("redis://host:6379/0?namespace=prod", what="WINDROW_ONLINE")
    Place(url='redis://host:6379/0', namespace='prod')
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    namespace = query.pop("namespace", "")
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise SettingsError(f"the namespace in {what} is no plain name", next_step="write ?namespace=prod")
    database = unquote(parts.path).strip("/") if parts.scheme != "unix" else query.get("db", "0")
    if parts.scheme in _REDIS and database and not database.isdigit():
        raise SettingsError(
            f"the database in {what} is no number",
            next_step="write redis://host:port/0?namespace={env} for a part of one",
        )
    return Place(_with_query(parts, query), namespace)


def _refuse_open(text: str, setting: str) -> None:
    if _MARK in text:
        raise SettingsError(
            f"{setting} names a place for each environment ({_MARK}), and WINDROW_ENV is not set",
            next_step="set WINDROW_ENV, such as WINDROW_ENV=dev",
        )


def _divided(text: str, env: str, setting: str) -> str:
    parts = urlsplit(text)
    if parts.scheme in _REDIS:
        return _added(parts, "namespace", env)
    if parts.scheme.partition("+")[0] in ("postgresql", "postgres"):
        return _added(parts, "schema", f"windrow_{env}")
    if parts.scheme == "sqlite":
        place, mark, query = text.partition("?")
        folder, _, file = place.rpartition("/")
        return f"{folder}/{env}/{file}{mark}{query}"
    if parts.scheme in ("", "file", "lmdb", "s3", "gs", "az", "abfss"):
        return f"{text.rstrip('/')}/{env}"
    raise SettingsError(
        f"{setting} is one place for all environments, and {parts.scheme!r} is not known to be divided",
        next_step=f"write {_MARK} in it, where the environment's name shall stand",
    )


def _added(parts: SplitResult, name: str, value: str) -> str:
    query = dict(parse_qsl(parts.query))
    # A part that the URL names already is divided further.
    query[name] = f"{query[name]}_{value.removeprefix('windrow_')}" if name in query else value
    return _with_query(parts, query)


def _with_query(parts: SplitResult, query: dict[str, str]) -> str:
    # By hand: `geturl` drops the empty host of unix:///path.
    bare = f"{parts.scheme}://{parts.netloc}{parts.path}" if parts.scheme else parts.path
    return f"{bare}?{urlencode(query)}" if query else bare
