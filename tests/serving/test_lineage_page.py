"""The page /ui/lineage: the whole lineage in one file that needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.models.lineage_world import GROUPS, SERVICES, fraud, graph, older
from tests.needs import find
from tests.serving import world
from tests.serving.conftest import Caller, eventually
from windrow.errors import RequestError
from windrow.models.graph import Box, Graph, Node, save_graph
from windrow.models.graph_build import write_lineage
from windrow.serving.lineage_page import lineage_page


def data(page: bytes) -> Any:
    found = re.search(rb'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_lineage(SERVICES, GROUPS, tmp_path)
    return tmp_path


def test_the_page_holds_the_whole_graph(home: Path) -> None:
    made = data(lineage_page(home, b""))
    assert (made["service"], made["services"]) == ("", ["fraud", "limits"])
    assert len(made["graph"]["nodes"]) == len(graph().nodes)
    assert len(made["graph"]["edges"]) == len(graph().edges)


def test_the_page_of_one_service_holds_what_it_needs(home: Path) -> None:
    made = data(lineage_page(home, b"service=limits"))
    assert made["service"] == "limits"
    assert {box["key"] for box in made["graph"]["boxes"]} == {
        "sources/payments", "sources/cards", "sources/chargebacks", "features/card_profile_v1",
        "limits/view", "limits/model", "limits/predictions",
    }  # fmt: skip


def test_the_page_asks_nothing_of_anybody(home: Path) -> None:
    page = lineage_page(home, b"").decode()
    assert re.findall(r'(?:src|href)="(?!/"|data:)[^"]*"', page) == []
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[^\s\"']+", page) == []
    assert re.findall(r"@import|url\(|fetch\(|XMLHttpRequest|importScripts", page) == []


def test_names_cannot_leave_the_data_of_the_page(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    save_graph(Graph((Box("b", "source", evil, 0),), (Node("b.x", "column", "b", evil),), ()), tmp_path)
    page = lineage_page(tmp_path, b"")
    assert b"alert(1)</script>" not in page
    assert data(page)["graph"]["nodes"][0]["name"] == evil


def test_before_the_first_graph_the_next_step_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="No lineage was written yet. Next: run `windrow doctor`"):
        lineage_page(tmp_path, b"")


def test_an_unknown_service_offers_the_closest(home: Path) -> None:
    with pytest.raises(RequestError, match="The lineage has no such service. Next: did you mean 'fraud'?"):
        lineage_page(home, b"service=frau")


@pytest.mark.parametrize("query", [b"service=", b"other=1", b"%ff%fe", b"service", b"&&&"])
def test_any_other_query_shows_everything(home: Path, query: bytes) -> None:
    assert data(lineage_page(home, query))["service"] == ""


def test_a_worker_answers_with_the_page(fresh: Caller) -> None:
    write_lineage(SERVICES, GROUPS, fresh.worker.settings.home)
    answer = fresh("GET", "/ui/lineage")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert data(answer.body)["live"] == {}


def test_a_worker_without_a_graph_answers_with_a_problem(fresh: Caller) -> None:
    answer = fresh("GET", "/ui/lineage")
    assert (answer.status, answer.json["type"]) == (404, "urn:windrow:problem:no-lineage")
    assert fresh("POST", "/ui/lineage").status == 405


def test_the_release_that_answers_is_told_and_whether_it_is_of_the_present_declaration(fresh: Caller) -> None:
    write_lineage(SERVICES, GROUPS, fresh.worker.settings.home)
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    assert data(fresh("GET", "/ui/lineage").body)["live"] == {
        "fraud": {"service": "fraud", "release": "fraud-1", "declared": False}
    }


def test_a_view_carries_the_fingerprint_of_its_contract() -> None:
    prints = {box.key: box.fingerprint for box in graph(fraud=older(fraud.view.contract, without="half")).boxes}
    assert prints["fraud/view"] == fraud.view.contract.fingerprint
    assert prints["fraud-1/view"] != prints["fraud/view"]


def _drawn(page: bytes, folder: Path, anchor: str = "") -> str:
    """Return the page as a browser has it once its script has run."""
    (folder / "page.html").write_bytes(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += [
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=3000",
        "--window-size=1400,3000",
        "--dump-dom",
    ]
    address = (folder / "page.html").as_uri() + anchor
    done = subprocess.run(
        [str(find("chromium")), *flags, address], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_a_browser_draws_every_box_and_every_way_that_is_shown(home: Path) -> None:
    drawn = _drawn(lineage_page(home, b""), home)
    made = graph()
    shown = [e for e in made.edges if e.kind in ("value", "window", "filter", "join", "group", "label")]
    assert drawn.count('<section class="box"') == len(made.boxes)
    assert len(re.findall(r'<path d="[^"]+" class="', drawn)) == len(shown)


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_a_link_to_a_column_shows_what_is_up_and_down_stream_of_it(home: Path) -> None:
    drawn = _drawn(lineage_page(home, b""), home, "#features%2Fcard_profile_v1.limit")
    lit = {id: kind for kind, id in re.findall(r'<button class="n \w+ on (\w+)"[^>]*data-id="([^"]+)"', drawn)}
    assert lit == {
        "features/card_profile_v1.limit": "sel",
        "features/card_profile_v1.*": "up", "sources/cards.limit": "up", "sources/cards.closed": "up",
        "features/card_half_v1.half": "down", "fraud/input.half": "down", "fraud/input.distance": "down",
        "limits/input.limit": "down", "fraud/model": "down", "limits/model": "down",
        "fraud/prediction": "down", "limits/prediction": "down",
    }  # fmt: skip
    assert "windrow doctor --without card_profile_v1.limit" in drawn
