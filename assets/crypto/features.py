"""Bars of 30 seconds made from single trades, and what they say about the last ten minutes.

A bar is known ten seconds after it closes. A trade that comes later than that corrects the bar: the corrected one
is a row of its own, known when the trade came, and says how many trades were late.
"""

import ibis

from windrow import Entity, Every, Source, feature_group

BAR, LATENESS = 30, 10  # seconds

product = Entity("product", product="string")

ticks = Source(
    "ticks",
    id="trade",  # product and number, such as "BTC-USD/17": two products count their trades separately
    event_time="ts",
    known_at="received",
    columns={"trade": "string", "product": "string", "price": "float64", "size": "float64"},
    simulator="simulate:ticks",
)

# A bar that closes at :30 is known at :40, and asked about at once.
closes = Every(f"{BAR}s", product, offset=f"{LATENESS}s")


@feature_group(product, checks="checks:Bars", on_bad="quarantine", online=False, owner="team:markets")
def bars(ticks):
    """Open, high, low, close (USD) and volume (coins) of 30 seconds, by the time they close."""
    close_time = ticks.ts.bucket(seconds=BAR) + ibis.interval(seconds=BAR)
    due = close_time + ibis.interval(seconds=LATENESS)
    trades = ticks.mutate(close_time=close_time, late=ticks.received > due, seen=ibis.greatest(ticks.received, due))
    # One version of a bar for each time at which more of it became known: on time, then once per late trade.
    versions = trades.select("product", "close_time", known=trades.seen).distinct()
    known = versions.join(trades, ["product", "close_time", versions.known >= trades.seen])
    in_order = [known.ts, known.trade]
    return known.group_by("product", event_time=known.close_time, known_at=known.known).agg(
        open=known.price.first(order_by=in_order),
        high=known.price.max(),
        low=known.price.min(),
        close=known.price.last(order_by=in_order),
        volume=known["size"].sum().round(8),  # the smallest part of a coin; sums of floats differ by their order
        trades=known.count(),
        late=known.late.sum(),
    )


def last(table, minutes):
    """The window of the last `minutes`, by time and not by row count: seconds without a trade shift nothing."""
    preceding, following = ibis.interval(minutes=minutes), ibis.interval(minutes=0)
    return ibis.range_window(
        group_by=table.product, order_by=table.event_time, preceding=preceding, following=following
    )


def ago(table, **span):
    """The one bar that closed `span` before; no bar there means null."""
    then = ibis.interval(**span)
    return ibis.range_window(group_by=table.product, order_by=table.event_time, preceding=(then, then))


def parts(ratio):
    """A ratio in parts of 10,000, to four places."""
    return (10_000 * ratio).round(4)


@feature_group(product, ttl="10m", checks="checks:Moves", on_bad="quarantine", owner="team:markets")
def moves(bars):
    """How the price moved up to the bar, from bars as they were when they closed (in parts of 10,000)."""
    bars = bars.filter(bars.late == 0)
    close, last_10m = bars.close, last(bars, 10)
    before_30s, before_2m = close.max().over(ago(bars, seconds=30)), close.max().over(ago(bars, minutes=2))
    before_5m = close.max().over(ago(bars, minutes=5))
    mean, spread = close.mean().over(last_10m), close.std().over(last_10m)
    return bars.select(
        "product",
        move_30s=parts(close / before_30s - 1),
        move_2m=parts(close / before_2m - 1),
        move_5m=parts(close / before_5m - 1),
        band=((close - mean) / spread.nullif(0)).round(4),
        width=parts(spread / mean),
        span=parts((bars.high - bars.low) / close),
        busy=(bars.volume / bars.volume.mean().over(last_10m)).round(4),
        up_5m=close > before_5m,
    )
