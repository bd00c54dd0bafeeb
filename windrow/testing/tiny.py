"""A small prediction service to try things on: is a card payment charged back? Everything about it is simulated.

300 cards, 40 shops, 6,000 payments in 120 days. A chargeback is likelier the more of its limit a payment takes, the
more often the card paid late, and the more the shop is complained about. Cards 0 to 14 were last heard of long ago, so
that their values have expired; cards and shops from 1,000 on do not exist.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.features.group import feature_group
from windrow.features.label import Label
from windrow.features.on_demand import on_demand
from windrow.features.source import Source
from windrow.features.view import FeatureView
from windrow.models.online import Online
from windrow.models.service import PredictionService
from windrow.models.split import TimeSplit
from windrow.schema import Entity
from windrow.testing import tiny_functions

CARDS, SHOPS, PAYMENTS, DAYS, STALE = 300, 40, 6000, 120, 15
CONSTANT = 0.05
"""What answers where nothing else can: about the share of payments that are charged back."""

_START, _DAY = np.datetime64("2026-01-01", "us"), np.timedelta64(86_400_000_000, "us")
_HERE = "windrow.testing.tiny"

Columns = dict[str, NDArray[Any]]


@cache
def _world() -> dict[str, Columns]:
    random = np.random.default_rng(7)
    limit, late = random.choice([100.0, 200, 400, 800], CARDS), random.poisson(1.0, CARDS)
    complaints = random.gamma(2.0, 1.0, SHOPS)
    card, shop = random.integers(0, CARDS, PAYMENTS), random.integers(0, SHOPS, PAYMENTS)
    amount = np.round(random.gamma(2.0, 40.0, PAYMENTS), 2)
    at = _START + np.sort(random.integers(0, DAYS * 86_400, PAYMENTS)) * np.timedelta64(1_000_000, "us")
    score = -4.2 + 2.5 * np.minimum(amount / limit[card], 2) + 0.5 * late[card] + 0.3 * complaints[shop]
    bad = random.random(PAYMENTS) < 1 / (1 + np.exp(-score))
    since = np.where(np.arange(CARDS) < STALE, _START - 400 * _DAY, _START - _DAY)
    number = np.arange(PAYMENTS)
    return {
        "payments": {"payment_id": number, "card_id": card, "shop_id": shop, "amount": amount, "ts": at},
        "cards": {"card_id": np.arange(CARDS), "limit": limit, "late": late, "ts": since},
        "shops": {"shop_id": np.arange(SHOPS), "complaints": complaints, "ts": np.full(SHOPS, _START - _DAY)},
        "chargebacks": {"payment_id": number[bad], "ts": at[bad] + 2 * _DAY},
    }


def simulate_payments() -> Columns:
    """Payments, one row each."""
    return _world()["payments"]


def simulate_cards() -> Columns:
    """Cards, as they were when they were last heard of."""
    return _world()["cards"]


def simulate_shops() -> Columns:
    """Shops, with complaints a month."""
    return _world()["shops"]


def simulate_chargebacks() -> Columns:
    """Payments that were charged back, two days later."""
    return _world()["chargebacks"]


def model() -> Any:
    """Return an unfitted estimator that takes missing values."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=6, random_state=0)


payments = Source(
    "tiny_payments", id="payment_id", event_time="ts", simulator=f"{_HERE}:simulate_payments",
    columns={"payment_id": "int64", "card_id": "int64", "shop_id": "int64", "amount": "float64"},
)  # fmt: skip
cards = Source(
    "tiny_cards", event_time="ts", simulator=f"{_HERE}:simulate_cards",
    columns={"card_id": "int64", "limit": "float64", "late": "int64"},
)  # fmt: skip
shops = Source(
    "tiny_shops", event_time="ts", simulator=f"{_HERE}:simulate_shops",
    columns={"shop_id": "int64", "complaints": "float64"},
)  # fmt: skip
chargebacks = Source(
    "tiny_chargebacks", event_time="ts", simulator=f"{_HERE}:simulate_chargebacks", columns={"payment_id": "int64"}
)


@feature_group(Entity("card", card_id="int64"), ttl="365d")
def tiny_card(cards: Any) -> Any:
    """What a card may spend, and how often it was paid late."""
    return cards.select("card_id", "limit", "late")


@feature_group(Entity("shop", shop_id="int64"))
def tiny_shop(shops: Any) -> Any:
    """How much a shop is complained about."""
    return shops.select("shop_id", "complaints")


tiny = PredictionService(
    "tiny",
    FeatureView(
        "tiny", spine=payments,
        features=[
            payments.amount, tiny_card, tiny_shop,
            on_demand(tiny_functions.share, amount=payments.amount, limit=tiny_card.limit),
        ],
    ),
    Label.joined(chargebacks, on="payment_id", absent=0, matures_after="5d"),
    model=model,
    split=TimeSplit(test="30d", gap="5d"),
    online=Online(
        unknown_entity="predict", store_away="fallback", fallback=["golden", CONSTANT], immutable=["late", "complaints"]
    ),
    description="Is a card payment charged back?",
)  # fmt: skip
