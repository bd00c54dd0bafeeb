"""One made-up event through the whole way, in a home of its own: what `windrow doctor` asks."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from windrow.clock import Clock
from windrow.errors import StoreError
from windrow.features import agg
from windrow.features.agg import Aggregate
from windrow.features.source import Source
from windrow.features.tiles import Tiles
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.ingest.applier import Applier
from windrow.stores.ingest.catalogue import record, stream_of_source
from windrow.stores.ingest.events import FOLDER, Batch, EventWriter
from windrow.stores.lake import Lake
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import open_online

_NAME, _GROUP = "doctor_events", "doctor_counts_v1"


def prove(home: Path) -> float:
    """Take an event in, bring it online and to the lake, read it at both ends; return the seconds until it was online.

    Parameters
    ----------
    home
        A writable folder; everything happens in a new folder inside it, which is removed again.

    Raises
    ------
    StoreError
        If it does not arrive, or arrives twice.
    """
    with TemporaryDirectory(dir=home, prefix="doctor-") as folder:
        settings = _scratch(Path(folder))
        begun = time.perf_counter()
        _send(settings)
        applier = Applier(settings)
        try:
            applier.step()
            seconds = time.perf_counter() - begun
            applier.commit()
        finally:
            applier.close()
        _read(settings)
    return seconds


def _scratch(folder: Path) -> Settings:
    environ = {"HOME": folder, "DATA": folder, "PROJECT": folder}
    settings = Settings.read({f"WINDROW_{name}": str(value) for name, value in environ.items()})
    source = Source(_NAME, id="number", event_time="at", columns={"number": "int64", "owner": "int64"})
    stream = stream_of_source(source, {_GROUP: _spec()})
    assert stream is not None
    metadata = Metadata(settings.metadata)
    record({_NAME: stream}, metadata)
    metadata.close()
    assert settings.clock == Clock("data")
    return settings


def _spec() -> Aggregate:
    return Aggregate(f"sources/{_NAME}", ("owner",), "number", {}, {"events_1h": agg.count("1h")})


def _send(settings: Settings) -> None:
    now = time.time_ns() // 1000
    with EventWriter(settings.folder(FOLDER), "doctor") as writer:
        # Twice, as a sender does that was not answered.
        writer.append(Batch(_NAME, ("number", "owner", "at"), [[1, 7, now, now], [1, 7, now, now]], received_at=now))


def _read(settings: Settings) -> None:
    with open_online(settings.online) as store:
        row = store.read([(_GROUP, (7,))])[0]
    counted, _ = Tiles(_spec()).values(None if row is None else row.values[0], time.time_ns() // 1000 + 1)
    stored = Lake(settings.lake).table(f"sources/{_NAME}").scan(engine()).number.to_pyarrow().to_pylist()
    if counted != (1,) or stored != [1]:
        raise StoreError(
            f"an event was sent twice, counted {counted[0]} times online and stored {len(stored)} times",
            next_step="run `make test-all`: tests/laws/test_stream_kills.py says where events are lost",
        )
