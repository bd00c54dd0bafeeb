"""Whether the servers that settings name besides the stores are there: streams, the shared cache, the sink."""

from __future__ import annotations

from windrow.environment import read_place
from windrow.errors import SettingsError, StoreError
from windrow.settings import Settings

_SECONDS = 3.0


def answering(settings: Settings) -> list[str]:
    """Return the variables that name a server; each of them answers.

    Raises
    ------
    SettingsError
        If one is no address of such a server.
    StoreError
        If a server does not answer, or its client is not installed.

    Examples
    --------
    >>> answering(Settings.read({}))
    []
    """
    servers = {"WINDROW_STREAMS": settings.streams, "WINDROW_CACHE": settings.cache}
    for variable, url in servers.items():
        if url:
            _ask_redis(url, variable)
    servers["WINDROW_SINK_POSTGRES"] = settings.sink_postgres
    if settings.sink_postgres:
        _ask_postgres(settings.sink_postgres)
    return [variable for variable, url in servers.items() if url]


def _ask_redis(url: str, variable: str) -> None:
    try:
        import redis
    except ModuleNotFoundError:
        raise StoreError(f"{variable} needs the package redis", next_step="pip install 'windrow[redis]'") from None
    try:
        client = redis.Redis.from_url(
            read_place(url, what=variable).url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=None
        )
    except ValueError:  # its message may repeat the password
        raise SettingsError(
            f"{variable} is no URL of a Redis server", next_step="write redis://[:password@]host:port/db"
        ) from None
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise StoreError(
            f"the server of {variable} does not answer: {type(error).__name__}",
            next_step=f"start it, or mend or unset {variable}",
        ) from None
    finally:
        client.close()


def _ask_postgres(url: str) -> None:
    from windrow.stores.postgres_server import connected

    with connected(url, variable="WINDROW_SINK_POSTGRES", failing="the sink cannot be asked") as con:
        con.execute("SELECT 1")
