"""The experiments of every service: started, given other weights, stopped; each change is a row, none is lost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from windrow.errors import DeclarationError, NotFoundError, closest, listed
from windrow.models.experiment import Arm, Experiment, check_releases, check_unit, free_buckets

if TYPE_CHECKING:
    from windrow.models.registry import Registry
    from windrow.models.release import Release
    from windrow.stores.metadata import Metadata


class Experiments:
    """The experiments in a metadata store; workers follow it and need no restart.

    Parameters
    ----------
    metadata
        Holds one row for each state of each experiment.
    registry
        Knows the releases.
    """

    def __init__(self, metadata: Metadata, registry: Registry) -> None:
        self._metadata, self._registry = metadata, registry

    def start(self, plan: Experiment) -> Experiment:
        """Begin an experiment; return it with its part of the layer.

        Raises
        ------
        NotFoundError
            If there is no such service or release, or none is live.
        ModelError
            If a release does not fit the requests, two of them are equal artefacts, or one's files are missing, were
            changed or do not answer as they did when they were released.
        DeclarationError
            If the service has an experiment of this name, its layer has no room or other units, or the unit is no
            key of a request.
        """
        number, known = self._known(plan.service)
        _check_new(plan, known)
        golden = self._golden(plan.service)
        check_releases(plan, golden, self._named(plan))
        check_unit(plan, golden)
        for id in plan.releases:
            self._registry.load(id).replay_golden()
        now = time.time_ns() // 1000
        made = replace(plan, buckets=_room(plan, known), started_at=now, changed_at=now, stopped_at=None)
        self._record(made, "experiment started", after=number)
        return made

    def reweigh(self, service: str, name: str, weights: Mapping[str, float], *, reason: str = "by hand") -> Experiment:
        """Give the arms of a running experiment other weights.

        Parameters
        ----------
        weights
            By arm; golden's is what the others leave, where it is not given.

        Raises
        ------
        NotFoundError
            If there is no such experiment, or no such arm.
        DeclarationError
            If it was stopped, or they are no weights.
        """
        number, _ = self._known(service)
        before = self._running(service, name)
        arms = _weighed(before, weights)
        changed = replace(before, arms=arms, changed_at=time.time_ns() // 1000, reason=reason)
        self._record(changed, "experiment weights changed", after=number)
        return changed

    def stop(self, service: str, name: str, *, reason: str = "by hand") -> Experiment:
        """End an experiment: golden answers all its units from now on.

        Raises
        ------
        NotFoundError
            If there is no such experiment.
        DeclarationError
            If it was stopped already.
        """
        number, _ = self._known(service)
        ended = replace(self._running(service, name), stopped_at=time.time_ns() // 1000, reason=reason)
        self._record(ended, "experiment stopped", after=number)
        return ended

    def keep(self, service: str, name: str, measured: dict[str, Any]) -> None:
        """Keep what was measured of an experiment (`windrow.models.performance`), for those who ask later."""
        self._metadata.add_performance(service, name, measured)

    def list(self, service: str | None = None) -> list[Experiment]:
        """Return every experiment as it is now, in the order in which they were started."""
        return list(newest(self._metadata, service).values())

    def of_service(self, service: str) -> Sequence[Experiment]:
        """Return those of one service; raise `NotFoundError` if it was never released."""
        self._check_service(service)
        return self.list(service)

    def history(self, service: str, name: str) -> Sequence[Experiment]:
        """Return every state of one experiment, oldest first."""
        return [_read(row.document) for row in self._metadata.experiments(service, name=name)]

    def experiment(self, service: str, name: str) -> Experiment:
        """Return one as it is now; raise `NotFoundError` if there is none."""
        known = {one.name: one for one in self.of_service(service)}
        if name not in known:
            raise NotFoundError(
                f"service {service!r} has no experiment {name!r}",
                exists=f"It has {listed(known)}",
                next_step=closest(name, known) or f"start it: windrow experiment start {service} {name} --help",
            )
        return known[name]

    def _running(self, service: str, name: str) -> Experiment:
        found = self.experiment(service, name)
        if not found.running:
            raise DeclarationError(
                f"experiment {name!r} was stopped ({found.reason})", next_step="start another one, under another name"
            )
        return found

    def _known(self, service: str) -> tuple[int, Sequence[Experiment]]:
        rows = self._metadata.experiments(service)
        return max((row.number for row in rows), default=0), self.list(service)

    def _record(self, experiment: Experiment, action: str, *, after: int) -> None:
        document = msgspec.to_builtins(experiment)
        self._metadata.record_experiment(experiment.service, experiment.name, document, after=after, action=action)

    def _check_service(self, service: str) -> None:
        known = self._registry.services()
        if service not in known:
            raise NotFoundError(
                f"no service {service!r} was ever released",
                exists=f"There are {listed(known)}",
                next_step=closest(service, known) or f"run it first: windrow run {service}",
            )

    def _golden(self, service: str) -> Release:
        self._check_service(service)
        live = self._registry.live(service)
        if live is None:
            step = f"promote one first: windrow promote {service} RELEASE"
            raise NotFoundError(f"service {service!r} has no live release to compare with", next_step=step)
        return live

    def _named(self, plan: Experiment) -> dict[str, Release]:
        return {id: self._registry.of_service(plan.service, id) for id in plan.releases}


def newest(metadata: Metadata, service: str | None = None) -> dict[tuple[str, str], Experiment]:
    """Return (service, name) -> the experiment as it is now, in the order in which they were started."""
    found: dict[tuple[str, str], Experiment] = {}
    for row in metadata.experiments(service):
        found[row.service, row.name] = _read(row.document)
    return found


def _read(document: dict[str, object]) -> Experiment:
    return msgspec.convert(document, Experiment)


def _check_new(plan: Experiment, known: Sequence[Experiment]) -> None:
    taken = [one.name for one in known]
    if plan.name in taken:
        raise DeclarationError(
            f"service {plan.service!r} has an experiment {plan.name!r} already: the log tells them apart by name",
            exists=f"It has {listed(taken)}",
            next_step="choose another name",
        )


def _room(plan: Experiment, known: Sequence[Experiment]) -> tuple[tuple[int, int], ...]:
    beside = [one for one in known if one.running and one.layer == plan.layer]
    other = next((one for one in beside if one.unit != plan.unit), None)
    if other is not None:
        raise DeclarationError(
            f"layer {plan.layer!r} is divided by {listed(other.unit)} (experiment {other.name!r}): by {listed(plan.unit)} "
            "as well, one request could be in two of its experiments",
            next_step="give the same --unit, or another --layer",
        )
    found = free_buckets(beside, plan.share)
    if found is None:
        used = sum(one.share for one in beside)
        raise DeclarationError(
            f"layer {plan.layer!r} has no room for {plan.share:.0%} of its units",
            exists=f"{listed(one.name for one in beside)} have {used:.0%} of them",
            next_step="give a smaller --share, another --layer, or stop one of them",
        )
    return found


def _weighed(before: Experiment, weights: Mapping[str, float]) -> tuple[Arm, ...]:
    names = [arm.name for arm in before.arms]
    for name in weights:
        if name not in names:
            raise NotFoundError(
                f"experiment {before.name!r} has no arm {name!r}",
                exists=f"It has {listed(names)}",
                next_step=closest(name, names) or "name one of them",
            )
    others = [replace(arm, weight=weights.get(arm.name, arm.weight)) for arm in before.arms[1:]]
    left = round(1 - sum(arm.weight for arm in others), 9)
    return (replace(before.arms[0], weight=weights.get(names[0], left)), *others)
