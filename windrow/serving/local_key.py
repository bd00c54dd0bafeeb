"""The key of whoever works on this machine: made with the home, kept in it, readable by its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from windrow.serving.keyring import Keyring
from windrow.serving.keys import make_key
from windrow.settings import Settings
from windrow.stores.metadata import Metadata

NAME = "this machine"


def local_key_file(settings: Settings) -> Path:
    """Return where the local key is kept."""
    return settings.folder("service") / "key"


def local_key(settings: Settings) -> str:
    """Return the local key, with the scope ``admin``; make one where there is none, or where it is not valid any more.

    It may do no more than whoever can read its file: they can administer the home anyway.
    """
    file, keyring = local_key_file(settings), Keyring(Metadata(settings.metadata))
    try:
        keyring.refresh()
        kept = _read(file)
        return kept if kept and keyring.find(kept.encode()) else _made(settings, file)
    finally:
        keyring.close()


def _read(file: Path) -> str:
    """Return what is in the file, unless others could have read it."""
    if not file.is_file() or stat.S_IMODE(file.stat().st_mode) & 0o077:
        return ""
    return file.read_text(encoding="ascii", errors="replace").strip()


def _made(settings: Settings, file: Path) -> str:
    metadata = Metadata(settings.metadata)
    _, key = make_key(metadata, NAME, scopes=["admin"])
    metadata.close()
    new = file.with_name(f"key.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as out:
        out.write(key + "\n")
    new.replace(file)  # whole or not at all, also beside another process that does the same
    return key
