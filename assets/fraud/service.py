"""The fraud service: is a card payment a fraud? Said while the owner of the card waits at the till."""

from assets.fraud import on_demand as od
from assets.fraud.features import (
    card_last,
    card_profile,
    card_spend,
    chargebacks,
    merchant_risk,
    merchant_traffic,
    payments,
)
from windrow import Drift, FeatureView, Gate, Label, Online, PredictionService, TimeSplit, on_demand

PLACE = {"lat": payments.lat, "lon": payments.lon}
HOME = {"from_lat": card_profile.home_lat, "from_lon": card_profile.home_lon}
LAST = {"last_lat": card_last.last_lat, "last_lon": card_last.last_lon, "last_ts": card_last.last_ts}
MONTHLY = ("spend_30d", "month_share", "merchant_settled_30d", "chargebacks_30d", "settled_bad")
MONTH = {"spend_30d": card_spend.spend_30d, "credit_limit": card_profile.credit_limit}

view = FeatureView(
    "fraud",
    spine=payments,
    features=[
        payments.amount,
        payments.abroad,
        card_profile["credit_limit"],
        card_spend,
        merchant_traffic,
        merchant_risk,
        on_demand(od.km, name="km_from_home", **PLACE, **HOME),
        on_demand(od.km, name="km_since_last", **PLACE, from_lat=card_last.last_lat, from_lon=card_last.last_lon),
        on_demand(od.minutes, name="minutes_since_last", at=payments.ts, before=card_last.last_ts),
        on_demand(od.kmh, **PLACE, at=payments.ts, **LAST),
        on_demand(od.share, name="times_usual", part=payments.amount, whole=card_spend.mean_30d),
        on_demand(
            od.share,
            name="settled_bad",
            part=merchant_risk.chargebacks_30d,
            whole=merchant_traffic.merchant_settled_30d,
        ),
        on_demand(od.month_share, amount=payments.amount, **MONTH),
    ],
)

fraud = PredictionService(
    "fraud",
    view,
    Label.joined(chargebacks, on="payment_id", absent=0, matures_after="30d"),
    model="train:model",
    # When the first judged payment was made, every complaint about the learned ones had come.
    split=TimeSplit(test="30d", gap="30d"),
    gates=[Gate("auc", at_least=0.9)],
    online=Online(p99_ms=10, unknown_entity="predict", store_away="predict", fallback=["golden", 0.03]),
    # What counts over a month fills up in the first two months that are trained on; and requests of one moment see
    # sixty merchants as they are then.
    monitors=[Drift(window="30d", effect=0.3, ignore=MONTHLY)],
    owner="team:risk",
    description="Chance that the owner of the card complains about a payment.",
)
