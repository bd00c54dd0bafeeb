"""What is known of two teams in the morning of a game.

A score is known three hours after tip-off, so that whoever asks in the morning sees every game before this one, and
never this one.
"""

import ibis

from windrow import Entity, Source, agg, aggregate, feature_group

team = Entity("team", team="string")
meeting = Entity("meeting", home_team="string", visitor_team="string")

TEAMS = {"home_team": "string", "visitor_team": "string"}
KNOWN = {"event_time": "tip_off", "delay": "3h"}

games = Source(
    "games",
    id="game_id",
    event_time="asked_at",  # the morning of the game, which nobody has played yet
    columns={"game_id": "int64", "season": "int64", **TEAMS},
    simulator="simulate:games",
)
results = Source(
    "results",
    id="game_id",
    columns={"game_id": "int64", **TEAMS, "home_won": "bool"},
    simulator="simulate:results",
    **KNOWN,
)
box_scores = Source(
    "box_scores",
    id="score_id",  # game and team: each game has two
    columns={
        "score_id": "string",
        "team": "string",
        "at_home": "bool",
        "points": "int64",
        "lead": "int64",  # negative for the team that lost
        "won": "bool",
        "lost": "bool",
    },
    simulator="simulate:box_scores",
    **KNOWN,
)


def last(table, count):
    """The window of a team's last `count` games: grouped by team, so that no streak goes on from one to the next."""
    return ibis.window(group_by=table.team, order_by=table.tip_off, preceding=count - 1, following=0)


def form_of(scores):
    """Means over the last 3, 7, 10 and 15 games."""
    means = {}
    for count in (3, 7, 10, 15):
        recent = last(scores, count)
        means[f"won_{count}"] = scores.won.cast("float64").mean().over(recent)
        means[f"lead_{count}"] = scores.lead.mean().over(recent)
        means[f"points_{count}"] = scores.points.mean().over(recent)
    return scores.select("team", **means)


@feature_group(team, checks="checks:Form", owner="team:sports")
def form(box_scores):
    """Games won, lead and points: means over a team's last games."""
    return form_of(box_scores)


@feature_group(team, checks="checks:Form", owner="team:sports")
def form_at_home(box_scores):
    """The same over games at home only."""
    return form_of(box_scores.filter(box_scores.at_home))


@feature_group(team, checks="checks:Form", owner="team:sports")
def form_away(box_scores):
    """The same over games away only."""
    return form_of(box_scores.filter(~box_scores.at_home))


@feature_group(owner="team:sports")
def league(box_scores):
    """What a team of the league scores in a game: the mean of the last 30 days."""
    nights = box_scores.group_by("event_time", "known_at").agg(
        points=box_scores.points.sum(), scores=box_scores.count()
    )
    month = ibis.range_window(order_by=nights.event_time, preceding=ibis.interval(days=30), following=0)
    return nights.select(mean_points=nights.points.sum().over(month) / nights.scores.sum().over(month))


streaks = aggregate(
    "streaks",
    box_scores,
    by=team,
    owner="team:sports",
    description="Games won, or lost, in a row up to now; a summer ends both.",
    features={"winning": agg.streak("won", "120d"), "losing": agg.streak("lost", "120d")},
)

head_to_head = aggregate(
    "head_to_head",
    results,
    by=meeting,
    owner="team:sports",
    description="Earlier meetings of the two in the same hall, over three years.",
    features={"meetings": agg.count("1095d"), "home_won_before": agg.mean("home_won", "1095d")},
)
