"""A service whose models are made elsewhere: two columns, one of them with missing values."""

from __future__ import annotations

from pathlib import Path

from sklearn.linear_model import LogisticRegression

from tests.models.worlds import DAY, World, chargebacks, customers, fraud_world, payments
from windrow import Entity, FeatureView, Gate, Label, Online, PredictionService, TimeSplit, feature_group
from windrow.models.dataset import TrainingDataset, build_dataset

card = Entity("card", card_id="int64")
assert customers  # the group's parameter below names it


@feature_group(card)
def card_limit(customers):
    return customers.select("card_id", "limit")


def service() -> PredictionService:
    view = FeatureView("fraud", spine=payments, features=[card_limit, payments.amount])
    label = Label.joined(chargebacks, on="payment_id", absent=0, matures_after="10d")
    return PredictionService(
        "fraud", view, label, model=LogisticRegression, split=TimeSplit(test="15d"), gates=[Gate("auc", at_least=0.5)],
        online=Online(unknown_entity="predict"),
    )  # fmt: skip


def world_of(folder: Path) -> World:
    """The world with the service's features stored."""
    made = fraud_world(folder)
    made.groups(service())
    return made


def dataset_of(world: World) -> TrainingDataset:
    """Its training dataset."""
    return build_dataset(service(), world.lake, world.metadata, now=60 * DAY, home=world.home)
