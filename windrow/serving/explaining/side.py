"""The worker's end of the side process of explanations: one question at a time, in a thread that waits for it.

The process starts with the first question, so that a service that nobody asks for explanations pays nothing. It is
started again when it dies; nothing of scikit-learn, pandas or shap is imported on this side.
"""

from __future__ import annotations

import itertools
import os
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NamedTuple

import msgspec

from windrow.errors import RequestError
from windrow.serving.child import end_with_parent
from windrow.serving.explaining.messages import Question, Reply
from windrow.settings import Settings
from windrow.telemetry import switch_off

PATIENCE = 60.0
"""Seconds after which an explanation is given up, and its process ended."""
STARTING = 180.0
"""The same for the first one of a process, which loads scikit-learn and shap with the lowest priority."""
_WAITING = 64
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_MODULE = "windrow.serving.explaining.child"

_encode = msgspec.msgpack.encode


class _Job(NamedTuple):
    question: Question
    answer: Future[bytes]


class SideProcess:
    """Asks the side process.

    Parameters
    ----------
    settings
        Where registry, releases and log are.
    patience, starting
        Seconds after which a question is given up, and the first one of a process.
    """

    def __init__(self, settings: Settings, *, patience: float = PATIENCE, starting: float = STARTING) -> None:
        self._settings, self._patience, self._starting = settings, patience, starting
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._numbers, self._closed = itertools.count(1), False
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        # A thread of its own also because a child ends with the thread that started it.
        self._thread = threading.Thread(target=self._run, name="windrow-explain", daemon=True)

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first question."""
        return self._child.pid if self._child is not None else None

    def ask(self, question: Question) -> Future[bytes]:
        """Return the answer that will come; called from the event loop's thread alone.

        Raises
        ------
        RequestError
            503 if too many wait already. The future raises the errors of the explanation.
        """
        if self._jobs.qsize() >= _WAITING:
            raise RequestError(
                503,
                "overloaded",
                f"{_WAITING} explanations are waiting already",
                next_step="ask again in a few seconds",
            )
        job = _Job(msgspec.structs.replace(question, number=next(self._numbers)), Future())
        job.answer.set_running_or_notify_cancel()  # who stops waiting must not cancel it for the others
        self._jobs.put(job)
        if not self._thread.is_alive() and not self._closed:
            self._thread.start()
        return job.answer

    def close(self) -> None:
        """End the child; what was asked and is not answered fails."""
        self._closed = True
        self._jobs.put(None)
        child = self._child
        if child is not None:
            child.kill()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.answer.set_result(self._answer(job.question))
            except Exception as error:  # noqa: BLE001 - it goes to whoever asked, and the thread must live
                job.answer.set_exception(error)
        self._end()

    def _answer(self, question: Question) -> bytes:
        try:
            reply = self._asked(question)
        except (OSError, EOFError):  # it died, now or since the last question: once more, in a new one
            self._end()
            try:
                reply = self._asked(question)
            except (OSError, EOFError):
                self._end()
                raise _ended() from None
        if reply.problem is not None:
            raise reply.problem.error()
        return reply.body

    def _asked(self, question: Question) -> Reply:
        patience = self._patience if self._pipe is not None else self._starting
        pipe = self._pipe or self._start()
        pipe.send_bytes(_encode(question))
        until = time.monotonic() + patience
        while pipe.poll(max(0.0, until - time.monotonic())):
            reply = msgspec.msgpack.decode(pipe.recv_bytes(), type=Reply)
            if reply.number == question.number:
                return reply
        self._end()
        raise RequestError(
            504,
            "explanation-too-long",
            f"The explanation was not ready within {patience:g} s, and was given up",
            next_step="ask for another kind",
        )

    def _start(self) -> Connection:
        if self._closed:
            raise _ended()
        ours, theirs = Pipe()
        environ = {**os.environ, **self._settings.environ(), **dict.fromkeys(_ONE_THREAD, "1")}
        switch_off(environ)
        self._child = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,
            env=environ,
            preexec_fn=end_with_parent,
        )
        theirs.close()
        self._pipe = ours
        return ours

    def _end(self) -> None:
        child, self._child, pipe, self._pipe = self._child, None, self._pipe, None
        if child is not None:
            child.kill()
            child.wait()
        if pipe is not None:
            pipe.close()


def _ended() -> RequestError:
    return RequestError(
        503, "explainer-ended", "The process of explanations ended while it made this one", next_step="ask again"
    )
