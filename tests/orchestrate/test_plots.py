"""Pictures draw what there is: a curve, a cloud, or a curve for each of several classes."""

import base64
import struct

import numpy as np
import pytest

from windrow.orchestrate.plots import picture


def size_of(drawn) -> tuple[int, int]:
    """Width and height in pixels of the PNG in a picture."""
    payload = base64.b64decode(drawn.md_str.removeprefix("![plot](data:image/png;base64,").removesuffix(")"))
    assert payload.startswith(b"\x89PNG")
    return struct.unpack(">II", payload[16:24])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_one_probability_or_number_is_one_plot(task):
    assert size_of(picture(np.array([0.2, 0.9]), np.array([0.0, 1.0]), task=task)) == (360, 256)


@pytest.mark.parametrize(
    "classes", [("home", "draw", "away"), ("_none", "$5", "$10"), tuple(f"c{n}" for n in range(12))], ids=len
)
def test_several_classes_have_their_curves_and_their_counts(classes):
    rng = np.random.default_rng(0)
    answers = rng.random((60, len(classes)))
    actual = rng.integers(len(classes) - 1, size=60).astype(float)  # the last class never came true
    assert size_of(picture(answers, actual, task="multiclass", classes=classes)) == (720, 256)
