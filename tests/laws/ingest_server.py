"""A worker of the online service with its applier, in a process that a test can kill: ``python -m tests.laws.ingest_server PORT``."""

from __future__ import annotations

import signal
import sys
from typing import Any

import msgspec
import uvicorn

from windrow.serving.asgi import WindrowMiddleware
from windrow.serving.child import end_with_parent
from windrow.serving.worker import Worker
from windrow.settings import Settings


async def _inside(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the middleware answers everything")


def main(port: int) -> None:
    end_with_parent()
    # The server repeats the signal when it has shut down: without a handler the worker would not be closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    worker = Worker(msgspec.structs.replace(Settings.read(), insecure=True))
    worker.start()
    try:
        uvicorn.run(
            WindrowMiddleware(_inside, worker=worker), host="127.0.0.1", port=port, log_level="warning", lifespan="off"
        )
    finally:
        worker.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
