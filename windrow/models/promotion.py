"""The rules of promotion: what stands in the way of a release, and who signed for it all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from windrow.clock import Clock, from_micros, period, spoken
from windrow.errors import DeclarationError, ModelError
from windrow.models.release import GateResult, Release

if TYPE_CHECKING:
    from windrow.stores.metadata import Metadata

_MINUTE = 60_000_000


class Override(msgspec.Struct, frozen=True):
    """A signature under a promotion that the rules refuse.

    Attributes
    ----------
    by, reason
        Who takes it upon them, and why.
    objections
        What stood in the way then; filled in by the registry.

    Examples
    --------
    >>> Override(by="ada", reason="the old model is worse still").objections
    ()
    """

    by: str
    reason: str
    objections: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.by.strip() and self.reason.strip()):
            missing = "reason" if self.by.strip() else "signature"
            raise DeclarationError(
                f"an override has no {missing}", next_step='give both: --override "why" --by "your name"'
            )


def objections(release: Release, metadata: Metadata, *, clock: Clock | None, at: int) -> list[str]:
    """Return what stands in the way of promoting a release.

    Parameters
    ----------
    clock
        The project's: ages of feature groups are judged by it. Without one they are not.
    at
        UTC microseconds of the wall clock: a waiver ends by it.
    """
    found = [f"{gate.name or gate.metric} failed: {gate.why}{_ended(gate)}" for gate in release.failed(at)]
    if not release.metrics:
        found.append("it was never evaluated: it has no metric of held-out rows")
    return found + ([] if clock is None else stale_groups(release, metadata, clock=clock))


def stale_groups(release: Release, metadata: Metadata, *, clock: Clock, besides: Release | None = None) -> list[str]:
    """Return what is to be said of each feature group without a materialisation for twice its schedule.

    Parameters
    ----------
    besides
        A release whose groups do not count: what answers already is no worse with them.
    """
    known = set() if besides is None else set(besides.groups)
    read_in_place = {lookup.group for lookup in release.contract.lookups if lookup.external is not None}
    told = (_stale(group, release, metadata, clock) for group in release.groups if group not in known | read_in_place)
    return [text for text in told if text]


def refused(release: Release, found: Sequence[str]) -> ModelError:
    """Return the error of a promotion that the rules refuse."""
    return ModelError(
        f"release {release.id!r} cannot be promoted: {'; '.join(found)}",
        next_step=f'mend that (windrow run {release.service}), or sign for it: --override "why" --by "your name"',
    )


def _stale(group: str, release: Release, metadata: Metadata, clock: Clock) -> str:
    done, allowed = metadata.materialization(f"features/{group}"), 2 * period(release.schedule)
    if done is None:
        return f"its feature group {group!r} was never materialised"
    if clock.kind == "fixed":  # no time passes there
        return ""
    if clock.kind == "real":
        age = clock.now(lambda: 0) - done.at
    else:
        today = {source: span.known for source, span in metadata.spans().items()}
        age = _latest(release, today) - _latest(release, done.known)
    if age <= allowed:
        return ""
    last = from_micros(done.at).isoformat(timespec="seconds")
    rule = f"twice its schedule ({release.schedule}) is {spoken(allowed)}"
    return f"its feature group {group!r} had no materialisation for {spoken(age // _MINUTE * _MINUTE)} (last {last}); {rule}"


def _latest(release: Release, known: dict[str, int]) -> int:
    return max((known[source] for source in release.sources if source in known), default=0)


def _ended(gate: GateResult) -> str:
    return f" (its waiver ended on {from_micros(gate.waived.until).date()})" if gate.waived else ""
