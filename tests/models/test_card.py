"""The model card: one page that says what a release is, how good, and what not to ask of it."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from tests.models.making import bare_release
from windrow.features.contract import Lookup
from windrow.models.card import card
from windrow.models.release import GateResult, Proven, Release


class _Page(HTMLParser):
    """Collects headings, cells by row, and every address that the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.titles: list[str] = []
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._in = tag
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self._in in ("td", "th"):
            self.rows[-1][-1] += data
        if self._in == "h2":
            self.titles.append(data)


@pytest.fixture(scope="module")
def release() -> Release:
    made = bare_release(gates=[GateResult("auc", 0.9, "at least 0.95", False, "auc is 0.9, the bar is at least 0.95")])
    lookup = Lookup("card_v1", "f", {"card": "card"}, {"a": "a"}, {"a": "float64"}, ttl=86_400_000_000)
    return replace(
        made,
        contract=replace(made.contract, lookups=(lookup,)),
        backends={"onnx": Proven(max_difference={"hostile": 2e-7}, rows_per_second=1_000_000, us_per_row=9.0)},
        evidence={"estimator": "LogisticRegression", "parameters": {"C": "1.0", "note": "<script>alert(1)</script>"}},
    )


@pytest.fixture(scope="module")
def page(release) -> _Page:
    return _Page(card(release))


def test_a_card_tells_what_data_metrics_gates_parity_features_limits_and_environment(page):
    assert page.titles == [
        "What it is", "Data", "How good it is", "Gates", "Ways to answer, each proven equal to the original",
        "Features", "Limits", "Parameters", "Environment",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        ["estimator", "LogisticRegression"],
        ["C", "1.0"],
        ["rows to test", "1"],
        ["auc", "0.9", "0.5"],
        ["auc", "FAILED", "at least 0.95", "auc is 0.9, the bar is at least 0.95"],
        ["onnx", "requests and batches", "2e-07", "1,000,000", "9.0"],
        ["a", "float64", "yes", "card_v1.a"],
        ["b", "float64", "yes", "the request"],
    ],
)
def test_a_card_has_the_row(page, row):
    assert row in page.rows


def test_a_card_names_what_the_model_refuses_and_what_expires(release):
    text = card(release)
    assert "<li>It refuses missing values of a, b, c." in text
    assert "<li>Values of card_v1 older than 1d count as missing." in text
    assert "<li>An entity that was never published is refused." in text


def test_a_card_loads_nothing_and_runs_nothing(release, page):
    text = card(release)
    assert page.addresses == []
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "default-src 'none'" in text


def test_a_card_names_the_best_candidates_of_a_search_and_says_how_many_there_were(release):
    tried = {"candidates": 48, "folds": 5, "best": [{"rank": 1, "mean": 0.9, "parameters": {"C": "0.1", "tol": "1.0"}}]}
    page = _Page(card(replace(release, evidence={"search": tried})))
    assert "Candidates of its search" in page.titles
    assert ["1", "0.9", "C=0.1, tol=1.0"] in page.rows
    assert "48 were tried on 5 folds of the training split; the first won. The best 1 are named here." in card(
        replace(release, evidence={"search": tried})
    )
