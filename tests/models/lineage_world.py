"""A small project for tests of lineage: two services over three sources, a group over a group, keys through a group."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.features import on_demand_functions as od
from windrow import (
    Entity,
    FeatureGroup,
    FeatureView,
    Label,
    PredictionService,
    RandomSplit,
    Source,
    agg,
    aggregate,
    feature_group,
    on_demand,
)
from windrow.discover import groups
from windrow.features.contract import Contract
from windrow.models.graph import Graph
from windrow.models.graph_build import project_graph
from windrow.models.release import DatasetRef, Release

card, shop = Entity("card", card_id="int64"), Entity("shop", shop_id="int64")

payments = Source(
    "payments",
    id="payment_id",
    event_time="ts",
    columns={"payment_id": "int64", "card_id": "int64", "shop_id": "int64", "amount": "float64", "note": "string"},
)
cards = Source(
    "cards", event_time="since", columns={"card_id": "int64", "limit": "float64", "shop_id": "int64", "closed": "bool"}
)
shops = Source("shops", event_time="since", columns={"shop_id": "int64", "margin": "float64", "town": "string"})
chargebacks = Source("chargebacks", event_time="told", columns={"payment_id": "int64", "fee": "float64"})


@feature_group(card, checks="tests.models.lineage_world:Checks")
def card_profile(cards):
    open_ = cards.filter(~cards.closed)
    return open_.select("card_id", "limit", home="shop_id")


@feature_group(shop)
def shop_margin(shops):
    return shops.select("shop_id", "margin", "town")


@feature_group(card)
def card_half(card_profile):
    return card_profile.select("card_id", half=card_profile["limit"] / 2)


card_spend = aggregate("card_spend", payments, by=card, features={"spend_1d": agg.sum("amount", "1d")})


class Checks:
    """Stands for a pandera schema: it names columns."""

    columns = {"limit": None}


fraud = PredictionService(
    "fraud",
    FeatureView(
        "fraud",
        spine=payments,
        features=[
            card_spend,
            card_half,
            shop_margin["margin"].of(card_profile.home),
            on_demand(od.distance, x=payments.amount, y=card_profile.limit),
        ],
    ),
    Label.joined(chargebacks, on="payment_id", column="fee", absent=0, matures_after="30d"),
    model="json:dumps",
    split=RandomSplit(),
)
limits = PredictionService(
    "limits",
    FeatureView("limits", spine=payments, features=[card_profile["limit"]]),
    Label.joined(chargebacks, on="payment_id", absent=0, matures_after="30d"),
    model="json:dumps",
    split=RandomSplit(),
)
SERVICES = {"fraud": fraud, "limits": limits}
GROUPS: list[FeatureGroup] = groups(SERVICES.values())


def release(service: str, contract: Contract, number: int = 1) -> Release:
    """A release as far as lineage looks at one."""
    facts: dict[str, Any] = {
        name: {} for name in ("label", "groups", "parity", "metrics", "baseline", "files", "environment")
    }
    return Release(
        id=f"{service}-{number}", service=service, number=number, created_at=0, task="classification", contract=contract,
        view_fingerprint=contract.fingerprint, seq=0, backend="onnx", gates=[], on_demand_sha256="",
        dataset=DatasetRef(id="d", hash="h", rows=1, kind="view", now=0, splits={}), **facts,
    )  # fmt: skip


def graph(**live: Contract | None) -> Graph:
    """The project's graph; a service's live release has the contract given, or (None) the declared one."""
    made = {name: release(name, found or SERVICES[name].view.contract) for name, found in live.items()}
    return project_graph(SERVICES, GROUPS, live=made)


def older(contract: Contract, *, without: str) -> Contract:
    """The contract before a feature was added."""
    kept = tuple(field for field in contract.features if field.name != without)
    return msgspec.structs.replace(contract, features=kept)
