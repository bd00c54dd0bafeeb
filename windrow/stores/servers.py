"""Whether the servers that settings name besides the stores are there: streams, the shared cache, the sink."""

from __future__ import annotations

from windrow.errors import StoreError
from windrow.settings import Settings

_SECONDS = 3.0


def answering(settings: Settings) -> list[str]:
    """Return the variables that name a server; each of them answers.

    Raises
    ------
    SettingsError
        If one is no address of such a server, or its client is not installed.
    StoreError
        If a server does not answer.

    Examples
    --------
    >>> answering(Settings.read({}))
    []
    """
    servers = {
        "WINDROW_STREAMS": (settings.streams, _ask_redis),
        "WINDROW_CACHE": (settings.cache, _ask_redis),
        "WINDROW_SINK_POSTGRES": (settings.sink_postgres, _ask_postgres),
    }
    named = {variable: server for variable, server in servers.items() if server[0]}
    for variable, (url, ask) in named.items():
        ask(url, variable)
    return list(named)


def _ask_redis(url: str, variable: str) -> None:
    from windrow.stores.redis_server import redis_client

    client, _ = redis_client(
        url, variable=variable, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=None
    )
    from redis import RedisError

    try:
        client.ping()
    except (RedisError, OSError) as error:
        raise StoreError(
            f"the server of {variable} does not answer: {type(error).__name__}",
            next_step=f"start it, or mend or unset {variable}",
        ) from None
    finally:
        client.close()


def _ask_postgres(url: str, variable: str) -> None:
    from windrow.stores.postgres_server import connected

    with connected(url, variable=variable, failing="the sink cannot be asked") as con:
        con.execute("SELECT 1")
