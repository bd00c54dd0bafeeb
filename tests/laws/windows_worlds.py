"""Small histories in which ties, late events, duplicates and missing values are the rule and not the exception."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
from hypothesis import strategies as st

from tests.laws.windows_oracle import Event
from windrow.clock import SECOND
from windrow.features import agg
from windrow.features.agg import Agg, Aggregate
from windrow.testing import MemoryTable, times

FIELDS = {"x": "float64", "n": "int64", "s": "string", "b": "bool", "w": "bool", "at": "timestamp"}
ARROW = {
    "x": pa.float64(),
    "n": pa.int64(),
    "s": pa.string(),
    "b": pa.bool_(),
    "w": pa.bool_(),
    "at": pa.timestamp("us", "UTC"),
}
START = 1_700_000_000 * SECOND


class World(NamedTuple):
    """Events in the order in which they were written, and what is asked: (key, time, the request's own event)."""

    events: list[Event]
    asked: list[tuple[str | None, int, dict[str, Any]]]
    spec: Aggregate

    @property
    def table(self) -> MemoryTable:
        """The events as a stored source."""
        return MemoryTable("sources/world", table(self.events))

    @property
    def spine(self) -> pa.Table:
        """What is asked, with the request's own values."""
        columns = {n: pa.array([own[n] for _, _, own in self.asked], ARROW[n]) for n in FIELDS}
        keys = pa.array([key for key, _, _ in self.asked], pa.string())
        return pa.table({"key": keys, **columns, "event_time": times(*(t for _, t, _ in self.asked))})


def table(events: list[Event]) -> pa.Table:
    """Events as Arrow, in the order given."""
    columns = {n: pa.array([e.values[n] for e in events], ARROW[n]) for n in FIELDS}
    return pa.table(
        {
            "key": pa.array([e.key for e in events], pa.string()),
            "id": pa.array([e.id for e in events], pa.int64()),
            **columns,
            "event_time": times(*(e.event_time for e in events)),
            "known_at": times(*(e.known_at for e in events)),
            "_seq": pa.array([e.seq for e in events], pa.int64()),
        }
    )


def random_functions(dice: Random) -> dict[str, Agg]:
    """Each function once, over a window, hop, delay and filter of its own."""
    made = {}
    takes = {
        "count": [""],
        "distinct": "xnsb",
        "streak": "b",
        "last": "xnsb",
        "first": "xnsb",
        "min": "xnb",
        "max": "xnb",
    }
    for kind in ("count", "sum", "mean", "std", "min", "max", "last", "first", "distinct", "streak"):
        for number in range(2):
            window = dice.choice(["10s", "30s", "60s", "300s"])
            options: Any = {"hop": dice.choice([None, "2s", "5s", "10s"]), "where": dice.choice([None, None, "w"])}
            options["delay"] = dice.choice([None, None, "7s", "40s"])
            options["include_current"] = options["delay"] is None and dice.random() < 0.3
            column = dice.choice(takes.get(kind, "xnb"))
            arguments = (column, window) if column else (window,)
            made[f"{kind}_{number}"] = getattr(agg, kind)(*arguments, **options)
    return made


def spec(features: dict[str, Agg], *, id: str | None = "id") -> Aggregate:  # noqa: A002
    """The functions over the world's source."""
    read = dict.fromkeys(c for made in features.values() for c in made.columns)
    return Aggregate("sources/world", ("key",), id, {n: FIELDS[n] for n in read}, features)


def values(dice: Random) -> dict[str, Any]:
    """One event's values; cents, so that sums can be compared closely."""
    made = {
        "x": dice.choice([None, 0.1, 0.25, 3.3, -2.0, 1e9 + 0.01, dice.uniform(-5, 5)]),
        "n": dice.choice([None, 0, 1, 2, -7, 2**60 + 1]),
        "s": dice.choice([None, "a", "b", "ä", ""]),
        "b": dice.choice([None, True, True, True, False]),
        "w": dice.choice([None, True, True, False]),
    }
    return made | {"at": START + dice.randrange(9)}


@st.composite
def worlds(draw: st.DrawFn, *, keys: str = "AAABC", truthful: bool = False) -> World:
    """Draw a world: Hypothesis draws sizes, dice fill them evenly.

    A truthful one says of a copy that it was known when it came, not before the first one: what a stream must be.
    """
    dice = Random(draw(st.integers(0, 2**32)))
    grain, span = dice.choice([SECOND, SECOND // 10, 10 * SECOND]), dice.choice([20, 100, 400])
    delays = dice.choice([(0,), (0,), (0, 0, 0, 0, 30), (15,), range(40)])
    has_ids, written = dice.random() < 0.7, list[Event]()
    for number in range(draw(st.integers(0, 40))):
        at = START + dice.randrange(span) * grain
        known = at + dice.choice(delays) * SECOND + dice.choice([0, 0, 1])
        written.append(Event(dice.choice(keys), at, known, number if has_ids else None, values(dice)))
    dice.shuffle(written)
    if dice.random() < 0.5:
        written.sort(key=lambda e: e.eff)
    for event in list(written) if has_ids else []:
        if dice.random() < 0.2:
            # The same event once more: a copy, a correction, or a version that says it was known at another time.
            known = max(event.event_time, event.known_at + dice.choice([0, 0, 5, 0 if truthful else -3]) * SECOND)
            first = written.index(event) + 1 if truthful else 0
            written.insert(dice.randint(first, len(written)), event._replace(known_at=known, values=values(dice)))
    written = [event._replace(seq=number) for number, event in enumerate(written)]
    moments = [e.event_time for e in written] + [e.eff for e in written] + [START]
    near = [0, 0, 0, 1, -1, SECOND, 10 * SECOND, 30 * SECOND, 100 * SECOND]
    asked = [(dice.choice([*keys, "none", None]), dice.choice(moments) + dice.choice(near), values(dice))
             for _ in range(draw(st.integers(0, 25)))]  # fmt: skip
    return World(written, asked, spec(random_functions(dice), id="id" if has_ids else None))
