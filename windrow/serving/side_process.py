"""A model that is not compiled answers from a process of its own, with one native thread.

Arrays go over a pipe, as plain bytes. The child ends when its parent does, because the pipe closes;
it is started again when it dies. Nothing of scikit-learn or pandas is imported on this side.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, RequestError
from windrow.features.contract import Frame
from windrow.serving.answers import Output
from windrow.serving.predictor import DEADLINE, value_refused
from windrow.serving.vectors import Vectors

START_SECONDS = 60.0
_WAITING = 64  # more callers than this cannot be answered in time, so they are told at once
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class _Question(msgspec.Struct, array_like=True):
    number: int
    until: float  # of the monotonic clock, which all processes of a machine share
    numbers: dict[str, bytes]  # float32, little end first
    texts: dict[str, list[str]]
    order: list[str]


class _Reply(msgspec.Struct, array_like=True):
    number: int
    outputs: bytes = b""  # float64
    classes: int = 0  # columns of the outputs, 0 for one number a row
    refused: str = ""
    next_step: str = ""
    failed: str = ""


_encode = msgspec.msgpack.encode


class SidePredictor:
    """Answers through a child process that holds one release.

    Parameters
    ----------
    folder
        The release's bundle.

    Raises
    ------
    ModelError
        If the child cannot load the release or does not repeat its golden answers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="windrow-side")
        self._turn, self._starting = threading.Lock(), threading.Lock()
        self._numbers, self._waiting, self._closed = itertools.count(1), 0, False
        self._child, self._pipe = _start(folder)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    async def predict(self, vectors: Vectors, seconds: float = DEADLINE) -> list[Output]:
        """Return the probability of class 1, of each class, or the value, for each row, within `seconds`."""
        if self._waiting >= _WAITING:
            raise RequestError(
                503,
                "overloaded",
                "The model has more callers than it can answer in time",
                next_step="try again, with fewer requests at once",
            )
        self._waiting += 1
        try:
            until = time.monotonic() + seconds
            ask = asyncio.get_running_loop().run_in_executor(self._pool, self.ask, vectors.frame, until)
            outputs: list[Output] = (await ask).tolist()
            return outputs
        finally:
            self._waiting -= 1

    def ask(self, frame: Frame, until: float) -> NDArray[np.float64]:
        """Ask the child and wait, at most until `until` of the monotonic clock."""
        if not self._turn.acquire(timeout=max(0.0, until - time.monotonic())):
            raise _too_late()
        try:
            return self._asked(frame, until)
        except (OSError, EOFError):
            threading.Thread(target=self._restart, daemon=True).start()
            raise RequestError(
                503,
                "model-restarting",
                "The process of the model has ended and is being started again",
                next_step="try again in a few seconds",
            ) from None
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the child."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pipe.close()
        _end(self._child)

    def _asked(self, frame: Frame, until: float) -> NDArray[np.float64]:
        number = next(self._numbers)
        self._pipe.send_bytes(_encode(_question(number, until, frame)))
        while self._pipe.poll(max(0.0, until - time.monotonic())):
            reply = msgspec.msgpack.decode(self._pipe.recv_bytes(), type=_Reply)
            if reply.number == number:
                return _outputs(reply)
            # Else it answers a caller that has gone: go on waiting for ours.
        raise _too_late()

    def _restart(self) -> None:
        if not self._starting.acquire(blocking=False):
            return
        try:
            while not self._closed:
                try:
                    child, pipe = _start(self._folder)
                except ModelError:
                    time.sleep(1.0)
                    continue
                with self._turn:
                    self._pipe.close()
                    _end(self._child)
                    self._child, self._pipe = child, pipe
                return
        finally:
            self._starting.release()


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = Pipe()
    environ = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}
    command = [sys.executable, "-m", "windrow.serving.side_process", str(folder), str(theirs.fileno())]
    child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, env=environ)
    theirs.close()
    try:
        if not ours.poll(START_SECONDS):
            raise EOFError
        hello = msgspec.msgpack.decode(ours.recv_bytes(), type=_Reply)
    except (OSError, EOFError):
        hello = _Reply(0, failed="its process ended or did not answer while it was started")
    if hello.failed:
        ours.close()
        _end(child)
        raise ModelError(
            f"the model in {folder.name} cannot be used: {hello.failed}",
            next_step="train again, or promote another release",
        )
    return child, ours


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _question(number: int, until: float, frame: Frame) -> _Question:
    texts = {name: values.tolist() for name, values in frame.items() if values.dtype == object}
    numbers = {name: np.ascontiguousarray(v).tobytes() for name, v in frame.items() if name not in texts}
    return _Question(number, until, numbers, texts, list(frame))


def _outputs(reply: _Reply) -> NDArray[np.float64]:
    if reply.refused:
        raise value_refused(reply.refused, reply.next_step)
    if reply.failed:
        raise RuntimeError(reply.failed)
    outputs = np.frombuffer(reply.outputs, dtype=np.float64)
    return outputs.reshape(-1, reply.classes) if reply.classes else outputs


def _too_late() -> RequestError:
    step = "try again, with fewer rows or fewer requests at once"
    return RequestError(504, "deadline", "The model did not answer in time", next_step=step)


def main(folder: str, descriptor: str) -> None:
    """Answer questions of the parent until its end of the pipe closes."""
    from windrow.models.bundle import load_bundle

    pipe = Connection(int(descriptor))
    try:
        bundle = load_bundle(Path(folder))
        bundle.replay_golden()
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it instead of a silent death
        pipe.send_bytes(_encode(_Reply(0, failed=f"{type(error).__name__}: {error}"[:500])))
        return
    pipe.send_bytes(_encode(_Reply(0)))
    while True:
        try:
            question = msgspec.msgpack.decode(pipe.recv_bytes(), type=_Question)
            if question.until > time.monotonic():
                pipe.send_bytes(_encode(_reply(bundle, question)))
        except (EOFError, OSError):
            return


def _reply(bundle: Any, question: _Question) -> _Reply:
    texts = {name: np.array(values, dtype=object) for name, values in question.texts.items()}
    numbers = {name: np.frombuffer(data, dtype=np.float32) for name, data in question.numbers.items()}
    columns = texts | numbers
    try:
        outputs = bundle.predict({name: columns[name] for name in question.order})
    except ModelError as error:
        return _Reply(question.number, refused=error.what, next_step=error.next_step)
    except Exception as error:  # noqa: BLE001 - one bad question must not end the process that others wait for
        return _Reply(question.number, failed=f"{type(error).__name__}: {error}"[:500])
    data = np.ascontiguousarray(outputs, dtype=np.float64).tobytes()
    return _Reply(question.number, outputs=data, classes=outputs.shape[1] if outputs.ndim == 2 else 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
