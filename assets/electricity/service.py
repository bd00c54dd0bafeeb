"""The electricity service: demand in 24 hours, forecast every hour, in batch by day and over HTTP."""

from assets.electricity import on_demand as od
from assets.electricity.features import demand, demand_lags, hourly, weather_now
from windrow import (
    Batch,
    Drift,
    FeatureView,
    Gate,
    Label,
    Notebook,
    Online,
    PredictionService,
    TimeSplit,
    on_demand,
)

view = FeatureView(
    "electricity",
    spine=hourly,
    features=[
        demand_lags,
        weather_now,
        on_demand(od.hour, at=hourly.event_time),
        on_demand(od.weekday, at=hourly.event_time),
        on_demand(od.day_of_year, at=hourly.event_time),
    ],
)

electricity = PredictionService(
    "electricity",
    view,
    Label.value(demand, "mw", ahead="24h"),
    model=Notebook("train_electricity.ipynb"),
    split=TimeSplit(test="60d", gap="24h"),
    baseline="mw_144h",  # the predicted half hour, one week earlier
    gates=[Gate("mae", of_baseline=0.8)],
    online=Online(p99_ms=20, unknown_entity="refuse"),
    batch=Batch("@daily", sinks=["delta", "duckdb"], rows="day"),
    monitors=[Drift(window="30d")],
    owner="team:grid",
    description="Demand of an area 24 hours ahead (MW).",
)
