"""The churn service: who leaves within 30 days, scored every day in batch and by customer over HTTP."""

from assets.churn.features import customer_account, customer_services, left, snapshots
from windrow import Batch, Drift, FeatureView, Gate, Label, Online, PredictionService, RandomSplit, TimeSplit

view = FeatureView("churn", spine=snapshots, features=[customer_account, customer_services])

churn = PredictionService(
    "churn",
    view,
    Label.within(left, "30d"),
    model="train:model",
    split=TimeSplit(test="60d", gap="30d", one_snapshot=RandomSplit(0.25)),
    gates=[Gate("auc", at_least=0.7)],
    online=Online(p99_ms=20, unknown_entity="predict"),
    batch=Batch("@daily", sinks=["delta", "duckdb"], rows="latest"),
    monitors=[Drift(window="60d")],
    owner="team:growth",
    description="Chance that a customer leaves within 30 days.",
)
