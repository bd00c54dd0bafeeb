"""What is known of a card and a merchant at the moment of a payment."""

from windrow import Entity, Source, agg, aggregate, feature_group

card, merchant = Entity("card", card_id="int64"), Entity("merchant", merchant_id="int64")

payments = Source(
    "payments",
    id="payment_id",
    event_time="ts",
    known_at="received",  # most within two seconds; one in a hundred up to three days later
    columns={
        "payment_id": "int64",
        "card_id": "int64",
        "merchant_id": "int64",
        "amount": "float64",
        "lat": "float64",
        "lon": "float64",
        "abroad": "bool",
    },
    simulator="simulate:payments",
)
customers = Source(
    "customers",
    event_time="valid_from",
    known_at="loaded_at",  # a change of address is entered days after it
    columns={"card_id": "int64", "home_lat": "float64", "home_lon": "float64", "credit_limit": "float64"},
    simulator="simulate:customers",
)
chargebacks = Source(
    "chargebacks",
    id="payment_id",
    event_time="ts",  # when the owner of the card complained: 1 to 30 days after the payment
    known_at="received",  # when the bank passed it on, within the hour
    columns={"payment_id": "int64", "card_id": "int64", "merchant_id": "int64"},
    simulator="simulate:chargebacks",
)


@feature_group(card, ttl="400d", checks="checks:CardProfile", on_bad="quarantine", owner="team:risk")
def card_profile(customers):
    """Where the owner of the card lives, and how much may be spent in a month (EUR)."""
    return customers.select("card_id", "home_lat", "home_lon", "credit_limit")


card_spend = aggregate(
    "card_spend",
    payments,
    by=card,
    owner="team:risk",
    description="Payments of the card so far (EUR); the one that is judged is never among them.",
    features={
        "payments_1h": agg.count("1h"),
        "payments_1d": agg.count("1d"),
        "payments_7d": agg.count("7d"),
        "spend_1h": agg.sum("amount", "1h"),
        "spend_1d": agg.sum("amount", "1d"),
        "spend_30d": agg.sum("amount", "30d"),
        "mean_30d": agg.mean("amount", "30d"),
        "max_30d": agg.max("amount", "30d"),
        "abroad_7d": agg.count("7d", where="abroad"),
        "merchants_1d": agg.distinct("merchant_id", "1d"),
    },
)

# Read by the functions of on_demand.py only: where and when the card paid last.
card_last = aggregate(
    "card_last",
    payments,
    by=card,
    owner="team:risk",
    description="Place and time of the card's last payment.",
    features={
        "last_lat": agg.last("lat", "90d"),
        "last_lon": agg.last("lon", "90d"),
        "last_ts": agg.last("ts", "90d"),
    },
)

merchant_traffic = aggregate(
    "merchant_traffic",
    payments,
    by=merchant,
    owner="team:risk",
    description="Payments at the merchant so far (EUR).",
    features={
        "merchant_payments_1h": agg.count("1h"),
        "merchant_payments_7d": agg.count("7d"),
        "merchant_mean_7d": agg.mean("amount", "7d"),
        "merchant_cards_7d": agg.distinct("card_id", "7d"),
        # Of newer payments nobody has complained yet: they would make a bad merchant look good.
        "merchant_settled_30d": agg.count("30d", delay="7d"),
    },
)

merchant_risk = aggregate(
    "merchant_risk",
    chargebacks,
    by=merchant,
    owner="team:risk",
    description="Complaints about payments at the merchant, by the day of the complaint.",
    features={"chargebacks_7d": agg.count("7d"), "chargebacks_30d": agg.count("30d")},
)
