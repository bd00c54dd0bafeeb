"""The bakery service: loaves that a shop will sell tomorrow, every day in batch and by shop over HTTP."""

from assets.bakery import on_demand as od
from assets.bakery.features import daily, recent_sales, sales
from windrow import Batch, Drift, FeatureView, Gate, Label, Online, PredictionService, TimeSplit, on_demand

view = FeatureView(
    "bakery",
    spine=daily,  # one prediction per shop and day
    features=[recent_sales, on_demand(od.weekday_tomorrow, at=daily.event_time)],
)

bakery = PredictionService(
    "bakery",
    view,
    Label.value(sales, "loaves", ahead="24h"),
    model="train:model",
    split=TimeSplit(test="60d", gap="1d"),
    baseline="loaves_6d",  # the same weekday of last week
    gates=[Gate("mae", of_baseline=0.9)],
    online=Online(p99_ms=20, unknown_entity="refuse"),
    batch=Batch("@daily", sinks=["delta", "duckdb"], rows="day"),
    monitors=[Drift(window="30d")],
    description="Loaves that a shop will sell tomorrow.",
)
