"""What ``windrow demo --rig`` shows: one table for each service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windrow.commands.screen import Teller, say, show, show_json

if TYPE_CHECKING:
    from windrow.rig import ArmResult, RigResult


def show_rig(names: Sequence[str], *, seconds: float, as_json: bool) -> int:
    """Put services under traffic and show every figure; return the exit code."""
    from windrow.rig import rig_home, run_rig
    from windrow.settings import Settings

    settings, teller = Settings.read(), Teller(as_json=as_json)
    with teller as tell:
        results = run_rig(settings, names, seconds=seconds, tell=tell, step=teller.advance)
    problems = [f"{result.service}: {problem}" for result in results for problem in result.problems]
    if as_json:
        show_json({"services": results, "problems": problems})
    else:
        for result in results:
            _show(result)
        say(f"  All of it is kept in {rig_home(settings)} until the next time: set WINDROW_HOME to it, and look around")
        for problem in problems:
            say(f"  Does not hold: {problem}", style="red")
    return 1 if problems else 0


def _show(result: RigResult) -> None:
    rows = [{result.service: name, "figure": value} for name, value in _figures(result).items()]
    show(rows, as_json=False, title=f"{result.service}, {result.seconds:.0f} s of its simulator's traffic")
    if result.p99_us and result.p99_us > 1000 * result.p99_ms:
        text = f"  {result.service}: p99 is above the declared {result.p99_ms:g} ms: look for what else ran on this machine"
        say(text, style="yellow")


def _figures(result: RigResult) -> dict[str, str]:
    waits = [f"{micros / 1000:.2f}" for micros in (result.p50_us, result.p99_us) if micros is not None]
    return {
        "requests": f"{result.asked:,} ({result.asked / result.seconds:.0f}/s), {result.errors:,} errors",
        "p50 / p99": f"{' / '.join(waits)} ms, declared {result.p99_ms:g} ms" if waits else "",
        "events sent": f"{result.events:,}",
        "in the log": f"{result.logged:,}",
        "outcomes": f"{result.outcomes:,}",
        **{f"arm {arm.arm}": _arm(arm) for arm in result.arms},
        "division": "too few units to tell"
        if result.division is None
        else f"as the weights say, p = {result.division:.3g}",
        "shadow": _shadow(result),
        "explanations": f"{result.explained:,}, {result.tickets:,} of them by a ticket",
        "from the cache": "off" if result.cached is None else f"{result.cached:,}",
        "degraded": f"{result.degraded:,} rows; {result.fallbacks:,} answered by another",
        "online = offline": f"{result.equal:,} of {result.audited:,} logged vectors",
        "drift": ", ".join(result.drifted) or (f"none in {result.judged} columns" if result.judged else "too few rows"),
    }


def _arm(arm: ArmResult) -> str:
    metric = "" if arm.value is None else f"; {arm.metric} {arm.value:.4g} ({arm.low:.4g} to {arm.high:.4g})"
    return f"{arm.release}: {arm.requests:,} requests, {arm.matured:,} with an outcome{metric}"


def _shadow(result: RigResult) -> str:
    if result.agreement is None or result.distance is None:
        return "was not heard"
    return f"decides as the answer on {result.agreement:.2%}, mean distance {result.distance:.3g}"
