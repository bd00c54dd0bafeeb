"""How soon a promotion or a rollback is in effect while 500 requests a second go on, and what became of them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.harness import Row
from tests.laws import promotion
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
RATE = 500


def rows() -> list[Row]:
    """Change the release twenty times under load, and judge every answer."""
    with TemporaryDirectory() as folder:
        settings = Settings.read({"WINDROW_HOME": folder, "WINDROW_PROJECT": str(ROOT)})
        promotion.prepare(settings)
        key = local_key(settings)
        with start(settings) as running, promotion.Clients(running.url, key, RATE) as clients:
            changes = promotion.change_releases(settings, clients)
        found = promotion.judge(settings, clients.all(), changes)
    slowest, wrong = max(found.in_effect), len(found.failed) + len(found.mixed)
    typical = sorted(found.in_effect)[len(found.in_effect) // 2]
    note = (
        f"median {typical * 1000:.0f} ms; {found.answers:,} answers at {found.per_second:.0f}/s, "
        f"{len(found.failed)} failed, {len(found.mixed)} mixed; each recomputed from its release and its logged vector"
    )
    return [
        Row(
            name="promotion or rollback in effect under 500 requests/s, slowest of 20",
            value=slowest, unit="s", bar="< 1 s, none failed or mixed", holds=slowest < 1 and wrong == 0, note=note,
        )
    ]  # fmt: skip


if __name__ == "__main__":
    for row in rows():
        print(row.name, round(row.value, 4), row.unit, row.bar, row.holds, row.note)
