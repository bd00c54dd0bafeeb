"""What is known of a shop at any time."""

import ibis

from windrow import CsvFile, Entity, Every, Source, feature_group

shop = Entity("shop", shop_id="int64")
daily = Every("1d", shop)

sales = Source(
    "sales",
    event_time="day",
    columns={"shop_id": "int64", "loaves": "float64"},
    file=CsvFile("sales.csv", columns={"day": "day", "shop_id": "shop_id", "loaves": "loaves"}),
    simulator="simulate:sales",
)


def days_ago(table, days):
    """The one day that many days ago; no row there means null."""
    then = ibis.interval(days=days)
    return ibis.range_window(group_by=table.shop_id, order_by=table.day, preceding=(then, then))


@feature_group(shop, ttl="3d", checks="checks:RecentSales", on_bad="quarantine")
def recent_sales(sales):
    """Loaves sold on the day, six days before it (the weekday that is asked about), and over a week."""
    week = ibis.range_window(
        group_by=sales.shop_id,
        order_by=sales.day,
        preceding=ibis.interval(days=6),
        following=ibis.interval(days=0),
    )
    return sales.select(
        "shop_id",
        "loaves",
        loaves_6d=sales.loaves.max().over(days_ago(sales, 6)),
        loaves_mean_7d=sales.loaves.mean().over(week),
    )
