"""Rows that need no model: a batch run of the same release has stored their prediction, and it is not too old."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from windrow.errors import AwayError
from windrow.models.precomputed import Kept, group_of, key_fields, unpacked
from windrow.models.release import Release
from windrow.serving.transformer import Store
from windrow.stores.online.store import Row


class Precomputed:
    """The stored predictions of one release.

    Parameters
    ----------
    service, release
        Whose; those of other releases are not taken.
    fields
        The request fields that name the entity.
    ttl
        How old one may be, microseconds.
    online
        Where they are.

    Attributes
    ----------
    rows
        How many rows were ``found``, and how many had to be computed (``missed``).

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.models.precomputed import COLUMNS
    >>> from windrow.stores.online.store import open_online
    >>> store = open_online(f"lmdb://{mkdtemp()}/online", write=True)
    >>> _ = store.write("predictions/churn", COLUMNS, [((7,), Row(10, 10, 1, (0.5, "churn-1")))])
    >>> stored = Precomputed("churn", "churn-1", ("customer_id",), 100, store)
    >>> stored.find([{"customer_id": 7}, {"customer_id": 8}], [50, 50])
    [Kept(output=0.5, event_time=10), None]
    """

    def __init__(self, service: str, release: str, fields: Sequence[str], ttl: int, online: Store) -> None:
        self._group, self._release, self._ttl, self._online = group_of(service), release, ttl, online
        self._fields = tuple(fields)
        self.rows = Counter[str]()

    def find(self, rows: Sequence[Mapping[str, Any]], times: Sequence[int]) -> list[Kept | None]:
        """Return the stored prediction of each row as of its time (UTC microseconds), None where there is none.

        A store that is away has none: what then becomes of a row is the release's policy.
        """
        wanted = [(self._group, tuple(row[name] for name in self._fields)) for row in rows]
        try:
            stored = self._online.read(wanted)
        except AwayError:
            stored = [None] * len(wanted)
        found = [self._fitting(row, time) for row, time in zip(stored, times, strict=True)]
        missed = found.count(None)
        self.rows.update(found=len(found) - missed, missed=missed)
        return found

    def _fitting(self, row: Row | None, time: int) -> Kept | None:
        if row is None or row.known_at > time or not 0 <= time - row.event_time <= self._ttl:
            return None
        output, release = row.values
        return Kept(unpacked(output), row.event_time) if release == self._release else None


def precomputed(release: Release, online: Store | None) -> Precomputed | None:
    """Return the stored predictions of a release, None where its service declares that there are none."""
    ttl = release.policies.precomputed
    if ttl is None or online is None:
        return None
    return Precomputed(release.service, release.id, key_fields(release.contract), ttl, online)
