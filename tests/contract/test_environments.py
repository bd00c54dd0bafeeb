"""Three environments on the same servers and folders: what one writes, no other finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import redis

from tests.postgres import free_port, postgres
from tests.redis_server import redis_server
from windrow.clock import parse_time
from windrow.errors import NotFoundError, SettingsError
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online
from windrow.stores.sinks import write_sink

NAMES = ("dev", "staging", "prod")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    with redis_server() as cache, postgres(free_port()) as database:
        yield {"WINDROW_ONLINE": cache.url, "WINDROW_STREAMS": cache.url, "WINDROW_METADATA": database}


@pytest.fixture(params=["embedded", "servers"])
def environments(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Settings]:
    urls = request.getfixturevalue("servers") if request.param == "servers" else {}
    given = {"WINDROW_HOME": str(tmp_path / "home"), "WINDROW_LAKE": str(tmp_path / "lake"), **urls}
    return {name: Settings.read({**given, "WINDROW_ENV": name}) for name in NAMES}


def test_metadata_of_one_environment_are_not_in_another(environments: dict[str, Settings]) -> None:
    stores = {name: Metadata(settings.metadata) for name, settings in environments.items()}
    for name, store in stores.items():
        store.add_release("churn", f"churn-{name}", b"{}")
        store.deploy("churn", f"churn-{name}", reason="first", at=1)
    assert {name: store.live("churn") for name, store in stores.items()} == {n: f"churn-{n}" for n in NAMES}
    assert [len(store.releases("churn")) for store in stores.values()] == [1, 1, 1]
    for store in stores.values():
        store.close()


def test_online_rows_of_one_environment_are_not_in_another(environments: dict[str, Settings]) -> None:
    with open_online(environments["dev"].online, write=True) as store:
        store.write("card_v1", ["limit"], [((1,), Row(1, 1, 1, (5.0,)))])
    for name in ("staging", "prod"):
        with pytest.raises(NotFoundError, match="there is no online store"):
            open_online(environments[name].online)
        with open_online(environments[name].online, write=True) as store:
            assert store.read([("card_v1", (1,))]) == [None]
            store.write("card_v1", ["other"], [((2,), Row(1, 1, 1, (7.0,)))])
            store.delete("card_v1", [(2,)])
    with open_online(environments["dev"].online) as store:
        assert (store.columns("card_v1"), store.count("card_v1")) == (("limit",), 1)


def test_tables_and_sinks_of_one_environment_are_not_in_another(environments: dict[str, Settings]) -> None:
    at = parse_time("2026-01-01T00:00:00Z")
    for number, settings in enumerate(environments.values(), 1):
        rows = pa.table({"event_time": pa.array([at] * number, pa.timestamp("us", "UTC")), "output": [0.5] * number})
        for kind in ("delta", "duckdb"):
            write_sink(kind, "churn", rows, lake=Lake(settings.lake), settings=settings, day=None)
    found = [Lake(s.lake).table("predictions/churn").scan(engine()).count().execute() for s in environments.values()]
    assert found == [1, 2, 3]
    assert len({settings.home / "sinks" / "churn.duckdb" for settings in environments.values()}) == 3


def test_every_key_on_a_shared_redis_begins_with_its_environment(servers: dict[str, str], tmp_path: Path) -> None:
    with redis.Redis.from_url(servers["WINDROW_ONLINE"]) as client:
        client.flushall()
        for name in NAMES:
            settings = Settings.read({"WINDROW_HOME": str(tmp_path), "WINDROW_ENV": name, **servers})
            with open_online(settings.online, write=True) as store:
                store.write("card_v1", ["limit"], [((1,), Row(1, 1, 1, (5.0,)))])
        starts = {key.partition(b":")[0].decode() for key in client.scan_iter()}
    assert starts == {"windrow-dev", "windrow-staging", "windrow-prod"}


def test_a_redis_database_that_is_no_number_is_refused_instead_of_read_as_0(servers: dict[str, str]) -> None:
    url = servers["WINDROW_ONLINE"].rpartition("/")[0]
    settings = Settings.read({"WINDROW_ENV": "dev", "WINDROW_ONLINE": f"{url}/{{env}}"})
    with pytest.raises(SettingsError, match="the database in WINDROW_ONLINE is no number"):
        open_online(settings.online)
