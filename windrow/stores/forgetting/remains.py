"""The last look after a forgetting: every byte of every file is searched for the key."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

# Shorter texts and numbers stand in almost every file by accident.
SHORTEST = 5


def remains(key: Sequence[int | str], *roots: Path) -> list[Path]:
    """Return the files below `roots` in which every part of a key can be read as text.

    A number counts where it stands alone: 12345 is not found in 123456 or 0.12345. Parts of fewer than
    `SHORTEST` characters are not looked for, and a key of such parts alone is found nowhere. What is
    compressed or packed is not text: the stores are rewritten, and are not searched for here.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> root = Path(mkdtemp())
    >>> _ = (root / "a.txt").write_text("card 12345"), (root / "b.txt").write_text("card 123456")
    >>> [path.name for path in remains((12345,), root)]
    ['a.txt']
    """
    patterns = [_pattern(part) for part in key if len(str(part)) >= SHORTEST]
    files = {path for root in roots for path in root.rglob("*") if path.is_file()} if patterns else set[Path]()
    return sorted(path for path in files if _holds(path, patterns))


def searchable(key: Sequence[int | str]) -> bool:
    """Return whether `remains` looks for a key at all: some part of it is long enough.

    Examples
    --------
    >>> searchable((7,)), searchable((7, "north"))
    (False, True)
    """
    return any(len(str(part)) >= SHORTEST for part in key)


def _pattern(part: int | str) -> re.Pattern[bytes]:
    text = re.escape(str(part).encode())
    return re.compile(rb"(?<![\d.])" + text + rb"(?![\d.])" if isinstance(part, int) else text)


def _holds(path: Path, patterns: Iterable[re.Pattern[bytes]]) -> bool:
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return all(pattern.search(data) for pattern in patterns)
    except (FileNotFoundError, ValueError):
        return False  # gone or emptied between listing and looking
