"""A service is one object, checked when it is made."""

from __future__ import annotations

import pytest

from tests.models.worlds import card_profile, chargebacks, customers, fraud, load, meter_view, payment_view, payments
from windrow import (
    Batch,
    Drift,
    Entity,
    Every,
    FeatureView,
    Gate,
    Label,
    Notebook,
    Online,
    PredictionService,
    RandomSplit,
    Source,
    TimeSplit,
    feature_group,
)
from windrow.errors import DeclarationError, UnknownNameError


def test_turning_a_batch_service_into_an_online_one_changes_one_argument_and_no_feature():
    batch = fraud(batch=Batch("@daily", sinks=["delta"]))
    both = fraud(batch=Batch("@daily", sinks=["delta"]), online=Online(p99_ms=10, unknown_entity="predict"))
    online = fraud(online=Online(p99_ms=10, unknown_entity="predict"))
    assert batch.view.fingerprint == both.view.fingerprint == online.view.fingerprint
    assert batch.view.contract == online.view.contract
    assert {g.fingerprint for g in batch.view.groups} == {g.fingerprint for g in online.view.groups}


def test_how_a_service_is_served_changes_its_own_fingerprint_only():
    batch, online = fraud(batch=Batch()), fraud(online=Online())
    assert batch.fingerprint != online.fingerprint
    changed = {key for key in batch.describe() if batch.describe()[key] != online.describe()[key]}
    assert changed == {"batch", "online"}


def test_the_same_declaration_has_the_same_fingerprint():
    assert fraud().fingerprint == fraud().fingerprint


def test_a_service_lists_each_source_it_depends_on_once():
    assert fraud().sources == (payments, customers, chargebacks)
    assert [s.name for s in load().sources] == ["readings"]


def test_a_label_decides_between_classes_and_numbers():
    assert fraud().metrics == ("auc", "log_loss", "brier", "accuracy")
    assert load().metrics == ("mae", "rmse", "r2")


def test_a_reserved_name_is_refused():
    with pytest.raises(
        DeclarationError, match="service cannot be called 'services': the name is part of the HTTP interface"
    ):
        PredictionService("services", payment_view, fraud().label, model=dict, split=RandomSplit())


def test_a_baseline_that_the_view_does_not_have_is_refused_with_the_closest():
    with pytest.raises(
        UnknownNameError, match="service 'fraud' has no baseline feature 'amout'.*did you mean 'amount'"
    ):
        fraud(baseline="amout")


def test_a_metric_of_the_other_kind_of_label_is_refused():
    with pytest.raises(UnknownNameError, match=r"service 'load' \(its label is a number\) has no metric 'auc'"):
        load(gates=[Gate("auc", at_least=0.5)])


def test_a_label_key_that_the_spine_lacks_is_refused():
    with pytest.raises(UnknownNameError, match="the spine of service 'load' has no label key 'payment_id'"):
        load(label=Label.joined(chargebacks, on="payment_id", matures_after="1d"), baseline=None)


@feature_group(Entity("card", card_id="int64"), online=False)
def offline_profile(customers):
    return customers.select("card_id", "limit")


def test_an_online_service_needs_online_groups():
    view = FeatureView("offline", spine=payments, features=[offline_profile])
    assert fraud(view=view).name == "fraud"
    with pytest.raises(
        DeclarationError, match=r"service 'fraud' is online, but group 'offline_profile' is not.*set online=True"
    ):
        fraud(view=view, online=Online())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gate("acc", at_least=1), "has no metric 'acc'"),
        (lambda: Gate("auc"), r"Gate\('auc'\) has no bar.*give at_least, at_most or of_baseline"),
        (lambda: RandomSplit(1.5), r"RandomSplit\(test=1\.5\) is no share"),
        (lambda: TimeSplit(test="ten days"), "'ten days', which is not a duration"),
        (lambda: Batch(sinks=["delt"]), "has no sink 'delt'.*did you mean 'delta'"),
        (lambda: Batch(rows="all"), "has no choice of rows 'all'"),
        (lambda: Online(unknown_entity="guess"), "has no policy unknown_entity 'guess'"),
        (lambda: Online(p99_ms=-1), r"Online\(p99_ms=-1\) is no latency budget. Next: give milliseconds"),
        (lambda: Online(p99_ms="20"), r"Online\(p99_ms='20'\) is no latency budget"),
        (lambda: Batch("dayly"), r"Batch\('dayly'\) is no schedule. Next: write \"@daily\""),
        (lambda: Batch(sinks="delta"), r"sinks= of Batch\(\) is the text 'delta'. Next: write a list: \[\"delta\"\]"),
        (lambda: fraud(split=None), "split= of service 'fraud' is None. Next: write TimeSplit"),
        (lambda: fraud(gates="auc"), "gates= of service 'fraud' is the text 'auc'. Next: write a list"),
        (lambda: fraud(gates=["auc"]), "one of gates= of service 'fraud' is the text 'auc'. Next: write Gate"),
        (lambda: fraud(monitors=Drift()), "monitors= of service 'fraud' is a Drift. Next: write a list"),
        (lambda: fraud(baseline=3), "baseline= of service 'fraud' is an int. Next: write the name of a feature"),
        (lambda: fraud(online=True), "online= of service 'fraud' is a bool. Next: write Online"),
        (lambda: fraud(batch="@daily"), "batch= of service 'fraud' is the text '@daily'. Next: write Batch"),
        (lambda: fraud(model=None), "service 'fraud' has no trainer. Next: write model="),
        (
            lambda: fraud(model="notebooks/train.ipynb"),
            r"is a notebook, not a function. Next: write Notebook\('train.ipynb'\)",
        ),
        (
            lambda: FeatureView("v", spine=payments, features=["amount"]),
            "one of features= of view 'v' is the text 'amount'",
        ),
        (
            lambda: FeatureView("v", spine="payments", features=[payments.amount]),
            "spine= of view 'v' is the text 'payments'",
        ),
        (
            lambda: FeatureView("v", spine=payments, features=payments.amount),
            "features= of view 'v' is a Column. Next: write a list",
        ),
        (lambda: Every("1h", "area"), r"the entity of Every\('1h', ...\) is the text 'area'"),
        (lambda: Every(1, Entity("a", a="string")), "1, which is not a duration"),
    ],
)
def test_a_part_that_cannot_work_is_refused_when_it_is_made(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


def test_a_trainer_that_does_not_exist_is_named(tmp_path):
    service = fraud(model=Notebook("train_fraud.ipynb"))
    with pytest.raises(DeclarationError, match=r"service 'fraud': its trainer 'train_fraud\.ipynb' does not exist"):
        service.check_trainer(tmp_path)


def test_a_trainer_that_asks_for_a_column_no_group_makes_is_refused(tmp_path):
    (tmp_path / "train_fraud.ipynb").write_text('{"cells": [{"cell_type": "code", "source": "columns(\'limits\')"}]}')
    with pytest.raises(UnknownNameError, match="has no feature 'limits'.*did you mean 'limit'"):
        fraud(model=Notebook("train_fraud.ipynb")).check_trainer(tmp_path)


def test_views_of_other_features_have_other_fingerprints():
    assert payment_view.fingerprint != meter_view.fingerprint
    assert payment_view.fingerprint != FeatureView("fraud", spine=payments, features=[card_profile]).fingerprint


def test_a_label_that_cannot_be_matched_with_its_spine_is_refused_when_declared():
    weather = Source("weather", event_time="ts", columns={"city": "string", "degrees": "float64"})
    label = Label.value(weather, "degrees", ahead="24h")
    with pytest.raises(
        DeclarationError, match="the label of service 'meter' cannot be matched.*source 'weather' lacks its keys"
    ):
        PredictionService("meter", meter_view, label, model=dict, split=RandomSplit())
