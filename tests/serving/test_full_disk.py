"""The prediction log on a disk that is full: no answer without its record, and all is well when space returns."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import world
from tests.serving.conftest import Caller, eventually, settings_in
from tests.serving.world import GOOD
from windrow.serving.worker import Worker
from windrow.stores.log import records


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Caller]:
    """A running worker whose log is on a file system of one mebibyte."""
    settings = settings_in(tmp_path)
    log = settings.folder("log")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(log)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here: that needs the rights of root")
    try:
        world.publish(settings)
        world.release_fraud(settings)
        worker = Worker(settings, committer=False)
        worker.start()
        eventually(lambda: worker.live.ready)
        yield Caller(worker)
        worker.close()
    finally:
        subprocess.run(["umount", "-l", str(log)], check=True)


@pytest.mark.slow
def test_on_a_full_disk_there_is_503_and_with_space_again_answers_and_nothing_acknowledged_is_lost(
    small: Caller,
) -> None:
    folder, answered, refused = small.worker.settings.home / "log", list[str](), 0

    def ask(count: int) -> set[int]:
        nonlocal refused
        answers = [small.predict(GOOD) for _ in range(count)]
        answered.extend(a.json["request_id"] for a in answers if a.status == 200)
        refused += sum(a.headers.get("retry-after") == "1" for a in answers)
        return {a.status for a in answers}

    assert ask(50) == {200}
    filler = folder / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(2 << 20))
    for _ in range(3):
        ask(60)  # a segment may have room in its last page
    assert ask(20) == {503}
    assert refused >= 20
    filler.unlink()
    assert ask(50) == {200}
    logged = Counter(r.request_id for _, r in records(folder) if r.kind == "prediction")
    assert logged == Counter(answered)
