"""Which features each column behind a pipeline's preprocessing is made of, read off the fitted transformers.

scikit-learn names its outputs by its inputs. The inputs are given names here that occur nowhere else, and are
found again in the names of the outputs: what is made of several is told from what is made of one.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np

Parts = list[frozenset[int]]

_FOUND = re.compile("\ue000(\\d+)\ue001")
_MIXING = frozenset({"IterativeImputer", "KNNImputer", "Normalizer"})  # named after one input each, but made of all


def made_of(steps: list[Any], width: int) -> Parts:
    """Return for each column behind `steps` the places of the features that it is made of.

    Parameters
    ----------
    steps
        Fitted transformers, applied one after the other.
    width
        How many features go in.

    Examples
    --------
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> import numpy as np
    >>> encoder = OneHotEncoder().fit(np.array([["a", "x"], ["b", "x"]], dtype=object))
    >>> [sorted(parts) for parts in made_of([encoder], 2)]
    [[0], [0], [1]]
    """
    names = [f"\ue000{place}\ue001" for place in range(width)]
    for step in steps:
        names = _named(step, names)
    return [frozenset(int(place) for place in _FOUND.findall(name)) for name in names]


def _named(step: Any, names: list[str]) -> list[str]:
    if isinstance(step, str) or step is None:
        return [] if step == "drop" else names
    kind = type(step).__name__
    if kind == "Pipeline":
        for _, part in step.steps:
            names = _named(part, names)
        return names
    if kind == "ColumnTransformer":
        return _of_columns(step, names)
    if kind == "FeatureUnion":
        return [name for _, part in step.transformer_list for name in _named(part, names)]
    return _of_one(step, names)


def _of_columns(step: Any, names: list[str]) -> list[str]:
    width = max(part.stop for part in step.output_indices_.values())
    made = ["".join(names)] * width
    for label, part, _ in step.transformers_:
        place = step.output_indices_[label]
        if place.stop > place.start:
            made[place] = _named(part, [names[i] for i in step._transformer_to_input_indices[label]])
    return made


def _of_one(step: Any, names: list[str]) -> list[str]:
    every = "".join(names)
    if type(step).__name__ == "FunctionTransformer":
        # A function of NumPy takes each value by itself; of any other nobody knows how many columns it makes.
        return names if step.func is None or isinstance(step.func, np.ufunc) else [every] * _outputs(step, names)
    made = _outputs_named(step, names)
    if type(step).__name__ in _MIXING:
        return [every] * len(made)
    return [name if _FOUND.search(name) else every for name in made]


def _outputs(step: Any, names: list[str]) -> int:
    try:
        return len(_outputs_named(step, names))
    except (AttributeError, ValueError):
        return len(names)


def _outputs_named(step: Any, names: list[str]) -> list[str]:
    anonymous = copy.copy(step)  # one that was fitted on named columns would insist on those names
    anonymous.__dict__.pop("feature_names_in_", None)
    return [str(name) for name in anonymous.get_feature_names_out(np.array(names, dtype=object))]
