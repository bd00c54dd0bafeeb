"""An experiment on a live service: which releases answer which units, and who only listens.

Assignment needs nothing but the experiment and the unit (`windrow.models.assignment`). The golden arm is always there
and follows the service's live release; the releases of all other arms are fixed. Weights may change, nothing else does.

Experiments of different layers divide the same units independently; those of one layer share it out and never meet
(Tang, Agarwal, O'Brien and Meyer, 2010). One answer comes from one release: of the experiments with challengers that a
unit is in, the one that was started first chooses it, in each of its arms; in the others the unit is assigned, and
logged so, but not exposed. What the first one does not take (its share is below 1) is, for the others, a random part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from windrow.errors import DeclarationError, ModelError, UnknownNameError, listed
from windrow.models.assignment import rendezvous, uniform, unit_of
from windrow.models.bundle import MODEL_FILES
from windrow.models.release import Release
from windrow.schema import check_name

GOLDEN, HOLDOUT = "golden", "holdout"
BY_REQUEST = "request"
BUCKETS = 1000
"""A layer is shared out in thousandths."""

Reward = Literal["correct", "outcome"]

_NEAR = 1e-6


class Arm(msgspec.Struct, frozen=True):
    """One arm: its release ("" for golden: whatever is live) and its share of the units that are not held out."""

    name: str
    weight: float
    release: str = ""


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried on the requests of one service.

    Attributes
    ----------
    unit
        What keeps its arm: names of entity keys of a request, or ``("request",)`` for each request by itself.
    arms
        Golden first; their weights add up to 1.
    shadows
        Releases that are asked the same and never answer.
    holdout
        Share of the units that golden always answers, whatever the weights.
    share
        Of the layer's units that are in the experiment at all.
    reward
        What Thompson sampling learns from, 0 or 1: whether the answer was ``correct``, or the ``outcome`` itself.
    layer, buckets
        Which part of which layer it has, as ranges of thousandths; given by `windrow.models.experiments`.
    started_at, changed_at, stopped_at
        UTC microseconds of the wall clock: begin, last change of weights, end.
    reason
        Why it was changed last.

    Raises
    ------
    DeclarationError
        If it cannot be right for any service.

    Examples
    --------
    >>> trial = Experiment(service="fraud", name="trial", arms=weighed({"new": ("fraud-2", 0.1)}))
    >>> [(arm.name, arm.weight) for arm in trial.arms]
    [('golden', 0.9), ('new', 0.1)]
    >>> Experiment(service="fraud", name="trial", arms=(Arm("golden", 0.5), Arm("new", 0.1, "fraud-2")))
    Traceback (most recent call last):
    windrow.errors.DeclarationError: experiment 'trial': the weights add up to 0.6. Next: give weights that add up to 1, golden's included.
    """

    service: str
    name: str
    arms: tuple[Arm, ...] = (Arm(GOLDEN, 1.0),)
    shadows: tuple[str, ...] = ()
    unit: tuple[str, ...] = (BY_REQUEST,)
    holdout: float = 0.0
    share: float = 1.0
    reward: Reward = "correct"
    layer: str = "main"
    buckets: tuple[tuple[int, int], ...] = ((0, BUCKETS),)
    started_at: int = 0
    changed_at: int = 0
    stopped_at: int | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        check_name("experiment", self.name)
        check_name("layer", self.layer)
        where = f"experiment {self.name!r}"
        _check_arms(self.arms, self.shadows, where)
        _check_share(self.holdout, f"{where}: the hold-out", low=0, most=0.9)
        _check_share(self.share, f"{where}: the share of its layer", low=1 / BUCKETS, most=1)
        if not self.unit or len(set(self.unit)) < len(self.unit):
            raise DeclarationError(f"{where} has no unit", next_step="name entity keys, each once, or 'request'")

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.stopped_at is None

    @property
    def chooses(self) -> bool:
        """Whether it has a challenger, and so may decide which release answers; else it only listens."""
        return len(self.arms) > 1

    @property
    def releases(self) -> tuple[str, ...]:
        """Every release that it names, each once."""
        return tuple(dict.fromkeys([*(arm.release for arm in self.arms[1:]), *self.shadows]))

    @property
    def propensities(self) -> dict[str, float]:
        """Arm -> the probability with which a unit of the experiment gets it now; the hold-out is one of them."""
        kept = 1 - self.holdout
        return {HOLDOUT: self.holdout} | {arm.name: kept * arm.weight for arm in self.arms}

    @property
    def by_request(self) -> bool:
        """Whether each request is a unit of its own."""
        return self.unit == (BY_REQUEST,)


def weighed(challengers: Mapping[str, tuple[str, float]], golden: float | None = None) -> tuple[Arm, ...]:
    """Return arms of name -> (release, weight); golden's weight is what the others leave, where it is not given."""
    others = [Arm(name, weight, release) for name, (release, weight) in challengers.items()]
    left = round(1 - sum(arm.weight for arm in others), 9) if golden is None else golden
    return (Arm(GOLDEN, left), *others)


def assigner(experiment: Experiment) -> Callable[[bytes], str | None]:
    """Return the function that gives each unit its arm, or None where the unit is not in the experiment.

    Examples
    --------
    >>> trial = Experiment(service="fraud", name="trial", arms=weighed({"new": ("fraud-2", 0.5)}), holdout=0.1)
    >>> arm = assigner(trial)
    >>> [arm(unit_of(card)) for card in (1, 2, 5)] == [arm(unit_of(card)) for card in (1, 2, 5)]
    True
    """
    service, name, held = experiment.service, experiment.name, experiment.holdout
    choose = rendezvous({arm.name: arm.weight for arm in experiment.arms}, "arm", service, name)
    place, other = uniform("layer", service, experiment.layer), uniform("holdout", service, name)
    ranges = experiment.buckets
    whole = ranges == ((0, BUCKETS),)

    def arm_of(unit: bytes) -> str | None:
        if not whole:
            bucket = int(place(unit) * BUCKETS)
            if not any(start <= bucket < end for start, end in ranges):
                return None
        return HOLDOUT if held and other(unit) < held else choose(unit)

    return arm_of


def unit_reader(experiment: Experiment) -> Callable[[str, Mapping[str, Any]], bytes]:
    """Return the function that makes the unit of a request's id and a row's values."""
    names = experiment.unit
    if experiment.by_request:
        return lambda request_id, row: unit_of(request_id)
    if len(names) == 1:
        only = names[0]
        return lambda request_id, row: unit_of(row[only])
    return lambda request_id, row: unit_of(*[row[name] for name in names])


def free_buckets(taken: Sequence[Experiment], share: float) -> tuple[tuple[int, int], ...] | None:
    """Return ranges of a layer for a new experiment, or None where running ones leave too little.

    Examples
    --------
    >>> first = Experiment(service="fraud", name="first", shadows=("fraud-2",), buckets=((0, 300),))
    >>> free_buckets([first], 0.5), free_buckets([first], 0.8)
    (((300, 800),), None)
    """
    used = sorted(part for one in taken for part in one.buckets)
    gaps = zip([0, *(end for _, end in used)], [*(start for start, _ in used), BUCKETS], strict=True)
    wanted, found = round(share * BUCKETS), list[tuple[int, int]]()
    for start, end in gaps:
        size = min(end - start, wanted)
        if size > 0:
            found.append((start, start + size))
            wanted -= size
    return tuple(found) if wanted == 0 else None


def misfit(golden: Release, other: Release) -> str:
    """Return why `other` cannot answer the requests that `golden` takes, "" where it can."""
    if (golden.task, golden.classes) != (other.task, other.classes):
        return f"it predicts {_predicted(other)} and not {_predicted(golden)}"
    fields = {field.name: field for field in golden.contract.request}
    for field in other.contract.request:
        given = fields.get(field.name)
        if given is None or given.dtype != field.dtype:
            return f"a request of {golden.id!r} need not bring {field.name!r} ({field.dtype})"
        if given.nullable and not field.nullable:
            return f"a request of {golden.id!r} may leave {field.name!r} null"
    if other.contract.timed and not golden.contract.timed:
        return f"a request of {golden.id!r} need not bring its event_time"
    return ""


def same_artefact(one: Release, other: Release) -> bool:
    """Whether two releases are the same model file under the same contract: they can only answer the same."""
    return _model(one) == _model(other) and one.contract == other.contract


def check_releases(experiment: Experiment, golden: Release, named: Mapping[str, Release]) -> None:
    """Raise `ModelError` unless the releases of an experiment fit golden's requests and all differ.

    Parameters
    ----------
    named
        Every release that the experiment names, by id.
    """
    for release in named.values():
        why = misfit(golden, release)
        if why:
            raise ModelError(
                f"release {release.id!r} cannot stand beside {golden.id!r}: {why}",
                next_step=f"train it on the same request, or promote it: windrow promote {golden.service} {release.id}",
            )
    every = [golden, *(named[id] for id in experiment.releases)]
    for place, release in enumerate(every):
        twin = next((other for other in every[:place] if same_artefact(release, other)), None)
        if twin is not None:
            raise ModelError(
                f"experiment {experiment.name!r} would compare {release.id!r} with itself: {twin.id!r} is the same model "
                "file under the same contract",
                next_step=f"name another release (windrow releases {golden.service})",
            )


def check_unit(experiment: Experiment, golden: Release) -> None:
    """Raise `UnknownNameError` unless the unit is made of entity keys of golden's requests."""
    keys = dict.fromkeys(name for lookup in golden.contract.lookups for name in lookup.fields)
    if BY_REQUEST in experiment.unit and not experiment.by_request:
        raise DeclarationError(
            f"the unit of experiment {experiment.name!r} is {listed(experiment.unit)}: each request is a unit of its own",
            next_step=f"give {BY_REQUEST!r} alone, or entity keys alone",
        )
    for name in () if experiment.by_request else experiment.unit:
        if name not in keys:
            where = f"a request to service {experiment.service!r}"
            raise UnknownNameError("entity key", name, [*keys, BY_REQUEST], where=where)


def _model(release: Release) -> str | None:
    return release.files.get(MODEL_FILES[release.backend])


def _predicted(release: Release) -> str:
    return f"{release.task} of {listed(release.classes)}" if release.classes else release.task


def _check_arms(arms: Sequence[Arm], shadows: Sequence[str], where: str) -> None:
    if not arms or arms[0].name != GOLDEN or arms[0].release:
        raise DeclarationError(f"{where} has no golden arm", next_step="put Arm('golden', weight) first")
    names = [arm.name for arm in arms]
    for arm in arms[1:]:
        check_name("arm", arm.name)
        if arm.name == HOLDOUT or names.count(arm.name) > 1:
            raise DeclarationError(f"{where} cannot call an arm {arm.name!r}", next_step="give each arm its own name")
        if not arm.release:
            raise DeclarationError(f"{where}: arm {arm.name!r} has no release", next_step="name its release")
    if len(arms) == 1 and not shadows:
        raise DeclarationError(f"{where} tries nothing", next_step="give it an arm besides golden, or a shadow")
    _check_weights(arms, where)
    for release in shadows:
        if shadows.count(release) > 1:
            step = "give each shadow once"
            raise DeclarationError(f"{where} has the shadow {release!r} {shadows.count(release)} times", next_step=step)


def _check_weights(arms: Sequence[Arm], where: str) -> None:
    for arm in [*arms[1:], arms[0]]:  # golden's may be what the others leave: theirs are judged first
        if not (math.isfinite(arm.weight) and arm.weight >= 0):
            step = (
                "give the others at most 1 together"
                if arm.weight < 0 and arm is arms[0]
                else "give a share from 0 to 1"
            )
            raise DeclarationError(f"{where}: the weight of arm {arm.name!r} is {arm.weight:g}", next_step=step)
    total = sum(arm.weight for arm in arms)
    if abs(total - 1) > _NEAR:
        step = "give weights that add up to 1, golden's included"
        raise DeclarationError(f"{where}: the weights add up to {total:g}", next_step=step)


def _check_share(value: float, what: str, *, low: float, most: float) -> None:
    if not (math.isfinite(value) and low <= value <= most):
        raise DeclarationError(f"{what} is {value:g}", next_step=f"give a share from {low:g} to {most:g}")
