"""What is known of an area's demand and weather at any time."""

import ibis

from windrow import CsvFile, Entity, Every, Source, feature_group

FILE = "electricity_victoria.csv"  # half-hourly, from WINDROW_DATA; without it the simulator answers

area = Entity("area", area="string")

demand = Source(
    "demand",
    event_time="ts",
    columns={"area": "string", "mw": "float64"},
    file=CsvFile(FILE, columns={"ts": "Time", "mw": "Demand"}, constants={"area": "VIC"}),
    simulator="simulate:demand",
)
weather = Source(
    "weather",
    event_time="ts",
    columns={"area": "string", "temperature": "float64"},
    file=CsvFile(FILE, columns={"ts": "Time", "temperature": "Temperature"}, constants={"area": "VIC"}),
    simulator="simulate:weather",
)

hourly = Every("1h", area)


def last(table, hours):
    """The window of the last `hours`, by time and not by row count: a gap in the data shifts nothing."""
    return ibis.range_window(
        group_by=table.area, order_by=table.ts, preceding=ibis.interval(hours=hours), following=ibis.interval(hours=0)
    )


def ago(table, hours):
    """The one instant `hours` ago; no row there means null."""
    then = ibis.interval(hours=hours)
    return ibis.range_window(group_by=table.area, order_by=table.ts, preceding=(then, then))


@feature_group(area, ttl="3h", checks="checks:DemandLags", owner="team:grid")
def demand_lags(demand):
    """Demand now, at the same half hour of earlier days, and over the last day and week (MW)."""
    mw = demand.mw
    return demand.select(
        "area",
        "mw",
        mw_1h=mw.max().over(ago(demand, 1)),
        mw_24h=mw.max().over(ago(demand, 24)),
        mw_48h=mw.max().over(ago(demand, 48)),
        mw_144h=mw.max().over(ago(demand, 144)),
        mw_312h=mw.max().over(ago(demand, 312)),
        mw_mean_24h=mw.mean().over(last(demand, 24)),
        mw_std_24h=mw.std().over(last(demand, 24)),
        mw_mean_168h=mw.mean().over(last(demand, 168)),
    )


@feature_group(area, ttl="3h", checks="checks:WeatherNow", on_bad="quarantine", owner="team:grid")
def weather_now(weather):
    """Temperature now and over the last one and three days (°C)."""
    degrees = weather.temperature
    return weather.select(
        "area",
        "temperature",
        temperature_mean_24h=degrees.mean().over(last(weather, 24)),
        temperature_max_24h=degrees.max().over(last(weather, 24)),
        temperature_mean_72h=degrees.mean().over(last(weather, 72)),
    )
