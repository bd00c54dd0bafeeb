"""``windrow experiment``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show, show_json

if TYPE_CHECKING:
    from windrow.models.experiment import Experiment
    from windrow.models.experiments import Experiments
    from windrow.models.performance import Performance

T = TypeVar("T")
_EXAMPLES = """windrow experiment start fraud trial --arm new=fraud-4-81d0aa:0.1 --unit card_id --holdout 0.05
windrow experiment weights fraud trial --arm new=0.3
windrow experiment report fraud trial
windrow experiment stop fraud trial --reason "new is better"
windrow experiment list"""


@click.group(
    epilog="\b\nExample:\n" + "\n".join(f"  {line}" for line in _EXAMPLES.splitlines()),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """Let other releases answer a share of a service's requests, and see what comes of it.

    Workers follow within a second, without a restart. Golden is the live release, always there, and follows every
    promotion. Every part takes --json.
    """


@declare(
    "windrow experiment start fraud trial --arm new=fraud-4-81d0aa:0.1 --unit card_id\n"
    "windrow experiment start fraud watch --shadow fraud-4-81d0aa --layer watching"
)
@click.argument("service", metavar="SERVICE")
@click.argument("name", metavar="NAME")
@click.option(
    "--arm", "arms", multiple=True, metavar="ARM=RELEASE:WEIGHT", help="A challenger; golden has what is left."
)
@click.option("--shadow", "shadows", multiple=True, metavar="RELEASE", help="Asked the same, heard by the log only.")
@click.option(
    "--unit", default="request", show_default=True, metavar="KEYS", help="What keeps its arm: key[,key] or request."
)
@click.option("--holdout", default=0.0, show_default=True, metavar="SHARE", help="Units that golden always answers.")
@click.option(
    "--share", default=1.0, show_default=True, metavar="SHARE", help="Of the layer's units, for this experiment."
)
@click.option(
    "--layer", default="main", show_default=True, metavar="LAYER", help="Experiments of one layer never meet."
)
@click.option(
    "--reward",
    type=click.Choice(["correct", "outcome"]),
    default="correct",
    show_default=True,
    help="What --thompson learns from.",
)
@click.option("--reason", default="", help="Why, for whoever reads the history.")
def _start(service: str, name: str, *, as_json: bool, **options: Any) -> None:
    """Start experiment NAME on SERVICE.

    Refused where a release is unknown, does not take the live one's requests, or is the same model as another arm.
    """
    from windrow.models.experiment import Experiment, weighed

    challengers = _each(map(_challenger, options.pop("arms")))
    unit = tuple(part.strip() for part in options.pop("unit").split(","))
    plan = Experiment(service=service, name=name, arms=weighed(challengers), unit=unit, **options)
    with progress(f"starting {name}"):
        started = _experiments().start(plan)
    _told(started, f"{name} has begun: {_arms(started)}.", as_json=as_json)


@declare("windrow experiment weights fraud trial --arm new=0.3\nwindrow experiment weights fraud trial --thompson")
@click.argument("service", metavar="SERVICE")
@click.argument("name", metavar="NAME")
@click.option(
    "--arm", "arms", multiple=True, metavar="ARM=WEIGHT", help="Golden has what is left where it is not named."
)
@click.option(
    "--thompson", is_flag=True, help="Each arm's chance to be the best, by its matured rewards; run it again and again."
)
@click.option(
    "--floor", type=float, metavar="SHARE", help="With --thompson: the least weight of an arm (default: 0.02)."
)
@click.option("--reason", help="Why, for whoever reads the history.")
@click.pass_context
def _weights(
    ctx: click.Context,
    service: str,
    name: str,
    *,
    arms: Sequence[str],
    thompson: bool,
    floor: float | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """Give the arms of NAME other weights; a unit moves only to an arm whose weight grew by a larger factor."""
    if thompson == bool(arms):
        raise click.UsageError("give --arm ARM=WEIGHT, or --thompson, and not both", ctx)
    if floor is not None and not thompson:
        raise click.UsageError("--floor says how little --thompson may give: give both", ctx)
    experiments = _experiments()
    with progress("weighing"):
        chosen = _learned(experiments.experiment(service, name), floor) if thompson else _each(map(_weight, arms))
        why = reason or ("Thompson sampling" if thompson else "by hand")
        changed = experiments.reweigh(service, name, chosen, reason=why)
    _told(changed, f"{name} goes on: {_arms(changed)}.", as_json=as_json)


@declare('windrow experiment stop fraud trial --reason "new is better"')
@click.argument("service", metavar="SERVICE")
@click.argument("name", metavar="NAME")
@click.option("--reason", default="by hand", show_default=True, help="Why, for whoever reads the history.")
def _stop(service: str, name: str, *, reason: str, as_json: bool) -> None:
    """Stop NAME: the live release answers all its units again."""
    stopped = _experiments().stop(service, name, reason=reason)
    _told(stopped, f"{name} has ended.", as_json=as_json)


@declare("windrow experiment list\nwindrow experiment list fraud")
@click.argument("service", metavar="[SERVICE]", required=False)
def _list(service: str | None, *, as_json: bool) -> None:
    """List experiments, the running ones and the stopped ones, in the order in which they were started."""
    experiments = _experiments()
    rows = [_row(one) for one in (experiments.list() if service is None else experiments.of_service(service))]
    show(
        rows, as_json=as_json, title="Experiments", empty="None yet. Next: windrow experiment start SERVICE NAME --help"
    )


@declare("windrow experiment report fraud trial")
@click.argument("service", metavar="SERVICE")
@click.argument("name", metavar="NAME")
def _report(service: str, name: str, *, as_json: bool) -> None:
    """Show what each arm of NAME has answered, with its metrics on matured outcomes; kept in the metadata store."""
    from windrow.models.performance import as_document

    experiments = _experiments()
    with progress("reading the prediction log"):
        found = _performance(experiments.experiment(service, name))
        document = as_document(found)
        experiments.keep(found.service, found.experiment, document)
    if as_json:
        show_json(document)
        return
    show(
        [_arm_row(arm) for arm in found.arms],
        as_json=False,
        title=f"{name} of {service}",
        empty="Nobody was in it yet.",
    )
    if found.mismatch is not None:
        say(f"  Units were divided as the weights say with p = {found.mismatch.p:.3g}.")
    if found.assigned:
        say(f"  {found.assigned:,} more rows were assigned while another experiment chose who answers.")
    for note in found.notes:
        say(f"  Note: {note}.")


for _part, _name in ((_start, "start"), (_weights, "weights"), (_stop, "stop"), (_report, "report"), (_list, "list")):
    command.add_command(_part, _name)


def _experiments() -> Experiments:
    # Not by way of the declarations: who starts or stops an experiment has no need to wait for them.
    from windrow.models.experiments import Experiments
    from windrow.models.registry import Registry
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    settings = Settings.read()
    metadata = Metadata(settings.metadata)
    return Experiments(metadata, Registry(metadata, settings.folder("releases")))


def _each(given: Iterable[tuple[str, T]]) -> dict[str, T]:
    arms: dict[str, T] = {}
    for name, value in given:
        if name in arms:
            raise click.UsageError(f"--arm {name!r} is given twice: give each arm its own name")
        arms[name] = value
    return arms


def _challenger(text: str) -> tuple[str, tuple[str, float]]:
    name, _, rest = text.partition("=")
    release, colon, weight = rest.rpartition(":")
    if not (name and release and colon):
        raise click.UsageError(f"--arm {text!r} is not ARM=RELEASE:WEIGHT, such as new=fraud-4-81d0aa:0.1")
    return name, (release, _number(weight, text))


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    return name, _number(weight, text)


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"--arm {option!r}: {text!r} is no weight, such as 0.1") from None


def _asked(experiment: Experiment) -> dict[str, Any]:
    """Return what rewards and performances are computed from."""
    from windrow.discover import pick, services
    from windrow.orchestrate.releases import live_bundle
    from windrow.orchestrate.resources import Stores
    from windrow.settings import Settings
    from windrow.stores.engine import engine

    stores = Stores(Settings.read())
    service = pick(services(project=stores.settings.project), experiment.service)
    now, task = stores.now(service.sources), live_bundle(service, stores).release.task
    return {"service": service, "task": task, "log": stores.log, "lake": stores.lake, "con": engine(), "now": now}


def _performance(experiment: Experiment) -> Performance:
    from windrow.models.performance import performance

    return performance(experiment, **_asked(experiment))


def _learned(experiment: Experiment, floor: float | None) -> dict[str, float]:
    from windrow.models.performance import rewards
    from windrow.models.thompson import FLOOR, thompson_weights

    return thompson_weights(rewards(experiment, **_asked(experiment)), floor=FLOOR if floor is None else floor)


def _told(experiment: Experiment, text: str, *, as_json: bool) -> None:
    if as_json:
        show_json(experiment)
    say(text, as_json=as_json)


def _arms(experiment: Experiment) -> str:
    held = f", {experiment.holdout:.3g} held out" if experiment.holdout else ""
    heard = f"; {', '.join(experiment.shadows)} listen" if experiment.shadows else ""
    return ", ".join(f"{arm.name} {arm.weight:.3g}" for arm in experiment.arms) + held + heard


def _row(experiment: Experiment) -> dict[str, Any]:
    from windrow.clock import from_micros

    return {
        "experiment": experiment.name,
        "service": experiment.service,
        "running": experiment.running,
        "arms": _arms(experiment),
        "unit": ", ".join(experiment.unit),
        "layer": experiment.layer,
        "share": experiment.share,
        "started": from_micros(experiment.started_at).isoformat(timespec="seconds"),
        "reason": experiment.reason,
    }


def _arm_row(arm: Any) -> dict[str, Any]:
    metric = next(iter(arm.metrics.items()), None)
    told = "-" if metric is None else f"{metric[0]} {metric[1].value:.4g} ({metric[1].low:.4g} to {metric[1].high:.4g})"
    return {
        "arm": arm.arm,
        "release": arm.release,
        "requests": arm.requests,
        "units": arm.units,
        "matured": arm.matured,
        "metric": told,
        "reward": arm.reward,
        "propensity": arm.propensity,
        "mean output": arm.outputs.mean,
    }
