"""Who answers a row: golden, a challenger of an experiment, and which shadows listen.

The choice is `windrow.models.experiment`'s, of the experiment and the unit alone; here it is only looked up. Where the
unit falls into several experiments, the oldest one that has challengers chooses the release, and no other does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from windrow.models.experiment import GOLDEN, HOLDOUT, Experiment, assigner, misfit, unit_reader
from windrow.models.release import Release

SHADOW = "shadow"
"""Stands for an arm in the log's records of releases that only listen."""


class Answers(Protocol):
    """What can answer: a loaded release."""

    @property
    def release(self) -> Release:
        """Which one it is."""
        ...


S = TypeVar("S", bound=Answers)


class Route(msgspec.Struct, Generic[S], frozen=True):
    """What becomes of a row.

    Attributes
    ----------
    service
        Who answers it.
    experiment
        The one that chose who answers; "" where none did.
    arms, propensities
        By experiment that the row is in.
    shadows
        Who else is asked, with the experiments that ask.
    """

    service: S
    experiment: str = ""
    arms: dict[str, str] = {}
    propensities: dict[str, float] = {}
    shadows: tuple[tuple[S, tuple[str, ...]], ...] = ()


class Dispatcher(Generic[S]):
    """Sends the rows of one service's requests to releases; never changed, only replaced as a whole.

    Parameters
    ----------
    golden
        Who answers what no experiment gives to another.
    experiments
        The running ones, in the order in which they were started.
    releases
        Id -> the loaded release, for every release that an experiment names.
    """

    def __init__(self, golden: S, experiments: Sequence[Experiment], releases: Mapping[str, S]) -> None:
        self.golden, self.experiments = golden, tuple(experiments)
        self.releases = dict(releases)
        self._draws = [(unit_reader(one), assigner(one)) for one in experiments]
        self._routes: dict[tuple[str | None, ...], Route[S]] = {}

    def routes(self, request_ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Route[S]]:
        """Return the route of each row, given the id of its request and its values."""
        return [self._route(id, row) for id, row in zip(request_ids, rows, strict=True)]

    def _route(self, request_id: str, row: Mapping[str, Any]) -> Route[S]:
        drawn = tuple([arm_of(unit(request_id, row)) for unit, arm_of in self._draws])
        found = self._routes.get(drawn)
        if found is None:  # a few patterns, each made once
            found = self._routes[drawn] = self._made(drawn)
        return found

    def _made(self, drawn: Sequence[str | None]) -> Route[S]:
        inside = [(one, arm) for one, arm in zip(self.experiments, drawn, strict=True) if arm is not None]
        decides = next(((one, arm) for one, arm in inside if one.chooses), None)
        service, chosen = self.golden, ""
        if decides is not None:
            service, chosen = self._service(*decides), decides[0].name
        arms = {one.name: arm for one, arm in inside}
        propensities = {one.name: one.propensities[arm] for one, arm in inside}
        return Route(service, chosen, arms, propensities, self._shadows([one for one, _ in inside], service))

    def _service(self, experiment: Experiment, arm: str) -> S:
        if arm in (GOLDEN, HOLDOUT):
            return self.golden
        return self.releases[next(a.release for a in experiment.arms if a.name == arm)]

    def _shadows(self, inside: Sequence[Experiment], answers: S) -> tuple[tuple[S, tuple[str, ...]], ...]:
        asked: dict[str, list[str]] = {}
        for one in inside:
            for id in one.shadows:
                asked.setdefault(id, []).append(one.name)
        # Who answers has said already what it would say.
        return tuple((self.releases[i], tuple(who)) for i, who in asked.items() if i != answers.release.id)


def fitting(golden: Release, experiments: Sequence[Experiment], releases: Mapping[str, Release]) -> dict[str, str]:
    """Return experiment -> why it cannot run beside `golden` now, for those that cannot.

    The live release may have been replaced since an experiment was started.
    """
    told = ((one.name, id, misfit(golden, releases[id])) for one in experiments for id in one.releases)
    return {name: f"release {id!r} cannot stand beside {golden.id!r}: {why}" for name, id, why in told if why}
