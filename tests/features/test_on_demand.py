"""On-demand features: plain NumPy functions, checked when declared and run under a private name."""

from __future__ import annotations

import numpy as np
import pytest

from tests.features.on_demand_functions import distance, shouted
from windrow import Source, on_demand
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.contract import OnDemand
from windrow.features.on_demand import check_imports, compute, load_functions

payments = Source("payments", event_time="ts", columns={"lat": "float64", "lon": "float64", "shop": "string"})
SPEC = OnDemand("distance", "distance", "float32", {"x": "request.lat"}, {"x": "float64"})
TEXT = "import numpy as np\nfrom math import pi\n\n\ndef twice(x):\n    return x * 2\n"


def test_a_feature_is_called_as_its_function_unless_named() -> None:
    assert on_demand(distance, x=payments.lat, y=payments.lon).name == "distance"
    assert on_demand(distance, name="far", x=payments.lat, y=payments.lon).name == "far"


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="on-demand feature 'distance' has no dtype 'float16'"):
        on_demand(distance, "float16", x=payments.lat, y=payments.lon)


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="on-demand function 'distance' has no parameter 'z'. It has 'x', 'y'"):
        on_demand(distance, x=payments.lat, z=payments.lon)


def test_a_missing_parameter_is_refused() -> None:
    with pytest.raises(DeclarationError, match="on-demand feature 'distance' is given no 'y'. Next: add y="):
        on_demand(distance, x=payments.lat)


def test_an_input_that_is_no_column_is_refused() -> None:
    with pytest.raises(
        DeclarationError, match="on-demand feature 'distance': y=1 is not a column. Next: give a column"
    ):
        on_demand(distance, x=payments.lat, y=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import pandas as pd", "pandas"),
        ("from sklearn.base import clone", "sklearn.base"),
        ("from . import features", "."),
        ("def f():\n    import ibis", "ibis"),
    ],
)
def test_a_module_that_imports_more_than_numpy_and_the_standard_library_is_refused(text: str, name: str) -> None:
    with pytest.raises(
        DeclarationError, match=f"on_demand.py imports '{name}'. Next: use NumPy and the standard library only"
    ):
        check_imports(text, where="on_demand.py")


def test_numpy_and_the_standard_library_may_be_imported() -> None:
    check_imports(TEXT + "import zoneinfo, numpy.linalg\n", where="on_demand.py")


def test_kept_text_gives_its_functions_back() -> None:
    assert load_functions(TEXT, ["twice"], where="release 3")["twice"](21) == 42


def test_kept_text_without_the_function_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="release 3 has no function 'twise'.*did you mean 'twice'"):
        load_functions(TEXT, ["twise"], where="release 3")


def test_two_releases_texts_run_side_by_side() -> None:
    first = load_functions(TEXT, ["twice"], where="release 3")
    second = load_functions(TEXT.replace("* 2", "* 3"), ["twice"], where="release 4")
    assert (first["twice"](1), second["twice"](1)) == (2, 3)


def test_numbers_come_out_as_float32_with_nan_for_missing() -> None:
    made = compute(SPEC, distance, {"x": np.array([1.0, np.nan]), "y": np.array([3.0, 0.0])})
    assert made.dtype == np.float32
    assert np.array_equal(made, [2, np.nan], equal_nan=True)


def test_texts_come_out_as_str_objects() -> None:
    spec = OnDemand("shouted", "shouted", "string", {"shop": "request.shop"}, {"shop": "string"})
    assert compute(spec, shouted, {"shop": np.array(["a", "(missing)"], dtype=object)}).tolist() == ["A", "(missing)"]


@pytest.mark.parametrize("answer", [1.0, np.zeros(2), np.zeros((3, 1))])
def test_a_function_that_does_not_answer_for_every_row_is_refused(answer: object) -> None:
    with pytest.raises(
        DeclarationError,
        match=r"on-demand function 'distance' returned shape .* for 3 rows. Next: return one value per row",
    ):
        compute(SPEC, lambda x: answer, {"x": np.zeros(3)})


def test_a_function_that_fails_is_named_with_the_place() -> None:
    def wrong(x: object) -> None:
        raise KeyError("lat")

    with pytest.raises(
        DeclarationError,
        match=r"on-demand function 'distance' fails: KeyError: 'lat'. It stops at .*test_on_demand.py, line \d+",
    ):
        compute(SPEC, wrong, {"x": np.zeros(3)})
