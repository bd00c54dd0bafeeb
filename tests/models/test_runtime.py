"""Native code keeps to its share of the cores, also the code that is loaded after the first batch."""

from __future__ import annotations

import os
import subprocess
import sys

_LOADED_LATER = """
from windrow.models.runtime import few_threads
with few_threads():
    pass
import sklearn.ensemble
from threadpoolctl import threadpool_info
free = [pool["num_threads"] for pool in threadpool_info()]
with few_threads():
    kept = [pool["num_threads"] for pool in threadpool_info()]
print(max(free), max(kept), max(pool["num_threads"] for pool in threadpool_info()))
"""


def test_libraries_that_are_loaded_after_a_first_batch_keep_to_few_threads_too():
    many = str(2 * (os.cpu_count() or 1))
    environment = {**os.environ, "OMP_NUM_THREADS": many, "OPENBLAS_NUM_THREADS": many}
    told = subprocess.run(
        [sys.executable, "-c", _LOADED_LATER], capture_output=True, text=True, check=True, env=environment
    ).stdout
    free, kept, after = (int(number) for number in told.split())
    assert kept == max(1, (os.cpu_count() or 1) // 2) < free == after
