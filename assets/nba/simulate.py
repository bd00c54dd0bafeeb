"""Five seasons of basketball with a known truth: how strong each team was in each season.

Truth: the home team's lead at the end is normal, with the mean `HOME` plus the difference of the two teams' strengths
(points) and the deviation `LUCK`; who leads has won. Strengths are drawn anew for every season, near the old ones.
Each team plays each other one twice a season, once at home.
"""

from functools import cache
from math import erf

import numpy as np

TEAMS, SEASONS, FIRST = 24, 5, 2019
HOME, LUCK, SPREAD, KEPT = 2.8, 12.0, 7.0, 0.7  # points; KEPT: what is left of a strength after a summer
NIGHTS = 160  # from late October on
_DAY, _HOUR = np.timedelta64(1, "D"), np.timedelta64(1, "h")


@cache
def _world():
    random = np.random.default_rng(2019)
    strength, parts = random.normal(0, SPREAD, TEAMS), []
    for season in range(FIRST, FIRST + SEASONS):
        parts.append(_season(random, season, strength - strength.mean()))
        strength = KEPT * strength + random.normal(0, SPREAD * np.sqrt(1 - KEPT**2), TEAMS)
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {"game_id": np.arange(1, rows["season"].size + 1), **rows}


def _season(random, season, strength):
    home, visitor = _pairs(random)
    night = np.datetime64(f"{season}-10-22T00:00:00", "us") + _nights(home.size) * _DAY
    edge = HOME + strength[home] - strength[visitor]
    lead = random.normal(edge, LUCK)
    total = np.round(random.normal(224, 15, home.size))
    margin = np.where(lead > 0, 1, -1) * np.ceil(np.abs(lead))
    return {
        "season": np.full(home.size, season),
        "home_team": teams()[home],
        "visitor_team": teams()[visitor],
        "asked_at": night + 15 * _HOUR,
        "tip_off": night + 24 * _HOUR,
        "home_points": np.ceil((total + margin) / 2).astype(int),
        "visitor_points": (np.ceil((total + margin) / 2) - margin).astype(int),
        "chance": np.array([(1 + erf(e / LUCK / np.sqrt(2))) / 2 for e in edge]),
    }


def _pairs(random):
    """Every ordered pair of teams, in rounds in which nobody plays twice (the circle method)."""
    rounds = []
    for turn in range(TEAMS - 1):
        ring = np.concatenate([[0], 1 + (np.arange(TEAMS - 1) + turn) % (TEAMS - 1)])
        left, right = ring[: TEAMS // 2], ring[::-1][: TEAMS // 2]
        swap = random.random(left.size) < 0.5
        rounds.append((np.where(swap, right, left), np.where(swap, left, right)))
    rounds += [(visitor, home) for home, visitor in rounds]
    order = random.permutation(len(rounds))
    return tuple(np.concatenate([rounds[i][side] for i in order]) for side in (0, 1))


def _nights(games):
    rounds = games // (TEAMS // 2)
    return np.repeat(np.linspace(0, NIGHTS, rounds).astype(int), TEAMS // 2)


def teams():
    """The teams, shape (teams,)."""
    return np.array([f"T{number:02d}" for number in range(TEAMS)])


def played():
    """The truth: every game with its result and the home team's chance to win before it."""
    return dict(_world())


def games():
    """Rows of the source ``games``."""
    return {name: _world()[name] for name in ("game_id", "season", "home_team", "visitor_team", "asked_at")}


def results():
    """Rows of the source ``results``."""
    rows = _world()
    told = {name: rows[name] for name in ("game_id", "home_team", "visitor_team", "tip_off")}
    return {**told, "home_won": rows["home_points"] > rows["visitor_points"]}


def box_scores():
    """Rows of the source ``box_scores``: each game twice, once for each team."""
    rows = _world()
    sides = [_side(rows, "home", "visitor"), _side(rows, "visitor", "home")]
    return {name: np.concatenate([side[name] for side in sides]) for name in sides[0]}


def _side(rows, own, other):
    points, against = rows[f"{own}_points"], rows[f"{other}_points"]
    team = rows[f"{own}_team"]
    return {
        "score_id": np.array([f"{game}/{name}" for game, name in zip(rows["game_id"], team, strict=True)]),
        "team": team,
        "at_home": np.full(team.size, own == "home"),
        "points": points,
        "lead": points - against,
        "won": points > against,
        "lost": points < against,
        "tip_off": rows["tip_off"],
    }
