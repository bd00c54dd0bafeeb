"""What still runs of a home folder: a test that starts processes leaves none behind."""

from __future__ import annotations

from pathlib import Path


def processes_of(home: Path) -> dict[int, str]:
    """Id and command line of the processes whose environment names this home."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"WINDROW_HOME={home}\0".encode() in (path / "environ").read_bytes():
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended meanwhile, or is not ours
            continue
    return found
