"""The nba service: does the home team win? Said in the morning of the game, in batch by day."""

from assets.nba import on_demand as od
from assets.nba.features import form, form_at_home, form_away, games, head_to_head, league, results, streaks
from windrow import Batch, Calibration, FeatureView, Gate, Label, Notebook, PredictionService, TimeSplit, on_demand

home, visitor = form.of("home_team", prefix="home_"), form.of("visitor_team", prefix="visitor_")


def above(name, ours, theirs):
    """How much one is above the other."""
    return on_demand(od.difference, name=name, ours=ours, theirs=theirs)


view = FeatureView(
    "nba",
    spine=games,
    features=[
        home,
        visitor,
        form_at_home["won_10", "lead_10"].of("home_team", prefix="home_at_home_"),
        form_away["won_10", "lead_10"].of("visitor_team", prefix="visitor_away_"),
        streaks.of("home_team", prefix="home_"),
        streaks.of("visitor_team", prefix="visitor_"),
        head_to_head,
        above("home_points_above_league", home.points_10, league.mean_points),
        above("visitor_points_above_league", visitor.points_10, league.mean_points),
        above("won_15_above_visitor", home.won_15, visitor.won_15),
        above("lead_15_above_visitor", home.lead_15, visitor.lead_15),
    ],
)

nba = PredictionService(
    "nba",
    view,
    Label.joined(results, on="game_id", column="home_won", matures_after="1d"),
    model=Notebook("train_nba.ipynb"),
    split=TimeSplit(test="200d"),  # the latest season: the summer before it is longer than what is left of 200 days
    gates=[Gate("auc", at_least=0.6), Gate("brier", of_baseline=0.97), Calibration(at_most=0.1)],
    # Into PostgreSQL as well, where WINDROW_SINK_POSTGRES says which.
    batch=Batch("@daily", sinks=["delta"], optional_sinks=["postgres"], rows="day"),
    owner="team:sports",
    description="Chance that the home team wins.",
)
