"""A branch: a home of its own that begins as its parent stands, without a copy of the data.

Files of tables, releases and training datasets are hard links: the parent may compact and vacuum, and the branch keeps
what it began with. None of them is ever changed in place, by windrow or by Delta; what is written, in either home, is
new files. The logs of the tables and the metadata are small, and copied. The online store begins empty: what runs in
the branch publishes into it.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from windrow.errors import NotFoundError, StoreError, closest, listed
from windrow.settings import BRANCH_FILE, BRANCHES, Settings
from windrow.stores.delta import files_of, open_delta
from windrow.stores.lake import Lake
from windrow.stores.metadata.copying import copy_metadata
from windrow.stores.sequence import next_seq

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_ENTRY = re.compile(r"(\d{20})\.")  # of a table's log: what it holds begins with its version
_LINKED = ("releases", "datasets")  # folders of a home whose files never change
_ATTEMPTS = 5


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A branch as it was made.

    Attributes
    ----------
    home
        Its folder.
    seq
        The write order up to which it has its parent's rows.
    made_at
        UTC microseconds of the wall clock.
    tables
        Table -> version of the parent's that it began with.
    linked
        Bytes of the files that it shares with its parent.
    """

    name: str
    home: str
    seq: int
    made_at: int
    tables: dict[str, int]
    linked: int


def make_branch(parent: Settings, name: str) -> Branch:
    """Make a branch of everything that `parent` has now; nothing of the parent is changed.

    Raises
    ------
    StoreError
        If there is a branch of this name, `parent` is a branch itself, the tables are not in folders of this disk, or
        a table is being rewritten all the time.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name!r} is no name of a branch", next_step="use small letters, digits, - and _")
    if (parent.home / BRANCH_FILE).exists():
        raise StoreError(
            f"{parent.home} is a branch itself, and a branch of a branch could not be named by WINDROW_BRANCH",
            next_step=f"branch what it was made from: unset WINDROW_BRANCH, then windrow branch {name}",
        )
    home = parent.home / BRANCHES / name
    if home.exists():
        raise StoreError(f"there is a branch {name!r} already", next_step=f"run windrow branch {name} --remove")
    with _whole(home) as making:
        # First what names files and write orders, then those: what is added meanwhile is never named and missing.
        moved = _moved(str(parent.home / "datasets"), str(home / "datasets"))
        copy_metadata(parent.metadata, f"sqlite:///{making}/metadata.db", changed=moved)
        for folder in _LINKED:
            _link_folder(parent.home / folder, making / folder)
        lake = Lake(parent.lake)
        stored = lake.keys()
        tables = {key: _link_table(lake, key, making / "lake" / key) for key in stored}
        linked = sum(file.stat().st_size for file in making.rglob("*") if file.is_file() and file.stat().st_nlink > 1)
        made = Branch(
            name=name, home=str(home), seq=next_seq(), made_at=time.time_ns() // 1000, tables=tables, linked=linked
        )
        (making / BRANCH_FILE).write_bytes(msgspec.json.encode(made))
    return made


def branches(parent: Settings) -> list[Branch]:
    """Return the branches of a home, the oldest first."""
    files = (parent.home / BRANCHES).glob(f"[!.]*/{BRANCH_FILE}")
    return sorted((msgspec.json.decode(file.read_bytes(), type=Branch) for file in files), key=lambda b: b.made_at)


def branch_of(parent: Settings, name: str) -> Branch:
    """Return one branch; raise `NotFoundError` with the closest name."""
    found = {branch.name: branch for branch in branches(parent)}
    if name not in found:
        raise NotFoundError(
            f"{parent.home} has no branch {name!r}",
            exists=f"It has {listed(found)}",
            next_step=closest(name, found) or f"make it with `windrow branch {name}`",
        )
    return found[name]


def remove_branch(parent: Settings, name: str) -> Branch:
    """Remove a branch and all that was written in it; the parent's files stay where they are."""
    found, home = branch_of(parent, name), parent.home / BRANCHES / name
    gone = _hidden(home)  # in one step: whoever dies here leaves no half branch under the name
    home.rename(gone)
    shutil.rmtree(gone)
    return found


def refuse_branches(settings: Settings) -> None:
    """Raise `StoreError` where a branch still holds what is to be erased everywhere, or half a one that was left."""
    if halves := sorted((settings.home / BRANCHES).glob(".*")):
        raise StoreError(
            f"{halves[0]} holds rows of {settings.home} as they were",
            exists="A branch is being made or removed there, or a process died while it did so",
            next_step="wait for it, or remove that folder, then erase",
        )
    if found := branches(settings):
        raise StoreError(
            f"branch {found[0].name!r} holds rows of {settings.home} as they were",
            exists=f"There are {len(found)} branches",
            next_step=f"run windrow branch {found[0].name} --remove, then erase",
        )


@contextmanager
def _whole(home: Path) -> Iterator[Path]:
    """Yield a folder that becomes `home` when the block is done, and is gone when it fails."""
    making = _hidden(home)
    making.mkdir(parents=True)
    try:
        yield making
        making.rename(home)
    except OSError as error:
        raise StoreError(
            f"the branch {home.name!r} cannot be made: {error.strerror}",
            exists="Tables, releases and branches have to be on one disk that knows hard links",
            next_step="use the default places (inside WINDROW_HOME), or free disk space",
        ) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _hidden(home: Path) -> Path:
    """Return where a branch is made or removed by this process: a folder that nobody takes for a branch."""
    return home.with_name(f".{home.name}.{os.getpid()}")


def _link_table(lake: Lake, key: str, target: Path) -> int:
    """Link the files of a table's newest version and copy its log up to there; return the version."""
    source = Path(lake.root) / key
    for _ in range(_ATTEMPTS):
        delta = open_delta(str(source))
        if delta is None:
            raise NotFoundError(f"table {key!r} is gone", next_step="try again")
        try:
            for file in files_of(delta):
                _link(source / file.path, target / file.path)
            _copy_log(source / "_delta_log", target / "_delta_log", delta.version())
        except FileNotFoundError:  # vacuum, or the log's own cleaning, was quicker
            shutil.rmtree(target, ignore_errors=True)
        else:
            return int(delta.version())
    raise StoreError(f"table {key!r} is rewritten all the time", next_step="let its maintenance end, then try again")


def _copy_log(source: Path, target: Path, version: int) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        entry = _ENTRY.match(file.name)
        # Without the hint at the newest checkpoint, which may be of a later version: readers find it by name.
        if entry is not None and int(entry[1]) <= version:
            shutil.copyfile(file, target / file.name)


def _link_folder(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(source).parts)  # half written
        if file.is_file() and not hidden:
            _link(file, target / file.relative_to(source))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)


def _moved(old: str, new: str) -> Any:
    """Return a function that lets training datasets say where the branch's link to their file is."""

    def changed(table: str, row: dict[str, Any]) -> dict[str, Any]:
        document = msgspec.json.decode(row["document"]) if table == "datasets" else {}
        if str(document.get("path", "")).startswith(old):
            document["path"] = new + document["path"].removeprefix(old)
            row["document"] = msgspec.json.encode(document).decode()
        return row

    return changed
