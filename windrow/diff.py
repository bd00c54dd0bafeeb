"""What two states of a project declare differently: commits of its repository, or folders."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec

from windrow.errors import DeclarationError, NotFoundError

WORKING_TREE = "."


class Change(msgspec.Struct, frozen=True):
    """One part of one service that differs; `before` or `after` is None where the part is absent."""

    service: str
    part: str
    before: str | None
    after: str | None


def diff(before: str, after: str = WORKING_TREE, *, project: Path) -> list[Change]:
    """Return what changed in the declarations from one state of a project to another.

    Parameters
    ----------
    before, after
        A git commit (anything ``git rev-parse`` knows), or a project's folder; ``"."`` is the
        project as it is on disk.
    project
        The project's folder, for commits.

    Raises
    ------
    NotFoundError
        When a state is neither a folder nor a commit.
    DeclarationError
        When the declarations of a state cannot be read; the message is theirs.
    """
    return compare(declarations(before, project=project), declarations(after, project=project))


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the differences between two results of `windrow.discover.describe`.

    Examples
    --------
    >>> compare({"fraud": {"online": {"p99_ms": 10}}}, {"fraud": {"online": {"p99_ms": 20}}})
    [Change(service='fraud', part='online.p99_ms', before='10', after='20')]
    """
    changes: list[Change] = []
    for service in sorted({*before, *after}):
        old, new = _flat(before.get(service)), _flat(after.get(service))
        parts = [part for part in dict.fromkeys((*old, *new)) if old.get(part) != new.get(part)]
        changes += [Change(service, part, old.get(part), new.get(part)) for part in parts]
    return changes


def declarations(state: str, *, project: Path) -> dict[str, Any]:
    """Return what one state of a project declares, read in a process of its own."""
    with _folder(state, project) as folder:
        command = [sys.executable, "-P", "-m", "windrow.discover", str(folder)]
        done = subprocess.run(command, cwd=folder.parent, capture_output=True, check=False)
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise DeclarationError(
            f"the declarations of {state!r} cannot be read",
            exists=told[-1][:500] if told else "",
            next_step="correct them there, or compare with another commit",
        )
    found: dict[str, Any] = msgspec.json.decode(done.stdout)
    return found


@contextmanager
def _folder(state: str, project: Path) -> Iterator[Path]:
    if state == WORKING_TREE:
        yield project
    elif Path(state).is_dir():
        yield Path(state).absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="windrow-diff-") as scratch:
            yield _checked_out(state, project, Path(scratch) / "project")


def _checked_out(commit: str, project: Path, target: Path) -> Path:
    """Unpack the project as it was at a commit; the repository and its index stay untouched."""
    if not project.is_dir():
        raise NotFoundError(f"there is no folder {project}", next_step="set WINDROW_PROJECT to the project's folder")
    # Behind the dashes no name can be taken for an option.
    command = ["git", "archive", "--format=tar", "--", commit, "."]
    archive = subprocess.run(command, cwd=project, capture_output=True, check=False)
    if archive.returncode:
        told = archive.stderr.decode(errors="replace").strip().splitlines()
        raise NotFoundError(
            f"{commit!r} is neither a folder nor a commit of {project}",
            exists=told[-1][:200] if told else "",
            next_step="name a commit, such as HEAD~1, or a project's folder",
        )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as packed:
        if hasattr(tarfile, "data_filter"):
            packed.extractall(target, filter=_inside)  # noqa: S202 - the filter is "data", and leaves out more
        else:  # Python 3.11.0 to 3.11.3; the archive is of the reader's own repository
            packed.extractall(target)  # noqa: S202
    return target


def _inside(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    try:
        return tarfile.data_filter(member, target)
    except (tarfile.AbsoluteLinkError, tarfile.LinkOutsideDestinationError):
        return None  # such as data -> /mnt/data: what lies elsewhere is no part of the commit


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Return ``path.to.leaf -> text``; a list of plain values is one leaf."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        parts = [_flat(inner, f"{path}.{key}" if path else str(key)) for key, inner in value.items()]
        return {key: text for part in parts for key, text in part.items()}
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return _flat(dict(enumerate(value)), path)
    return {path: value if isinstance(value, str) else msgspec.json.encode(value).decode()}
