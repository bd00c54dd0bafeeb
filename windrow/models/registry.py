"""The registry: which releases there are, and which one is live."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from windrow.errors import ModelError, StoreError
from windrow.models.bundle import Bundle, checked_file, load_bundle, write_bundle
from windrow.models.card import FILE as CARD
from windrow.models.release import Release, decode_release, encode_release

if TYPE_CHECKING:
    from windrow.stores.metadata import Metadata


class Registry:
    """Releases: files in a folder each, one row in the metadata store that makes them visible.

    Parameters
    ----------
    metadata
        Holds each release's document and which one is live.
    folder
        Holds the releases' folders, such as ``<home>/releases``.
    """

    def __init__(self, metadata: Metadata, folder: Path) -> None:
        self._metadata, self._folder = metadata, folder

    def next_number(self, service: str) -> int:
        """Return the number of the service's next release, counted from 1."""
        return 1 + max((r.number for r in self.list(service)), default=0)

    def register(self, release: Release, files: Mapping[str, bytes]) -> None:
        """Store a release; it is visible when this returns, and nothing of it is when this raises.

        Raises
        ------
        ModelError
            If the files are not the release's.
        StoreError
            If the release exists already, or cannot be written.
        """
        path = self.path(release.id)
        if release.id in {r.id for r in self.list(release.service)}:
            raise StoreError(
                f"release {release.id!r} exists already", next_step="releases never change: train again for a new one"
            )
        shutil.rmtree(path, ignore_errors=True)  # left by a process that died before its row was written
        write_bundle(path, release, files)
        try:
            self._metadata.add_release(release.service, release.id, encode_release(release))
        except BaseException:  # whatever stopped it, a folder without a row must not stay
            shutil.rmtree(path, ignore_errors=True)
            raise

    def promote(self, service: str, id: str, *, reason: str, at: int | None = None) -> None:
        """Make a release the live one; going back to an older one is the same call.

        Parameters
        ----------
        reason
            Why, for whoever reads the history.
        at
            UTC microseconds (default: now).

        Raises
        ------
        NotFoundError
            If the service has no such release.
        ModelError
            If its files are not those that were released.
        """
        known = [r.id for r in self.list(service)]
        if id in known:
            self.load(id).replay_golden()
        moment = time.time_ns() // 1000 if at is None else at
        self._metadata.deploy(service, id, reason=reason, at=moment)

    def live(self, service: str) -> Release | None:
        """Return the live release of a service, or None before the first."""
        id = self._metadata.live(service)
        return None if id is None else self.release(id)

    def release(self, id: str) -> Release:
        """Return one release; raise `NotFoundError` if there is none."""
        return decode_release(self._metadata.release(id), where=f"release {id!r}")

    def list(self, service: str) -> list[Release]:
        """Return a service's releases, oldest first."""
        return [decode_release(r.document, where=f"release {r.id!r}") for r in self._metadata.releases(service)]

    def services(self) -> tuple[str, ...]:
        """Return the names of all services that ever had a release."""
        return tuple(self._metadata.services())

    def path(self, id: str) -> Path:
        """Return the folder of a release."""
        if "/" in id or id.startswith("."):
            raise ModelError(
                f"{id!r} is no id of a release",
                next_step=f"look into {self._folder.name}/ or run `windrow releases SERVICE`",
            )
        return self._folder / id

    def card(self, id: str) -> bytes:
        """Return a release's model card, an HTML page.

        Raises
        ------
        NotFoundError
            If there is no such release.
        ModelError
            If it has no card, or that was changed.
        """
        return checked_file(self.path(id), self.release(id), CARD)

    def load(self, id: str) -> Bundle:
        """Return a release's bundle; its files are checked against the registry's own copy of the hashes.

        Raises
        ------
        NotFoundError
            If there is no such release.
        ModelError
            If a file is missing or was changed.
        """
        return load_bundle(self.path(id), self.release(id))
