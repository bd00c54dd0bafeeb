"""Versions of feature groups that releases still need: they stay declared, and fed, as long as a release may be called back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from windrow.errors import VersionError, closest, listed
from windrow.features.group import FeatureGroup
from windrow.models.experiments import newest
from windrow.models.release import Release, decode_release

if TYPE_CHECKING:
    from windrow.stores.metadata import Metadata


class Kept(NamedTuple):
    """A version of a group that releases of one service need.

    Attributes
    ----------
    group
        Name with version, such as ``card_spend_v1``.
    releases
        The newest first.
    """

    service: str
    group: str
    releases: tuple[str, ...]


def kept_versions(metadata: Metadata, services: Iterable[str], *, keep: int) -> list[Kept]:
    """Return the versions that the last `keep` releases, the live one and those in running experiments read.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.stores.metadata import Metadata
    >>> kept_versions(Metadata(f"sqlite:///{mkdtemp()}/metadata.db"), ["churn"], keep=3)
    []
    """
    return [kept for service in services for kept in _of_service(service, _releases(metadata, service, keep))]


def check_kept(kept: Sequence[Kept], declared: Iterable[FeatureGroup]) -> None:
    """Raise unless every version that releases need is declared, as it was when they were made or not at all.

    Raises
    ------
    VersionError
        Naming the version, the releases that need it, and what to write.
    """
    known = {group.table_name for group in declared}
    for version in kept:
        if version.group not in known:
            raise _missing(version, known)


def groups_kept(kept: Sequence[Kept], declared: Iterable[FeatureGroup], service: str) -> list[FeatureGroup]:
    """Return the declared groups that releases of one service need."""
    wanted = {version.group for version in kept if version.service == service}
    found = {group.table_name: group for group in declared if group.table_name in wanted}
    return list(found.values())


def _releases(metadata: Metadata, service: str, keep: int) -> list[Release]:
    rows = metadata.releases(service)
    needed = {metadata.live(service)}
    for experiment in newest(metadata, service).values():
        needed |= set(experiment.releases) if experiment.running else set()
    chosen = [row for place, row in enumerate(reversed(rows)) if place < keep or row.id in needed]
    return [decode_release(row.document, where=f"release {row.id!r}") for row in chosen]


def _of_service(service: str, releases: Sequence[Release]) -> list[Kept]:
    groups = dict.fromkeys(group for release in releases for group in release.groups)
    return [Kept(service, group, tuple(r.id for r in releases if group in r.groups)) for group in groups]


def _missing(version: Kept, known: Iterable[str]) -> VersionError:
    name, _, number = version.group.rpartition("_v")
    line = f'@feature_group(..., name="{name}", version={number}) on a function of another name, beside the new one'
    return VersionError(
        f"version {number} of feature group {name!r} is not declared any more, but service {version.service!r} "
        f"needs it for {listed(version.releases)}",
        exists=f"Declared are {listed(known)}. {closest(version.group, known)}".rstrip(" ?"),
        next_step=f"keep it: {line}; or set WINDROW_KEEP_RELEASES to fewer releases, promote one that does not read it and stop experiments that need it",
    )
