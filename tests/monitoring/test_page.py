from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.monitoring.conftest import FIELDS, words
from tests.needs import need
from windrow.features.contract import Frame
from windrow.models.service import Drift
from windrow.monitoring.page import Page, draw
from windrow.monitoring.verdict import compare
from windrow.schema import Field

Draw = Callable[..., Frame]
HOSTILE = "</script><script>document.title='taken'</script>"


def page_of(reference: Frame, current: Frame, fields: tuple[Field, ...] = FIELDS) -> Page:
    return draw("churn: drift", compare(reference, current, fields, Drift()), reference, current)


@pytest.fixture(scope="module")
def page() -> Page:
    from tests.monitoring.conftest import draw_frame

    reference, current = draw_frame(3000, 0), draw_frame(300, 1, shift=1.0)
    reference["<b>"], current["<b>"] = words(["fine"] * 3000), words([HOSTILE] * 300)
    reference["gone"], current["gone"] = np.ones(3000), np.full(300, np.nan)
    reference["prediction"], current["prediction"] = np.linspace(0, 1, 700), np.linspace(0, 1, 300)
    more = (Field("<b>", "string"), Field("gone", "int64"), Field("prediction", "float64"))
    return page_of(reference, current, (*FIELDS, *more))


def test_evidently_draws_each_column_with_the_distance_of_the_verdict(page: Page) -> None:
    assert page.note == ""
    drawn = re.findall(r"Drift in column '(\w+)'", page.html)
    assert drawn == ["load", "amount", "flag", "count", "plan", "city", "prediction"]
    assert page.html.count("Data drift detected") == 3  # load, amount and the hostile text


def test_the_page_forbids_every_load_from_elsewhere(page: Page) -> None:
    assert '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';' in page.html
    assert re.findall(r"<(?:link|iframe|img|object|embed)\b[^>]*(?:src|href)=", page.html[:120_000]) == []
    assert re.findall(r"<script[^>]+src=", page.html) == []
    assert "cdn.plot.ly" not in page.html


def test_text_from_requests_cannot_become_script(page: Page) -> None:
    assert "<script>document" not in page.html
    assert "‹/script›‹script›document" in page.html or "\\u2039/script\\u203a\\u2039script" in page.html
    assert "&lt;b&gt;" in page.html


def test_the_table_shows_each_verdict_even_where_nothing_can_be_drawn(page: Page) -> None:
    assert "<td>gone</td><td><b>missing</b></td><td></td><td>0.0%, 100.0%</td>" in page.html


def test_a_page_weighs_about_four_megabytes(page: Page) -> None:
    assert 3_000_000 < len(page.html.encode()) < 6_000_000


def test_telemetry_is_off_when_evidently_is_in_use(page: Page) -> None:
    from evidently.telemetry import event_logger

    assert os.environ["DO_NOT_TRACK"] == "1"
    assert not event_logger.is_enabled()


@pytest.mark.parametrize(
    "window",
    [
        pytest.param(np.full(300, 7.0, "float32"), id="constant"),
        pytest.param(1e8 + np.arange(300, dtype="float32") / 8, id="closer than float32"),
        pytest.param(np.array([-3e38, 3e38] * 150, "float32"), id="whole range of float32"),
        pytest.param(np.where(np.arange(300) < 20, np.inf, 1.0), id="some infinite"),
        pytest.param(np.full(300, 1e-45, "float32"), id="subnormal"),
    ],
)
def test_odd_numbers_are_drawn(window: np.ndarray) -> None:
    assert page_of({"x": np.arange(3000.0)}, {"x": window}, (Field("x", "float64"),)).note == ""


@pytest.mark.parametrize(
    "window",
    [
        pytest.param(["", " ", "\n"] * 100, id="blank"),
        pytest.param(["<NA>", "nan", "None"] * 100, id="named like missing"),
        pytest.param(["1", "2", "3"] * 100, id="digits"),
        pytest.param(["\u202e", "\x00", "\U0001f4a9"] * 100, id="odd characters"),
        pytest.param([f"word {i} " * 40 for i in range(300)], id="long and all different"),
    ],
)
def test_odd_words_are_drawn(window: list[str]) -> None:
    assert page_of({"x": words(["a", None] * 300)}, {"x": words(window)}, (Field("x", "string"),)).note == ""


def test_without_anything_to_draw_evidently_is_not_even_imported() -> None:
    code = (
        "import sys, numpy as np; from windrow.models.service import Drift; from windrow.schema import Field\n"
        "from windrow.monitoring import drift, page, verdict, windows\n"
        "found = verdict.compare({'x': np.ones(9)}, {'x': np.ones(3)}, [Field('x', 'int64')], Drift())\n"
        "html = page.draw('t', found, {'x': np.ones(9)}, {'x': np.ones(3)}).html\n"
        "print('too few rows' in html, sorted({'evidently', 'pandas', 'sklearn', 'dagster', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "True []"


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_a_browser_draws_the_page_under_its_policy(page: Page, tmp_path: Path) -> None:
    (tmp_path / "drift.html").write_text(page.html, encoding="utf-8")
    command = [str(need("chromium")), "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "drift.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "<title>churn: drift</title>" in done.stdout
    assert done.stdout.count('class="js-plotly-plot"') + done.stdout.count("js-plotly-plot") >= 8
