"""The crypto service: does the price rise in the next five minutes? Said as each bar closes, by day, and over HTTP."""

from assets.crypto.features import closes, moves
from windrow import Batch, FeatureView, Gate, Label, Online, PredictionService, Stream, TimeSplit

view = FeatureView(
    "crypto",
    spine=closes,
    features=[moves["move_30s", "move_2m", "move_5m", "band", "width", "span", "busy"]],
)

crypto = PredictionService(
    "crypto",
    view,
    # Asked ten seconds after a bar closes, answered by the bar that closes five minutes after it.
    Label.value(moves, "up_5m", ahead="290s", matures_after="300s"),
    model="train:model",
    split=TimeSplit(test="6h", gap="5m"),
    gates=[Gate("auc", at_least=0.6)],
    online=Online(p99_ms=20, unknown_entity="refuse"),
    batch=Batch("@daily", sinks=["delta"], rows="day"),
    stream=Stream(),
    owner="team:markets",
    description="Chance that the price of a coin rises in the next five minutes.",
)
