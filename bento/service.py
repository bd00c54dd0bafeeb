"""The online service: BentoML carries the process, windrow's middleware answers every request.

From the root of the project: ``bentoml serve bento.service:WindrowService --host 127.0.0.1 --port 3000``
(callers need a key: ``windrow keys create``; WINDROW_TLS_CERT and WINDROW_TLS_KEY make it HTTPS), and
``bentoml build -f bento/bentofile.yaml .`` for an image.
"""

from __future__ import annotations

import os

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # read by BentoML when it is imported

import bentoml

from windrow.serving import supervisor
from windrow.serving.asgi import WindrowMiddleware
from windrow.serving.patience import limit_patience
from windrow.serving.tls import bento_ssl
from windrow.serving.worker import Worker
from windrow.settings import Settings

settings = Settings.read()
worker = Worker(settings)
limit_patience()


@bentoml.service(
    name="windrow",
    workers=1,
    http={"host": "127.0.0.1", "port": 3000},
    ssl=bento_ssl(settings),
    traffic={"timeout": 1},  # one timer per request lives this long: the shorter, the less garbage
    tracing={"excluded_urls": "/"},  # what windrow measures is at /metrics, and every request is in its log
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class WindrowService:
    """Every live prediction service of the project at ``/v1/{service}``."""

    @bentoml.on_deployment
    def begin() -> None:
        """Refuse, in the supervisor, what each of its workers would refuse."""
        supervisor.begin(settings)

    def __init__(self) -> None:
        supervisor.end_with_supervisor()
        worker.start()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Give back what the worker holds."""
        worker.close()


WindrowService.add_asgi_middleware(WindrowMiddleware, worker=worker)  # type: ignore[attr-defined]
