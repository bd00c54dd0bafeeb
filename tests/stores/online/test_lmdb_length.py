"""A file that was cut short is refused, and never read: the kernel would kill the process that does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from windrow.errors import AwayError
from windrow.stores.online.lmdb_length import check_length
from windrow.stores.online.lmdb_store import LmdbStore
from windrow.stores.online.store import Row

CUT = r"cannot be used: data\.mdb was cut short. Next: check the folder and the disk"


def filled(path: Path) -> Path:
    with LmdbStore(path, write=True) as store:
        store.write("g_v1", ["a", "b"], [((i,), Row(100, 100, 1, (float(i), "x" * 200))) for i in range(2000)])
    return path / "data.mdb"


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("write", [False, True])
def test_a_file_that_was_cut_short_is_not_opened(tmp_path: Path, share: float, write: bool) -> None:
    file = filled(tmp_path)
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(AwayError, match=CUT):
        LmdbStore(tmp_path, write=write)


READER = """
import os, sys
from pathlib import Path
from windrow.errors import AwayError
from windrow.stores.online.lmdb_store import LmdbStore

store, file, size = LmdbStore(Path(sys.argv[1])), sys.argv[1] + "/data.mdb", int(sys.argv[2])
wanted = [("g_v1", (i,)) for i in range(2000)]
whole = open(file, "rb").read()
assert None not in store.read(wanted)
os.truncate(file, size)
store.check()
try:
    store.read(wanted)
except AwayError as error:
    print(error.what)
store.check()
with open(file, "r+b") as again:
    again.write(whole)
store.check()
assert None not in store.read(wanted)
print("back")
"""


@pytest.mark.parametrize("size", [0, 4096, 8192, 100_000])
def test_a_reader_whose_file_is_cut_short_lives_and_reads_again_when_the_file_is_whole(
    tmp_path: Path, size: int
) -> None:
    filled(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path), str(size)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["back"]), done.stderr[-2000:]
    assert "cannot be used" in done.stdout


def test_a_file_that_ends_before_a_page_nobody_uses_is_whole(tmp_path: Path) -> None:
    # What a transaction took and gave back is never written: rare, so it is looked for.
    chance, short = random.Random(0), 0
    with lmdb.open(str(tmp_path / "x.mdb"), subdir=False, map_size=1 << 26, sync=False) as env:
        for _ in range(600):
            with env.begin(write=True) as txn:
                for _ in range(chance.choice([1, 10, 300])):
                    key = b"%06d" % chance.randrange(6000)
                    if chance.random() < 0.5:
                        txn.put(key, b"x" * chance.choice([20, 200, 3000, 9000]))
                    else:
                        txn.delete(key)
                cursor = txn.cursor()
                for _ in range(500 if chance.random() < 0.05 else 0):
                    cursor.next() and cursor.delete()
            short += (tmp_path / "x.mdb").stat().st_size < (env.info()["last_pgno"] + 1) * env.stat()["psize"]
            check_length(tmp_path / "x.mdb", env)
    assert short > 0
