"""The service ``visits``."""

from tiny.visits.features import customers, habits, returned
from windrow import Batch, Drift, FeatureView, Gate, Label, Online, PredictionService, RandomSplit

visits = PredictionService(
    "visits",
    FeatureView("visits", spine=customers, features=[habits]),
    Label.within(returned, "30d"),
    model="train:model",
    split=RandomSplit(0.25),
    gates=[Gate("auc", at_least=0.6)],
    online=Online(unknown_entity="predict"),
    batch=Batch("@daily", sinks=["delta", "duckdb"], rows="latest"),
    monitors=[Drift(min_rows=20)],
    owner="team:front desk",
    description="Chance that a customer comes back within 30 days.",
)
