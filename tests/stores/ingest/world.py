"""A tiny project that takes events in: a source with an id, one without, a group with checks; and its applier, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandera.ibis as pa

from windrow.features import agg
from windrow.features.aggregate import AggregateGroup, aggregate
from windrow.features.group import FeatureGroup, feature_group
from windrow.features.source import Source
from windrow.features.tiles import Tiles
from windrow.schema import Entity
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.ingest.applier import Applier
from windrow.stores.ingest.catalogue import Stream, catalogue, record
from windrow.stores.ingest.events import FOLDER, Batch, EventWriter
from windrow.stores.lake import Lake
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import open_online

CARD = Entity("card", card_id="int64")
payments = Source(
    "payments",
    id="payment_id",
    event_time="ts",
    columns={"payment_id": "int64", "card_id": "int64", "amount": "float64"},
)
clicks = Source("clicks", event_time="at", columns={"number": "int64", "page": "string"})


class Sane(pa.DataFrameModel):
    """What a card's limit may be."""

    limit: float = pa.Field(ge=0, nullable=True)


@feature_group(CARD, checks=f"{__name__}:Sane", on_bad="quarantine")
def card_limit(payments):  # type: ignore[no-untyped-def]
    """The limit of a card."""
    return payments.select("card_id", limit=payments.amount)


card_spend = aggregate(
    "card_spend",
    payments,
    by=CARD,
    features={"spend_1d": agg.sum("amount", "1d"), "payments_7d": agg.count("7d")},
)
page_views = aggregate("page_views", clicks, by=Entity("page", page="string"), features={"views_1d": agg.count("1d")})


def declared(*groups: FeatureGroup) -> dict[str, Stream]:
    return catalogue([payments, clicks], [card_limit, card_spend, page_views, *groups])


def asked(settings: Settings, group: AggregateGroup, key: tuple[Any, ...], *, at: int | None = None) -> tuple[Any, ...]:
    """Return the features of an entity as a request would read them."""
    with open_online(settings.online) as store:
        row = store.read([(group.table_name, key)])[0]
    values, _ = Tiles(group.spec).values(None if row is None else row.values[0], now() if at is None else at)
    return values


def settings_in(folder: Path, **changes: str) -> Settings:
    return Settings.read({"WINDROW_HOME": str(folder / "home"), "WINDROW_CLOCK": "real", **changes})


def prepare(settings: Settings, *groups: FeatureGroup) -> None:
    """Record the catalogue, as ``windrow up`` does."""
    metadata = Metadata(settings.metadata)
    record(declared(*groups), metadata)
    metadata.close()


class World:
    """A home with a writer of events; every applier that it makes is a new one, as after a restart."""

    def __init__(self, settings: Settings, *groups: FeatureGroup) -> None:
        prepare(settings, *groups)
        self.settings, self.folder = settings, settings.folder(FOLDER)
        self.streams = declared(*groups)
        self.lake = Lake(settings.lake)
        self.writer = EventWriter(self.folder, "api-0")

    def send(self, name: str, *rows: Sequence[Any], known: int | None = None) -> None:
        """Accept rows (values in the stream's order) as a worker would."""
        stream = self.streams[name]
        place = stream.names.index(stream.event_time)
        values = [[*row, row[place] if known is None else known] for row in rows]
        self.writer.append(Batch(stream.name, stream.names, values, received_at=5))

    def applier(self) -> Applier:
        return Applier(self.settings)

    def settle(self) -> None:
        """Bring all that was accepted online and to the lake."""
        self.writer.rotate()
        applier = self.applier()
        try:
            while applier.step().read:
                pass
            applier.commit()
        finally:
            applier.close()

    def rows(self, key: str) -> list[dict[str, Any]]:
        table = self.lake.table(key)
        return table.scan(engine()).to_pyarrow().to_pylist() if table.exists else []  # type: ignore[no-any-return]

    def column(self, key: str, name: str) -> list[Any]:
        return sorted(row[name] for row in self.rows(key))

    def segments(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if p.suffix in (".open", ".seg", ".parked", ".damaged"))


def now() -> int:
    return time.time_ns() // 1000
