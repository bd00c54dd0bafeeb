from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.models.lineage_world import release
from tests.redis_server import redis_server
from windrow.cli import run
from windrow.discover import services
from windrow.doctor import Finding, examine
from windrow.errors import WindrowError
from windrow.models.graph import load_graph
from windrow.models.release import encode_release
from windrow.settings import Settings
from windrow.stores.metadata import Metadata
from windrow.stores.servers import answering

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("WINDROW_PROJECT", str(ROOT))
    return Settings.read()


def _by_part(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.part: finding for finding in findings}


def test_every_part_holds_on_a_new_machine(house: Settings) -> None:
    assert [f for f in examine(house) if not f.holds] == []


def test_what_the_doctor_writes_never_counts(house: Settings) -> None:
    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog

    examine(house)
    assert Lake(house.lake).keys() == []
    assert PredictionLog(house.folder("log"), Lake(house.lake)).table("_doctor").num_rows == 0
    assert Metadata(house.metadata).spans() == {}


def test_examining_twice_works(house: Settings) -> None:
    examine(house)
    assert [f for f in examine(house) if not f.holds] == []


def test_a_home_that_cannot_be_written_is_told_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("WINDROW_HOME", str(tmp_path / "file" / "home"))
    found = _by_part(examine(Settings.read()))["settings"]
    assert not found.holds
    assert "WINDROW_HOME" in found.next_step


@pytest.mark.parametrize(
    ("name", "url", "says"),
    [
        ("STREAMS", "http://127.0.0.1:1/x", "WINDROW_STREAMS is no URL of a Redis server"),
        ("STREAMS", "redis://:hunter2@127.0.0.1:1/0", "the server of WINDROW_STREAMS does not answer"),
        ("STREAMS", "redis://user:hunter2/0", "WINDROW_STREAMS is no URL of a Redis server"),
        ("CACHE", "nope", "WINDROW_CACHE is no URL of a Redis server"),
        ("CACHE", "redis://127.0.0.1/prod", "the database in WINDROW_CACHE is no number"),
        ("SINK_POSTGRES", "postgresql://u:hunter2@127.0.0.1:1/x", "the sink cannot be asked"),
    ],
)
def test_a_server_that_is_named_and_not_there_is_told(name: str, url: str, says: str) -> None:
    with pytest.raises(WindrowError, match=says) as caught:
        answering(Settings.read({f"WINDROW_{name}": url}))
    assert "hunter2" not in str(caught.value)
    assert caught.value.next_step


def test_a_server_that_answers_holds(house: Settings) -> None:
    with redis_server() as server:
        named = {"WINDROW_STREAMS": server.url, "WINDROW_CACHE": server.socket_url + "&namespace=prod"}
        assert answering(Settings.read(named)) == ["WINDROW_STREAMS", "WINDROW_CACHE"]


def test_one_broken_part_does_not_hide_the_others(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDROW_METADATA", "postgresql://nowhere/x")
    found = _by_part(examine(Settings.read()))
    assert not found["metadata"].holds
    assert found["lake"].holds
    assert found["prediction log"].holds


def test_a_project_without_services_fails_at_its_declarations(tmp_path: Path) -> None:
    settings = Settings.read({"WINDROW_HOME": str(tmp_path / "home"), "WINDROW_PROJECT": str(tmp_path)})
    found = _by_part(examine(settings, package="no_assets"))
    assert "There is no package" in found["declarations"].result
    assert found["engine"].holds


def test_the_command_exits_with_1_when_a_part_fails(
    house: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDROW_ONLINE", "carrier-pigeon://coop")
    assert run(["doctor", "--json"]) == 1
    rows = {row["part"]: row["holds"] for row in json.loads(capsys.readouterr().out)}
    assert not rows["online store"]
    assert rows["engine"]


def test_the_doctor_names_everything_that_needs_a_column(house: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--without", "snapshots.tenure_months", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["column"], told["breaks"]) == ("sources/snapshots.tenure_months", [])
    assert {(need["kind"], need["name"]) for need in told["needs"]} == {
        ("feature group", "customer_account_v1"),
        ("check", "assets.churn.checks:CustomerAccount, tenure_months"),
        ("feature", "customer_account_v1.tenure_months"),
        ("feature", "customer_account_v1.new"),
        ("model input", "churn.tenure_months"),
        ("model input", "churn.new"),
        ("view", "churn"),
        ("service", "churn"),
    }


def test_a_column_that_a_live_release_needs_makes_the_exit_code_1(
    house: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    _release_churn(house)
    assert run(["doctor", "--without", "tenure_months"]) == 1
    assert "1 live release breaks: churn-1" in capsys.readouterr().out
    assert run(["doctor", "--without", "snapshots.gender"]) == 0
    assert "No live release breaks." in capsys.readouterr().out


def test_a_column_that_does_not_exist_offers_the_closest(house: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--without", "snapshots.tenure_month"]) == 2
    assert "did you mean 'snapshots.tenure_months'?" in capsys.readouterr().err


def test_the_doctor_writes_the_lineage_that_the_service_shows(house: Settings) -> None:
    examine(house)
    shown = load_graph(house.home)
    assert shown is not None
    assert "churn/input.tenure_months" in {node.id for node in shown.nodes}


READS_THE_FUTURE = """
import numpy as np
import ibis
from windrow import Entity, FeatureView, Label, PredictionService, Source, TimeSplit, feature_group

shop = Entity("shop", shop_id="int64")
sales = Source("sales", event_time="day", columns={"shop_id": "int64", "loaves": "float64"}, simulator="service:rows")

def rows():
    days = np.datetime64("2026-01-01", "us") + np.arange(20) * np.timedelta64(1, "D")
    return {"shop_id": np.repeat(1, 20), "loaves": np.arange(20.0), "day": days}

@feature_group(shop)
def recent(sales):
    by_day = ibis.window(group_by=sales.shop_id, order_by=sales.day)
    return sales.select("shop_id", "loaves", before=sales.loaves.lead().over(by_day))

bakery = PredictionService(
    "bakery", FeatureView("bakery", spine=sales, features=[recent]), Label.value(sales, "loaves", ahead="24h"),
    model=dict, split=TimeSplit(test="10d"),
)
"""


def test_a_group_that_reads_the_future_is_found_on_the_rows_of_the_project(tmp_path: Path) -> None:
    folder = tmp_path / "looks_ahead" / "bakery"
    folder.mkdir(parents=True)
    (folder / "service.py").write_text(READS_THE_FUTURE)
    settings = Settings.read({"WINDROW_HOME": str(tmp_path / "home"), "WINDROW_PROJECT": str(tmp_path)})
    found = _by_part(examine(settings, package="looks_ahead"))["look-ahead"]
    assert not found.holds
    assert "feature 'before' of group 'recent' reads the future: at 2026-01-10T00:00:00+00:00" in found.result


def _release_churn(settings: Settings) -> None:
    """A live release with the contract that the project declares, as far as lineage looks at one."""
    contract = services("assets", project=ROOT)["churn"].view.contract
    metadata = Metadata(settings.metadata)
    metadata.add_release("churn", "churn-1", encode_release(release("churn", contract)))
    metadata.deploy("churn", "churn-1", reason="test", at=0)
    metadata.close()
