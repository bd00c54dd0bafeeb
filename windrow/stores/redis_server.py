"""A client of a Redis server that a setting names; no message says any part of its URL, which may hold a password."""

from __future__ import annotations

from typing import Any

from windrow.environment import Place, read_place
from windrow.errors import SettingsError


def redis_client(url: str, *, variable: str, **options: Any) -> tuple[Any, Place]:
    """Return a client, which asks nothing yet, and what part of the server is ours.

    Parameters
    ----------
    url
        ``redis://[:password@]host:port/db`` or ``unix://[:password@]/path?db=N``, with ``namespace=NAME`` for a part.
    variable
        Of the environment, that holds `url`: what messages call it.
    options
        Of `redis.Redis`.

    Raises
    ------
    SettingsError
        If the client is not installed, or the URL is none of a Redis server.
    """
    try:
        import redis
    except ModuleNotFoundError:
        raise SettingsError(
            f"{variable} is a Redis server, and its client is not installed", next_step="pip install 'windrow[redis]'"
        ) from None
    place = read_place(url, what=variable)
    try:
        return redis.Redis.from_url(place.url, **options), place
    except ValueError:  # its message would repeat the password
        raise SettingsError(
            f"{variable} is no URL of a Redis server", next_step="write redis://[:password@]host:port/db"
        ) from None
