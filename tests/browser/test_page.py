"""The page of a service in a real Chromium, over the real BentoML process, by keyboard alone.

Pictures of what was seen stay in the tests' folders (`--basetemp`), to be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chrome import Tab, browser
from tests.conftest import ROOT
from tests.serving import world
from windrow.serving.keys import make_key
from windrow.serving.run import start
from windrow.settings import Settings
from windrow.stores.metadata import Metadata

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium"), pytest.mark.xdist_group("bento")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where the service is, and a key for the page."""
    folder = tmp_path_factory.mktemp("page")
    settings = Settings.read(
        {"WINDROW_HOME": str(folder / "home"), "WINDROW_DATA": str(folder), "WINDROW_PROJECT": str(ROOT)}
    )
    world.publish(settings)
    world.release_explained(settings)
    metadata = Metadata(settings.metadata)
    _, key = make_key(metadata, "a person", scopes=["metrics", "predict", "explain"])
    metadata.close()
    with start(settings) as running:
        yield running.url, key


@pytest.fixture
def tab(served: tuple[str, str], tmp_path: Path) -> Iterator[Tab]:
    """A browser that has just been signed in, at the page of fraud."""
    url, key = served
    with browser(tmp_path) as made:
        made.size(1280, 900)
        made.open(f"{url}/ui/fraud")
        assert made.focus == "key"
        made.write(key)
        made.press("Enter")
        made.until(lambda: made.shows("Try a prediction"))
        yield made


def test_a_person_signs_in_predicts_by_keyboard_sees_why_and_finds_it_among_the_latest(
    tab: Tab, served: tuple[str, str], tmp_path: Path
) -> None:
    tab.press("Tab")
    assert tab.focus == "Skip to the content"
    for name, text in (("v.card_id", "1"), ("v.amount", "12.5"), ("v.x", "4")):
        tab.tab_to(name)
        tab.write(text)
    tab.tab_to("Predict")
    tab.press("Enter")
    tab.until(lambda: tab.shows("amount = 12.5"))  # by itself, once the explanation is there
    output = 1 / (1 + 2.718281828459045 ** -(0.001 * 500 + 0.01 * 12.5 + 0.1 * 2.5 - 1))
    assert tab.say("document.querySelector('.big').innerText") == f"{output:.1%}"
    assert tab.say("document.querySelectorAll('.why svg rect').length") == 3
    assert tab.say("document.querySelector('#latest').parentElement.querySelector('tbody tr').innerText").split()[1:4] == ["card_id=1", f"{output:.1%}", "fraud-1"]  # fmt: skip
    tab.tab_to("As a table")
    tab.press("Enter")
    tab.until(lambda: tab.shows("+0.") and tab.shows("adds"))
    tab.tab_to("Rule")
    tab.press("Enter")
    tab.until(lambda: tab.shows("precision"))
    tab.picture(tmp_path / "prediction.png")
    assert tab.complaints == []
    assert [address for address in tab.asked if not address.startswith((served[0], "data:"))] == []


def test_a_bad_value_shows_its_message_and_gets_the_focus(tab: Tab, tmp_path: Path) -> None:
    for name, text in (("v.card_id", "1"), ("v.amount", "twelve"), ("v.x", "4")):
        tab.tab_to(name)
        tab.write(text)
    tab.press("Enter")
    tab.until(lambda: tab.shows("Field 'amount' is not a number: send a number."))
    assert (tab.focus, tab.say("document.activeElement.value")) == ("v.amount", "twelve")
    tab.picture(tmp_path / "mistake.png")
    # The browser itself notes that the answer was a refusal; the page adds nothing to that.
    assert [c for c in tab.complaints if "status of 422" not in c] == []
    tab.say("document.activeElement.select()")
    tab.write("20")
    tab.press("Enter")
    tab.until(lambda: tab.say("document.querySelector('.big') !== null"))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False), (360, True)])
def test_the_page_fits_its_screen_and_can_be_read_in_light_and_dark(
    tab: Tab, tmp_path: Path, width: int, dark: bool
) -> None:
    tab.size(width, 800, dark=dark)
    assert tab.say("document.documentElement.scrollWidth") <= width
    for part in ("body", ".lead", ".hint", "a[href^='/ui/releases']", "button.main"):
        assert tab.say(CONTRAST.replace("PART", part)) >= 4.5, part
    tab.picture(tmp_path / "page.png")


CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 })
    return 0.2126 * r + 0.7152 * g + 0.0722 * b }
  const numbers = c => c.match(/[0-9.]+/g).map(Number)
  const one = document.querySelector("PART")
  let under = one
  while (numbers(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement
  const [a, b] = [getComputedStyle(one).color, getComputedStyle(under).backgroundColor].map(c => light(numbers(c).slice(0, 3)))
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
})()"""
"""The contrast of the text of a part with what is behind it, as WCAG 2.2 defines it."""
