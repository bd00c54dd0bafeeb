"""The registry: which releases there are, and which one is live."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import to_builtins
from msgspec.structs import replace

from windrow.errors import ModelError, NotFoundError, StoreError, closest, listed
from windrow.models.bundle import Bundle, checked_file, load_bundle, unwritable, write_bundle
from windrow.models.card import FILE as CARD
from windrow.models.promotion import Override, objections, refused, stale_groups
from windrow.models.release import Release, decode_release, encode_release
from windrow.models.unfinished import signed

if TYPE_CHECKING:
    from windrow.clock import Clock
    from windrow.stores.metadata import Deployment, Metadata

Finished = tuple[Release, Mapping[str, bytes]]


class Registry:
    """Releases: files in a folder each, one row in the metadata store that makes them visible.

    Parameters
    ----------
    metadata
        Holds each release's document and which one is live.
    folder
        Holds the releases' folders, such as ``<home>/releases``.
    clock
        The project's, by which the ages of feature groups are judged; without one they are not.
    """

    def __init__(self, metadata: Metadata, folder: Path, *, clock: Clock | None = None) -> None:
        self._metadata, self._folder, self._clock = metadata, folder, clock

    def register(self, release: Release, files: Mapping[str, bytes], *, after: int | None = None) -> bool:
        """Store a release; it is visible when this returns, and nothing of it is when this raises.

        Parameters
        ----------
        after
            How many releases the service had when this one was numbered.

        Returns
        -------
        bool
            False, and nothing is stored, where the service has another number of releases by now.

        Raises
        ------
        ModelError
            If the files are not the release's.
        StoreError
            If the release exists already, or cannot be written.
        """
        path = self.path(release.id)
        if self._registered(release.id):
            raise StoreError(
                f"release {release.id!r} exists already", next_step="releases never change: train again for a new one"
            )
        try:
            with signed(self._folder, release.id, registered=self._registered):
                return self._stored(path, release, files, after=after)
        except OSError as error:
            raise unwritable(release, self._folder, error) from error

    def register_next(self, release: Release, finish: Callable[[Release], Finished]) -> Release:
        """Store a release under the next number of its service, which nobody else gets, and return it.

        Parameters
        ----------
        release
            Without number and id, whatever stands there.
        finish
            Is given the release with both; returns it with the hashes of its files, and the files. It is asked
            again, with other ones, where another process was faster.
        """
        while True:
            known = self.list(release.service)
            number = 1 + max((r.number for r in known), default=0)
            id = f"{release.service}-{number}-{os.urandom(3).hex()}"
            made, files = finish(replace(release, id=id, number=number))
            if self.register(made, files, after=len(known)):
                return made

    def promote(
        self, service: str, id: str, *, reason: str, at: int | None = None, override: Override | None = None
    ) -> Override | None:
        """Make a release the live one; where it is that already, nothing changes and nothing is added.

        Parameters
        ----------
        reason
            Why, for whoever reads the history.
        at
            UTC microseconds (default: now).
        override
            A signature under what the rules refuse; it stays with the deployment.

        Returns
        -------
        Override or None
            The signature with what it was needed for; None where none was needed.

        Raises
        ------
        NotFoundError
            If the service has no such release.
        ModelError
            If a gate failed, it was never evaluated, or a feature group of it had no materialisation for twice
            its schedule, and nobody signs for that; or if its files are not those that were released.
        """
        moment = time.time_ns() // 1000 if at is None else at
        release = self.of_service(service, id)
        if self._metadata.live(service) == id:
            return None
        found = objections(release, self._metadata, clock=self._clock, at=moment)
        return self._deploy(release, found, reason=reason, at=moment, override=override)

    def rollback(
        self, service: str, *, reason: str, at: int | None = None, override: Override | None = None
    ) -> Release:
        """Make the release live that was live before, and return it.

        Its gates were judged then; a feature group of it that nobody materialises any more is in the way, unless
        the live release reads it as well.

        Raises
        ------
        NotFoundError
            If no other release was ever live.
        ModelError
            As `promote` does.
        """
        moment = time.time_ns() // 1000 if at is None else at
        live = self.live(service)
        earlier = [d.release for d in self._metadata.deployments(service) if live is None or d.release != live.id]
        if not earlier:
            raise NotFoundError(
                f"service {service!r} never had another live release",
                next_step=f"run windrow run {service} for a new one, or windrow promote {service} RELEASE",
            )
        release = self.release(earlier[-1])
        found = stale_groups(release, self._metadata, clock=self._clock, besides=live) if self._clock else []
        self._deploy(release, found, reason=reason, at=moment, override=override, action="release rolled back")
        return release

    def history(self, service: str) -> Sequence[Deployment]:
        """Return every change of the live release, oldest first, with the overrides that were signed."""
        return self._metadata.deployments(service)

    def live_at(self, service: str, at: int) -> Deployment | None:
        """Return which deployment answered at a time (UTC microseconds), or None before the first."""
        before = [d for d in self._metadata.deployments(service) if d.at <= at]
        return before[-1] if before else None

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

    def of_service(self, service: str, id: str) -> Release:
        """Return one release of a service; raise `NotFoundError` with those that it has."""
        known = [r.id for r in self._metadata.releases(service)]
        if id not in known:
            raise NotFoundError(
                f"service {service!r} has no release {id!r}",
                exists=f"It has {listed(known)}",
                next_step=closest(id, known) or f"run `windrow releases {service}`",
            )
        return self.release(id)

    def _registered(self, id: str) -> bool:
        try:
            self._metadata.release(id)
        except NotFoundError:
            return False
        return True

    def _stored(self, path: Path, release: Release, files: Mapping[str, bytes], *, after: int | None) -> bool:
        added = False
        shutil.rmtree(path, ignore_errors=True)  # of an older windrow, whose dead processes left no sign
        write_bundle(path, release, files)
        try:
            added = self._metadata.add_release(release.service, release.id, encode_release(release), after=after)
        finally:  # whatever stopped it, a folder without a row must not stay
            if not added:
                shutil.rmtree(path, ignore_errors=True)
        return added

    def _deploy(
        self,
        release: Release,
        found: Sequence[str],
        *,
        reason: str,
        at: int,
        override: Override | None,
        action: str = "release promoted",
    ) -> Override | None:
        if found and override is None:
            raise refused(release, found)
        signed = replace(override, objections=tuple(found)) if found and override is not None else None
        self.load(release.id).replay_golden()
        told = None if signed is None else to_builtins(signed)
        self._metadata.deploy(release.service, release.id, reason=reason, at=at, override=told, action=action)
        return signed
