"""The side process of explanations: it loads releases, reads the log, and answers one question after the other.

It has one native thread and the lowest priority, so that it runs when predictions do not. It ends when its pipe does.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Iterable
from multiprocessing.connection import Connection

import msgspec

from windrow.errors import NotFoundError, RequestError, WindrowError
from windrow.models.registry import Registry
from windrow.serving.explaining.explain import Explaining
from windrow.serving.explaining.messages import Logged, Problem, Question, Reply, checked_kind, chosen, unknown_request
from windrow.settings import Settings
from windrow.stores.log import LogRecord, records
from windrow.stores.metadata import Metadata

NICEST = 19
_KEPT = 4  # releases that stay loaded


class Answering:
    """Answers questions about one home.

    Parameters
    ----------
    settings
        Where the registry, the releases and the log are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(Metadata(settings.metadata), settings.folder("releases"))
        self._loaded: OrderedDict[str, Explaining] = OrderedDict()

    def reply(self, question: Question) -> Reply:
        """Return the answer to one question, whatever happens."""
        try:
            return Reply(question.number, self._answer(question))
        except RequestError as error:
            return Reply(question.number, problem=Problem.of(error))
        except NotFoundError as error:
            return Reply(question.number, problem=Problem(404, "not-found", error.what, error.next_step))
        except WindrowError as error:
            return Reply(question.number, problem=Problem(422, "not-explained", error.what, error.next_step))
        except ImportError as error:
            return Reply(question.number, problem=_not_installed(error))
        except Exception as error:  # noqa: BLE001 - one bad question must not end the process that others wait for
            print(f"windrow: an explanation failed: {error!r}", file=sys.stderr)  # noqa: T201 - the service's log
            what = "The explanation failed; the service's log says why"
            return Reply(question.number, problem=Problem(500, "explanation-failed", what, "ask for another kind"))

    def _answer(self, question: Question) -> bytes:
        if question.asked == "find":
            return msgspec.msgpack.encode(self._found(question.request_id, question.row))
        made = self._explaining(question.release).vector(question.vector, checked_kind(question.kind))
        return msgspec.json.encode(made)

    def _explaining(self, release: str) -> Explaining:
        if release not in self._loaded:
            self._loaded[release] = Explaining(self._registry.load(release))
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(release)
        return self._loaded[release]

    def _found(self, request_id: str, row: int) -> Logged:
        found = [record for _, record in records(self._settings.home / "log") if record.request_id == request_id]
        logged = chosen(found, row) or chosen(self._committed(request_id), row)
        if logged is None:
            raise unknown_request()
        return logged

    def _committed(self, request_id: str) -> list[LogRecord]:
        try:
            return list(_in_lake(self._settings, request_id, self._registry.services()))
        except ImportError as error:
            raise RequestError(
                404,
                "unknown-request",
                "This request is not in the newest part of the log, and the lake cannot be read here",
                next_step="install windrow[lake] where the service runs",
            ) from error


def _in_lake(settings: Settings, request_id: str, services: Iterable[str]) -> Iterable[LogRecord]:
    from windrow.stores.engine import engine
    from windrow.stores.lake import Lake

    lake = Lake(settings.lake)
    for key in (*(f"log/{service}" for service in services), "log/_other"):
        table = lake.table(key)
        if table.exists:
            rows = table.scan(engine())
            wanted = rows.filter(rows.request_id == request_id)
            for found in wanted.select("kind", "row", "release", "vector", "status", "error").to_pyarrow().to_pylist():
                vector = msgspec.json.decode(found.pop("vector"))
                yield LogRecord(request_id=request_id, service="", vector=vector, **found)


def _not_installed(error: ImportError) -> Problem:
    what = f"Explanations of this release need the package {error.name or 'of its model'}, which is not installed here"
    return Problem(501, "not-installed", what, "install windrow[explain] where the service runs")


def main(descriptor: str) -> None:
    """Answer questions of the parent until its end of the pipe closes."""
    os.nice(NICEST)
    pipe = Connection(int(descriptor))
    answering = Answering(Settings.read())
    while True:
        try:
            question = msgspec.msgpack.decode(pipe.recv_bytes(), type=Question)
            pipe.send_bytes(msgspec.msgpack.encode(answering.reply(question)))
        except (EOFError, OSError):
            return


if __name__ == "__main__":
    main(sys.argv[1])
