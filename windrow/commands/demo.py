"""``windrow demo``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from windrow.commands.rig import show_rig
from windrow.commands.screen import Teller, program, say, show, show_json
from windrow.commands.screen import command as declare

if TYPE_CHECKING:
    from windrow.demo import Result


@declare("windrow demo\nwindrow demo --drift\nwindrow demo --rig fraud --rig loans --seconds 60")
@click.option("--drift", is_flag=True, help="Plant drift in the requests: it must be noticed.")
@click.option(
    "--rig", "rigged", multiple=True, metavar="SERVICE", help="Put SERVICE alone under traffic, with an experiment."
)
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="With --rig: how long, each."
)
@click.pass_context
def command(ctx: click.Context, *, drift: bool, rigged: tuple[str, ...], seconds: float, as_json: bool) -> None:
    """Run every service the whole way round and show what came of it.

    From its sources over features, training dataset, model, release, batch predictions, predictions over HTTP,
    prediction log and outcomes to the drift report. With --rig: a challenger and a shadow beside the live release, the
    simulator's requests and events in their order, explanations, outcomes, and every figure of it. Exits with 0 only
    if all of it holds.
    """
    if rigged:
        if drift:
            raise click.UsageError("give --drift or --rig, and not both", ctx)
        ctx.exit(show_rig(rigged, seconds=seconds, as_json=as_json))
    from windrow.demo import home_of, tell_story
    from windrow.settings import Settings

    settings, begin = home_of(Settings.read(), drift=drift), time.monotonic()
    with Teller(as_json=as_json) as tell:
        results = tell_story(settings, drift=drift, tell=tell)
    problems = [f"{result.service}: {problem}" for result in results for problem in result.problems]
    if as_json:
        rows = [{name: getattr(result, name) for name in result.__struct_fields__} for result in results]
        show_json({"services": rows, "seconds": time.monotonic() - begin, "problems": problems})
    else:
        show(_sideways(results), as_json=False, title=f"All of it, in {time.monotonic() - begin:.0f} s")
        _close(results, problems, drift=drift)
    ctx.exit(1 if problems else 0)


def _sideways(results: list[Result]) -> list[dict[str, Any]]:
    """Return one row per fact and one column per service: it fits a terminal of 80 columns."""
    facts = {result.service: _facts(result) for result in results}
    names = list(next(iter(facts.values()), {}))
    return [{"service": name, **{service: values[name] for service, values in facts.items()}} for name in names]


def _facts(result: Result) -> dict[str, Any]:
    waits = [f"{micros / 1000:.2f}" for micros in (result.p50_us, result.p99_us) if micros is not None]
    return {
        "training rows": f"{result.rows:,}",
        "features": str(result.features),
        "metric": f"{result.metric} {result.value:.4g}",
        "its baseline": "" if result.baseline is None else f"{result.metric} {result.baseline:.4g}",
        "release": result.release,
        "predictions written": f"{result.written:,}",
        "asked over HTTP": f"{result.asked:,}",
        "online p50 / p99": f"{' / '.join(waits)} ms" if waits else "",
        "p99 declared": "" if result.p99_ms is None else f"{result.p99_ms:g} ms",
        "outcomes sent back": f"{result.outcomes:,}",
        "online = offline": f"{result.equal:,} of {result.audited:,} logged vectors" if result.audited else "",
        "drift": result.drift,
    }


def _close(results: list[Result], problems: list[str], *, drift: bool) -> None:
    for result in results:
        if result.outcomes:
            say(
                f"  {result.service}: {result.outcomes:,} outcomes came back; with the logged vectors they are a training dataset of {result.learned:,} rows"
            )
    if drift and not problems:
        say("  The planted drift was noticed in every watched service: its check failed, as it should.", style="green")
    for result in results:
        if result.p99_us and result.p99_ms and result.p99_us > 1000 * result.p99_ms:
            say(
                f"  {result.service}: p99 is above the declared {result.p99_ms:g} ms: look for what else ran on this machine",
                style="yellow",
            )
    for problem in problems:
        say(f"  Does not hold: {problem}", style="red")
    say("")
    say("  make up     Dagster (every asset, with lineage) and the online service, until Ctrl-C")
    say("  make lab    JupyterLab on notebooks/")
    for result in results:
        if result.asked:
            say(f"  {program()} releases {result.service}")
