"""A declared world of three classes: home, draw or away."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.models.worlds import DAY, World
from windrow import Entity, FeatureView, Gate, Label, Online, PredictionService, Source, TimeSplit

CLASSES = ["home", "draw", "away"]
team = Entity("team", team_id="int64")
fixtures = Source(
    "fixtures", id="match_id", event_time="ts", 
    columns={"match_id": "int64", "league": "string", "strength": "float64", "form": "float64"},
)  # fmt: skip
results = Source("results", event_time="ts", columns={"match_id": "int64", "result": "string"})
view = FeatureView("football", spine=fixtures, features=[fixtures.strength, fixtures.form])


def model():
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(10, max_depth=4, random_state=0)


def football(**options) -> PredictionService:
    label = Label.joined(results, on="match_id", matures_after="1d", column="result", classes=CLASSES)
    given = {"model": model, "split": TimeSplit(test="50d"), "gates": [Gate("accuracy", at_least=0.5)], **options}
    return PredictionService("football", view, label, **{"online": Online(), **given})


def football_world(folder: Path) -> World:
    """300 matches, one a day, of which the stronger side wins most; no feature uses the league."""
    made = World(folder)
    rng = np.random.default_rng(0)
    strength, days = rng.normal(size=300), [day * DAY for day in range(300)]
    form = np.where(rng.random(300) < 0.1, np.nan, rng.normal(size=300))
    said = np.array(CLASSES)[np.digitize(-strength + 0.3 * rng.normal(size=300), [-0.5, 0.5])]
    said[7] = "off"
    forms = [None if np.isnan(f) else float(f) for f in form]
    leagues = np.random.default_rng(1).choice(["north", "south"], 300).tolist()
    made.add(fixtures, match_id=list(range(300)), league=leagues, strength=strength.tolist(), form=forms, ts=days)
    made.add(results, match_id=list(range(300)), result=said.tolist(), ts=[t + 7_200_000_000 for t in days])
    return made
