"""The service ``heat``."""

from tiny.heat.features import heat_now, heat_range, readings, ticks
from windrow import Batch, Drift, FeatureView, Gate, Label, Notebook, Online, PredictionService, TimeSplit

heat = PredictionService(
    "heat",
    FeatureView("heat", spine=ticks, features=[heat_now, heat_range]),
    Label.value(readings, "degrees", ahead="24h"),
    model=Notebook("train_heat.ipynb"),
    split=TimeSplit(test="8d", gap="24h"),
    baseline="degrees",
    gates=[Gate("mae", at_most=5)],
    online=Online(),
    batch=Batch("@daily", sinks=["delta", "duckdb"], rows="day"),
    monitors=[Drift(window="30d", min_rows=20)],
    description="Degrees in 24 hours.",
)
