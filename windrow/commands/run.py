"""``windrow run``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from windrow.commands.screen import Step, program, progress, say, show, show_json
from windrow.commands.screen import command as declare

if TYPE_CHECKING:
    from windrow.orchestrate.run import RunResult


@declare(
    "windrow run churn\nwindrow run electricity --partitions 2014-12-01..2014-12-30\nwindrow run churn --select 'churn/model'\n"
    "windrow run crypto --follow"
)
@click.argument("service", metavar="SERVICE")
@click.option("--select", multiple=True, help="Asset key or pattern; may be given more than once. Default: all.")
@click.option("--partitions", help="Days to score: A..B, one day, latest or all. Default: latest.")
@click.option("--follow", is_flag=True, help="Make nothing anew: answer on the stream as rows come in, until Ctrl-C.")
def command(service: str, *, select: tuple[str, ...], partitions: str | None, follow: bool, as_json: bool) -> None:
    """Materialise everything of SERVICE: sources, features, training dataset, model, predictions, monitors."""
    if follow:
        _follow(service, as_json=as_json)
        return
    from windrow.orchestrate.run import run_service
    from windrow.settings import Settings

    with progress(f"running {service}") as step:
        done = run_service(
            service, Settings.read(), select=list(select) or None, partitions=partitions, on_step=told(step)
        )
    show_run(done, as_json=as_json)


def _follow(name: str, *, as_json: bool) -> None:
    from windrow.discover import service
    from windrow.orchestrate.follow import Followed, follow
    from windrow.orchestrate.resources import Stores
    from windrow.settings import Settings

    def tell(seen: Followed) -> None:
        newest = max(seen.answers["event_time"].to_pylist()).isoformat()
        facts = {"service": name, "features": seen.features, "answers": seen.answers.num_rows, "newest": newest}
        show_json(facts) if as_json else say(
            f"{newest}  {seen.answers.num_rows} answers, {seen.features} new feature rows"
        )

    settings = Settings.read()
    found = service(name, project=settings.project)
    with suppress(KeyboardInterrupt):
        follow(found, Stores(settings), stop=lambda: False, told=tell)


def told(step: Step) -> Callable[[str, str], None]:
    """Return the callback that shows which asset is being made."""
    return lambda key, state: step(key) if state == "started" else None


def show_run(done: RunResult, *, as_json: bool) -> None:
    """Print what a run made, and which checks failed."""
    rows: list[dict[str, Any]] = [
        {"asset": s.key, "rows": rows_of(s.facts), "partitions": s.partitions or None} for s in done.steps
    ]
    failed = [name for name, passed in done.checks.items() if not passed]
    if as_json:
        facts = [{"asset": s.key, "partitions": s.partitions, "facts": s.facts} for s in done.steps]
        show_json({"service": done.service, "seconds": done.seconds, "steps": facts, "checks": done.checks})
        return
    count = "1 asset" if len(rows) == 1 else f"{len(rows)} assets"
    show(rows, as_json=False, title=f"{done.service}: {count} in {done.seconds:.1f} s")
    for name in failed:
        say(f"Check failed: {name}", style="yellow")
    made = next(
        (s.facts["release"] for s in done.steps if s.key == f"{done.service}/model" and "release" in s.facts), None
    )
    if made is not None:
        say(f"Release {made}. {program()} releases {done.service} says how good it is, and which one answers")


def rows_of(facts: dict[str, Any]) -> int | None:
    """Return how many rows an asset has (or wrote), where it says so."""
    for name in ("dagster/row_count", "dagster/partition_row_count", "rows_current"):
        if isinstance(facts.get(name), int):
            return int(facts[name])
    return None
