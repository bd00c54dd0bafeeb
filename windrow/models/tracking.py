"""Tracking: one document per training run, whatever became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windrow.models.release import Release

if TYPE_CHECKING:
    from windrow.stores.metadata import Metadata

_LONGEST = 200


def record_run(metadata: Metadata, release: Release, *, parameters: dict[str, str], seconds: float) -> dict[str, Any]:
    """Record a training run and return its document.

    Parameters
    ----------
    parameters
        Of the estimator, as text.
    seconds
        Wall time of fitting, proving and releasing.
    """
    document: dict[str, Any] = {
        "release": release.id,
        "service": release.service,
        "created_at": release.created_at,
        "dataset": release.dataset.id,
        "view_fingerprint": release.view_fingerprint,
        "backend": release.backend,
        "metrics": release.metrics,
        "baseline": release.baseline,
        "passed": release.passed,
        "parameters": parameters,
        "seconds": round(seconds, 3),
    }
    metadata.add_run(release.service, document)
    return document


def parameters_of(estimator: Any) -> dict[str, str]:
    """Return the parameters of an estimator and of its parts as short text, for people.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> parameters_of(Ridge(alpha=2.0))["alpha"]
    '2.0'
    """
    found = estimator.get_params(deep=True)
    return {name: text[:_LONGEST] for name, value in sorted(found.items()) if (text := " ".join(repr(value).split()))}
