"""Promises of paced work: it leaves most of a processor to others, and all of it is as before when it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

WORK = """
import time
from contextlib import nullcontext
from windrow.stores.pace import paced

def share(pace):
    begin = time.perf_counter(), time.process_time()
    with pace:
        while time.process_time() - begin[1] < 0.2:
            pass
    return (time.process_time() - begin[1]) / (time.perf_counter() - begin[0])

print(share(paced()), share(nullcontext()))
"""


def test_paced_work_takes_less_than_half_of_the_time_and_its_process_ends_well() -> None:
    # In a process of its own: a signal goes to a main thread.
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    slow, usual = map(float, done.stdout.split())
    assert slow < 0.5
    assert slow < usual


def test_work_that_fails_leaves_no_timer_behind() -> None:
    code = "import signal\nfrom windrow.stores.pace import paced\ntry:\n    with paced():\n        1 / 0\nexcept ZeroDivisionError:\n    print(signal.getitimer(signal.ITIMER_PROF))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str((0.0, 0.0)))
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


INTERRUPTED = """
import ctypes, os, signal, threading, time
from windrow.stores.pace import paced

libc, (ours, theirs) = ctypes.CDLL(None, use_errno=True), os.pipe()

def interrupt_then_write():
    time.sleep(0.2)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGPROF)
    time.sleep(0.2)
    os.write(theirs, b"x")

with paced():
    threading.Thread(target=interrupt_then_write).start()
    print(libc.read(ours, ctypes.create_string_buffer(1), 1))
"""


def test_native_code_that_waits_for_a_file_is_not_interrupted() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "1")
