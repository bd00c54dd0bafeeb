"""Anchors and counterfactuals: what they say is true of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.making import MIXED, frame_of
from tests.serving.explained import bundle_of, kept_missing, one_hot, rows
from windrow.errors import RequestError
from windrow.features.contract import Frame, canonical
from windrow.models.bundle import Bundle
from windrow.serving.explaining.anchor import lower_bound
from windrow.serving.explaining.explain import explain
from windrow.serving.explaining.explanation import Anchor, Condition, Counterfactual
from windrow.serving.explaining.messages import key_of


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in the side process."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def _bundle(classes: int, **options: Any) -> Bundle:
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline

    return bundle_of(
        make_pipeline(one_hot(), LogisticRegression() if classes else LinearRegression()), classes=classes, **options
    )


@pytest.fixture(scope="module", params=[2, 3, 0], ids=["two classes", "three classes", "a value"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return _bundle(request.param)


def _decisions(bundle: Bundle, frame: Frame) -> Any:
    answers = bundle.predict(frame)
    if answers.ndim == 2:
        return answers.argmax(axis=1)
    usual = bundle.predict(canonical(MIXED, _background(bundle)))
    return answers >= (np.median(usual) if bundle.release.task == "regression" else 0.5)


def _background(bundle: Bundle) -> Any:
    import msgspec

    data = bundle.file("background.json")
    assert data is not None
    return msgspec.json.decode(data)["rows"]


def _with(frame: Frame, row: int, changes: dict[str, Any]) -> Frame:
    values = {name: [changes.get(name, column[row])] for name, column in frame.items()}
    return canonical(MIXED, values)


def test_a_counterfactual_really_changes_the_decision_and_changes_nothing_else(bundle: Bundle) -> None:
    frame = rows(frame_of(MIXED, seed=1), 4)
    background = _background(bundle)
    for row, made in enumerate(explain(bundle, frame, "counterfactual")):
        assert isinstance(made, Counterfactual)
        changed = _with(frame, row, {c.feature: c.after for c in made.changes})
        assert _decisions(bundle, changed)[0] != _decisions(bundle, _with(frame, row, {}))[0]
        assert bundle.predict(changed)[0] == pytest.approx(np.array(made.output_after), abs=1e-6)
        assert made.decision != made.decision_after
        assert 1 <= len(made.changes) <= 3
        for change in made.changes:
            known = [v for v in background[change.feature] if v is not None]
            if isinstance(change.after, str):
                assert change.after in known
            else:
                own = [] if change.before is None else [change.before]
                assert min([*known, *own]) <= change.after <= max([*known, *own])


def test_no_change_of_a_counterfactual_is_one_too_many(bundle: Bundle) -> None:
    frame = rows(frame_of(MIXED, seed=2), 4)
    for row, made in enumerate(explain(bundle, frame, "counterfactual")):
        assert isinstance(made, Counterfactual)
        before = _decisions(bundle, _with(frame, row, {}))[0]
        for left_out in made.changes if len(made.changes) > 1 else ():
            others = {c.feature: c.after for c in made.changes if c is not left_out}
            assert _decisions(bundle, _with(frame, row, others))[0] == before


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_value_is_one_that_can_change_or_stay(value: float) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline

    bundle = bundle_of(make_pipeline(kept_missing(), HistGradientBoostingClassifier(max_iter=20)), original=False)
    frame = rows(frame_of(MIXED, seed=2), 12)
    frame["a"] = np.full(12, value, np.float32)
    for row, made in enumerate(explain(bundle, frame, "counterfactual")):
        assert isinstance(made, Counterfactual)
        changed = _with(frame, row, {c.feature: c.after for c in made.changes})
        assert _decisions(bundle, changed)[0] != _decisions(bundle, _with(frame, row, {}))[0]
        assert math.isfinite(made.distance)


def test_a_feature_that_nobody_can_act_on_does_not_change() -> None:
    bundle = _bundle(2, immutable=("b", "plan"))
    made = explain(bundle, rows(frame_of(MIXED, seed=1, missing=False), 3), "counterfactual")
    assert {c.feature for one in made for c in one.changes} == {"a"}  # type: ignore[union-attr]
    fixed = _bundle(2, immutable=("a", "b", "plan"))
    with pytest.raises(RequestError, match="No training row") as caught:
        explain(fixed, rows(frame_of(MIXED), 1), "counterfactual")
    assert (caught.value.status, caught.value.kind) == (422, "no-contrast")


def test_an_anchor_holds_for_rows_that_meet_its_conditions(bundle: Bundle) -> None:
    frame = rows(frame_of(MIXED, seed=3), 4)
    fresh = canonical(MIXED, _background(bundle))
    count = len(fresh["b"])
    for row, made in enumerate(explain(bundle, frame, "anchor")):
        assert isinstance(made, Anchor)
        assert made.at_least <= made.precision
        assert made.reached == (made.at_least >= made.target)
        assert all(_meets(condition, frame, row) for condition in made.conditions)
        meeting = np.array([all(_meets(c, fresh, i) for c in made.conditions) for i in range(count)])
        assert made.coverage == pytest.approx(meeting.mean())
        drawn = _drawn(fresh, made.conditions, frame, row)
        same = _decisions(bundle, drawn) == _decisions(bundle, _with(frame, row, {}))[0]
        assert same.mean() >= made.at_least - 0.04  # of 2,000 other rows


def _meets(condition: Condition, frame: Frame, row: int) -> bool:
    value = frame[condition.feature][row]
    if condition.missing:
        return value == "(missing)" if isinstance(value, str) else bool(np.isnan(value))
    if isinstance(value, str):
        return bool(value == condition.equals)
    low, high = condition.above, condition.at_most
    return not np.isnan(value) and (low is None or value > low) and (high is None or value <= high)


def _drawn(fresh: Frame, conditions: list[Condition], frame: Frame, row: int, count: int = 2_000) -> Frame:
    random = np.random.default_rng(77)
    picked = random.integers(0, len(fresh["b"]), count)
    made = {name: values[picked].copy() for name, values in fresh.items()}
    for condition in conditions:
        name = condition.feature
        meeting = [i for i in range(len(fresh[name])) if _meets(condition, fresh, i)]
        made[name] = fresh[name][random.choice(meeting, count)] if meeting else np.repeat(frame[name][row], count)
    return made


def test_an_anchor_is_the_same_every_time(bundle: Bundle) -> None:
    frame = rows(frame_of(MIXED, seed=4), 2)
    assert explain(bundle, frame, "anchor") == explain(bundle, frame, "anchor")


def test_a_decision_that_nothing_changes_has_an_anchor_without_conditions() -> None:
    from sklearn.dummy import DummyClassifier

    (made,) = explain(bundle_of(DummyClassifier()), rows(frame_of(MIXED), 1), "anchor")
    assert isinstance(made, Anchor)
    assert (made.conditions, made.coverage, made.reached) == ([], 1.0, True)
    assert "if always" in made._repr_html_()


@given(st.integers(1, 5_000), st.floats(0, 1))
def test_a_bound_lies_below_the_share_and_comes_near_to_it_with_more_rows(rows: int, share: float) -> None:
    bound = lower_bound(share, rows, 0.05)
    assert 0 <= bound <= share
    assert lower_bound(share, rows * 10, 0.05) >= bound - 1e-9


VALUE = st.one_of(st.none(), st.floats(allow_nan=False), st.text(max_size=3))
VECTOR = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUE, min_size=1)


@settings(max_examples=60)
@given(VECTOR, st.data())
def test_change_anything_and_an_explanation_has_another_key(vector: Any, data: st.DataObject) -> None:
    key = key_of("churn-1", "shap", vector)
    assert key == key_of("churn-1", "shap", dict(reversed(vector.items())))
    assert key != key_of("churn-2", "shap", vector)
    assert key != key_of("churn-1", "anchor", vector)
    name = data.draw(st.sampled_from(sorted(vector)))
    other = data.draw(VALUE.filter(lambda v: v != vector[name] or type(v) is not type(vector[name])))
    assert key != key_of("churn-1", "shap", {**vector, name: other})
