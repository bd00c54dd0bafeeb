"""How a service answers over HTTP, and what it does where it cannot: declared, checked, and handed to its release."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from windrow.clock import duration
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.kinds import check_kind, check_kinds
from windrow.features.label import Label
from windrow.features.view import FeatureView
from windrow.models.cache import Cache
from windrow.models.policies import DEADLINE_MS, GOLDEN, POLICIES, Policies, Policy
from windrow.models.release import EXPLAIN_MS

Constant = float | Mapping[str, float]
"""A value, the probability of class 1, or a probability by name of a class (those not named have none)."""

_MINUTE = 60_000  # milliseconds
_SURE = 1e-6  # by how much probabilities may miss 1


@dataclass(frozen=True)
class Online:
    """Serve over HTTP.

    Parameters
    ----------
    p99_ms
        The latency budget.
    deadline_ms
        Milliseconds that reading features and the model may take together. What is later is answered by
        `fallback`, or with 504. A compiled model runs in the worker and cannot be interrupted, so its late
        answer is only found to be late; one in a process of its own is not waited for.
    fallback
        Who answers, in this order, where the release cannot: ``"golden"`` (for a challenger: the golden
        release) and then a constant: a number, or for three or more classes their probabilities by name. Default:
        golden only. Every answer and record says who answered, and why.
    unknown_entity
        An entity that was never published: ``predict`` with missing values, ``fallback``, or ``refuse`` with 404.
    expired
        A value older than its TTL: the same, refused with 503.
    store_away
        Values that the online store does not give, because it is down or gone: the same, refused with 503.
    explain_ms
        How long a request waits for the explanations that it asks for; then it gets a ticket for them.
    immutable
        Features that no counterfactual may change, because nobody can act on them, such as an age; keys are
        among them anyway.
    defaults
        Feature -> value for ``store_away="predict"``; a stored feature without one is missing. Unknown and expired
        values are always missing, because that is how the model saw them in training.
    cache
        What is kept of the outputs of a model that is not compiled, so that the same vector is not answered twice:
        `Cache`, or None for nothing.
    precomputed
        How old a batch run's prediction may be that answers a request, such as ``"2d"``; None computes each answer. For
        a service with ``batch=`` whose requests are the key of one entity. What no run of the live release has
        stored, or what is older, is computed; every answer says which it is, and how old.

    Examples
    --------
    >>> Online(p99_ms=20, store_away="fallback", fallback=["golden", 0.02]).policies_for(()).constant
    0.02
    >>> Online(expired="fallback")
    Traceback (most recent call last):
    windrow.errors.DeclarationError: Online(expired='fallback') has nothing to fall back to: the golden release reads the same values. Next: end fallback= with a constant, such as fallback=["golden", 0.02].
    """

    p99_ms: float = 50.0
    unknown_entity: Policy = "refuse"
    deadline_ms: float = DEADLINE_MS
    fallback: Constant | str | Sequence[Constant | str] = (GOLDEN,)
    expired: Policy = "predict"
    store_away: Policy = "refuse"
    explain_ms: float = EXPLAIN_MS
    immutable: Sequence[str] = ()
    defaults: Mapping[str, float | str | bool] = field(default_factory=dict)
    cache: Cache | None = Cache()
    precomputed: str | None = None

    def __post_init__(self) -> None:
        check_kind(self.cache, (Cache, type(None)), where="cache= of Online()", example='Cache(ttl="1h"), or None')
        check_kinds(self.immutable, str, where="immutable= of Online()", example='"age"')
        object.__setattr__(self, "immutable", tuple(self.immutable))
        if not (_number(self.explain_ms) and 0 < self.explain_ms < _MINUTE):
            raise DeclarationError(
                f"Online(explain_ms={self.explain_ms!r}) is no time to wait",
                next_step="give milliseconds, such as explain_ms=500",
            )
        one = isinstance(self.fallback, str | Mapping | int | float)
        object.__setattr__(self, "fallback", (self.fallback,) if one else tuple(self.fallback))  # type: ignore[arg-type]
        _check_times(self.p99_ms, self.deadline_ms)
        _check_chain(self._chain)
        _check_age(self.precomputed)
        for name in ("unknown_entity", "expired", "store_away"):
            _check_policy(name, getattr(self, name), constant=self._constant is not None)

    @property
    def _chain(self) -> tuple[Constant | str, ...]:
        return self.fallback  # type: ignore[return-value]  # a tuple since __post_init__

    @property
    def _constant(self) -> Constant | None:
        last = self._chain[-1] if self._chain else GOLDEN
        return None if isinstance(last, str) else last

    def policies_for(self, classes: Sequence[str]) -> Policies:
        """Return what its release tells a worker, with the probabilities of `classes` in their order."""
        constant = self._constant
        if isinstance(constant, Mapping):
            constant = tuple(float(constant.get(name, 0.0)) for name in classes)  # type: ignore[assignment]
        return Policies(
            deadline_ms=float(self.deadline_ms), expired=self.expired, store_away=self.store_away,
            golden=GOLDEN in self._chain, constant=constant, defaults=dict(self.defaults),  # type: ignore[arg-type]
            cache=self.cache, precomputed=None if self.precomputed is None else duration(self.precomputed),
        )  # fmt: skip


def check_online(online: Online, label: Label, view: FeatureView, *, where: str) -> None:
    """Raise `DeclarationError` unless the constant fits the label, and the defaults the view."""
    _check_constant(online._constant, label, where=f"fallback= of {where}")
    stored = {name for lookup in view.contract.lookups for name in lookup.columns}
    dtypes = {f.name: f.dtype for f in view.contract.features if f.name in stored}
    for name, value in online.defaults.items():
        if name not in dtypes:
            raise UnknownNameError("stored feature", name, list(dtypes), where=f"defaults= of {where}")
        if not _fits(value, dtypes[name]):
            raise DeclarationError(
                f"the default {value!r} of feature {name!r} (defaults= of {where}) is no {dtypes[name]}",
                next_step=f"give a {dtypes[name]}, or leave it out: then it is missing",
            )


def _check_age(precomputed: str | None) -> None:
    check_kind(precomputed, (str, type(None)), where="precomputed= of Online()", example='"2d", or None')
    if precomputed is not None and duration(precomputed, where="precomputed= of Online()") <= 0:
        raise DeclarationError(
            f"Online(precomputed={precomputed!r}) is no age", next_step='give a time, such as precomputed="2d"'
        )


def _check_times(p99_ms: Any, deadline_ms: Any) -> None:
    if not (_number(p99_ms) and 0 < p99_ms < _MINUTE):
        raise DeclarationError(
            f"Online(p99_ms={p99_ms!r}) is no latency budget", next_step="give milliseconds, such as p99_ms=20"
        )
    if not (_number(deadline_ms) and 0 < deadline_ms < _MINUTE):
        raise DeclarationError(
            f"Online(deadline_ms={deadline_ms!r}) is no deadline",
            next_step="give milliseconds, such as deadline_ms=800",
        )
    if p99_ms > deadline_ms:
        raise DeclarationError(
            f"Online(p99_ms={p99_ms:g}) is longer than its deadline of {deadline_ms:g} ms",
            next_step=f"raise the deadline, such as deadline_ms={4 * p99_ms:g}",
        )


def _check_policy(name: str, policy: Policy, *, constant: bool) -> None:
    if policy not in POLICIES:
        raise UnknownNameError(f"policy {name}", str(policy), POLICIES, where="Online()")
    if policy == "fallback" and not constant:
        raise DeclarationError(
            f"Online({name}='fallback') has nothing to fall back to: the golden release reads the same values",
            next_step='end fallback= with a constant, such as fallback=["golden", 0.02]',
        )


def _check_chain(chain: Sequence[Any]) -> None:
    for place, item in enumerate(chain):
        if isinstance(item, str) and item != GOLDEN:
            raise DeclarationError(
                f"Online(fallback=...) names {item!r}, and only the golden release has a name there",
                next_step=f'write "golden", a number, or for a class its probability: {{{item!r}: 1.0}}',
            )
        constant = _number(item) or isinstance(item, Mapping)
        if not constant and item != GOLDEN:
            raise DeclarationError(
                f"Online(fallback=...) holds {type(item).__name__}", next_step='write fallback=["golden", 0.02]'
            )
        if place != len(chain) - 1 and (constant or item in chain[place + 1 :]):
            raise DeclarationError(
                "what follows a constant in Online(fallback=...) would never answer",
                next_step='write "golden" first and at most one constant last',
            )


def _check_constant(constant: Constant | None, label: Label, *, where: str) -> None:
    if constant is None:
        return
    if label.multiclass:
        _check_shares(constant, label.classes, where=where)
    elif not _number(constant):
        raise DeclarationError(f"{where} is no number", next_step="give what to answer, such as 0.02")
    elif label.binary and not 0 <= constant <= 1:  # type: ignore[operator]  # a number
        raise DeclarationError(
            f"{where} is {constant}, which is no probability", next_step="give one from 0 to 1, such as 0.02"
        )


def _check_shares(constant: Constant, classes: Sequence[str], *, where: str) -> None:
    example = f"{{{classes[0]!r}: 1.0}}"
    if not isinstance(constant, Mapping):
        raise DeclarationError(
            f"{where} is one number for {len(classes)} classes", next_step=f"give probabilities, such as {example}"
        )
    for name in constant:
        if name not in classes:
            raise UnknownNameError("class", str(name), classes, where=where)
    shares = list(constant.values())
    if not all(_number(p) and 0 <= p <= 1 for p in shares) or abs(sum(shares) - 1) > _SURE:
        raise DeclarationError(
            f"{where} holds no probabilities: they are from 0 to 1 and add up to 1", next_step=f"write {example}"
        )


def _fits(value: Any, dtype: str) -> bool:
    if dtype == "string":
        return isinstance(value, str)
    if dtype == "bool":
        return isinstance(value, bool)
    return dtype != "timestamp" and _number(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
