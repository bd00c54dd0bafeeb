"""A forgotten entity's entries in Redis streams, which stay there when they were taken in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from windrow.errors import StoreError
from windrow.schema import fingerprint
from windrow.settings import Settings
from windrow.stores.redis_server import redis_client

WAIT_SECONDS = 2.0
_STEP = 1000
_PENDING = 1_000_000

Wanted = Callable[[str, Mapping[str, Any]], bool]


def erase_from_streams(settings: Settings, wanted: Wanted, *, key: Sequence[int | str], erase: bool) -> int:
    """Return how many entries are about an entity, after erasing them if that is asked.

    What is being taken in meanwhile is waited for, so that it stands in a segment when this returns. A stream is
    written again without the entries: Redis itself only marks a deleted one, and its bytes stay in the stream's block.

    Parameters
    ----------
    wanted
        Says by stream and values whether a row is about the entity.
    key
        Looked for in entries that are no row.

    Raises
    ------
    StoreError
        If the server does not answer, or a stream is written to so fast that it cannot be written again.
    """
    if not settings.streams:
        return 0
    import redis

    client, place = redis_client(settings.streams, variable="WINDROW_STREAMS", socket_timeout=60.0)
    begin = place.key("windrow", "-ingest:")
    found = 0
    try:
        with client as server:
            for stream in sorted(server.scan_iter(match=f"{begin}*", _type="stream")):
                name = stream.decode().removeprefix(begin)
                ids = [id for id, fields in _entries(server, stream) if _about(name, fields, wanted=wanted, key=key)]
                found += len(ids)
                if erase and ids:
                    _erase(server, stream, set(ids))
    except redis.RedisError as error:
        raise StoreError(
            f"the streams of {settings.streams.rpartition('@')[2]} cannot be used: {str(error)[:200]}",
            next_step="check that the server runs and takes the password, or set WINDROW_STREAMS",
        ) from error
    return found


def _entries(server: Any, stream: bytes) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    after = b"-"
    while entries := server.xrange(stream, min=after, count=_STEP):
        yield from entries
        after = b"(" + entries[-1][0]


def _about(name: str, fields: Mapping[bytes, bytes], *, wanted: Wanted, key: Sequence[int | str]) -> bool:
    text = b" ".join(fields.values())
    try:
        row = msgspec.json.decode(fields.get(b"row", b""))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        row = None
    return wanted(name, row) if isinstance(row, dict) else all(str(part).encode() in text for part in key)


def _erase(server: Any, stream: bytes, ids: set[bytes]) -> None:
    _await_taken(server, stream, ids)
    deadline = time.monotonic() + WAIT_SECONDS
    while not _rewrite(server, stream, ids):
        if time.monotonic() > deadline:
            raise StoreError(
                f"the stream {stream.decode()} is written to all the time",
                exists="Its entries of the entity are still there",
                next_step="pause what writes to it, then forget again",
            )


def _await_taken(server: Any, stream: bytes, ids: set[bytes]) -> None:
    """Return when windrow has none of the entries in its hands, or has had it for so long that its process must be dead."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and _in_hands(server, stream) & ids:
        time.sleep(0.05)


def _in_hands(server: Any, stream: bytes) -> set[bytes]:
    """Return the entries that were delivered to windrow and do not stand in a segment yet."""
    from windrow.stores.ingest.redis_streams import GROUP

    if GROUP.encode() not in {group["name"] for group in server.xinfo_groups(stream)}:
        return set()
    return {entry["message_id"] for entry in server.xpending_range(stream, GROUP, "-", "+", _PENDING)}


def _rewrite(server: Any, stream: bytes, ids: set[bytes]) -> bool:
    """Write a stream again without some entries, its groups as they were; False where somebody changed it meanwhile."""
    import redis

    copy = stream + b":" + fingerprint(stream.decode()).encode()
    with server.pipeline() as pipe:
        pipe.watch(stream)
        info = server.xinfo_stream(stream)
        groups = {group["name"]: group for group in server.xinfo_groups(stream)}
        held = {name: server.xpending_range(stream, name, "-", "+", _PENDING) for name in groups}
        pipe.multi()
        pipe.delete(copy)
        for id, fields in _entries(server, stream):
            if id not in ids:
                pipe.xadd(copy, fields, id=id)
        for name, group in groups.items():
            pipe.xgroup_create(copy, name, id=group["last-delivered-id"], mkstream=True)
            for entry in held[name]:
                if entry["message_id"] not in ids:
                    pipe.xclaim(copy, name, entry["consumer"], 0, [entry["message_id"]], force=True, justid=True)
        if not groups:
            _as_old_as(pipe, copy)
        pipe.execute_command("XSETID", copy, info["last-generated-id"])
        pipe.rename(copy, stream)
        try:
            pipe.execute()
        except redis.WatchError:
            return False
    return True


def _as_old_as(pipe: Any, copy: bytes) -> None:
    """Make sure that there is a stream, though it may have no entry."""
    pipe.xgroup_create(copy, b"windrow", id="0", mkstream=True)
    pipe.xgroup_destroy(copy, b"windrow")
