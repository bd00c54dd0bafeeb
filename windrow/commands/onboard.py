"""``windrow onboard``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from windrow.commands.screen import command as declare
from windrow.commands.screen import progress, say, show, show_json

if TYPE_CHECKING:
    from windrow.models.release import Release
    from windrow.models.service import PredictionService
    from windrow.settings import Settings

_LOUD = (
    "READ A JOBLIB OR PICKLE FILE: it runs code of whoever wrote it, as you, on this machine. "
    "Only for a file of somebody you trust; a process of its own reads it."
)


@declare("windrow onboard model.onnx --view churn\nwindrow onboard mlruns/1/models/m-7/artifacts --view fraud")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--view", required=True, help="The feature view that the model is given; its service gets the release.")
@click.option("--allow-code-execution", is_flag=True, help=_LOUD)
def command(file: Path, *, view: str, allow_code_execution: bool, as_json: bool) -> None:
    """Make a release of a model that was made elsewhere.

    FILE is a skops, ONNX, XGBoost (JSON) or LightGBM (text) file, or the folder of an MLflow model. Its inputs are
    checked against the view, and the newest test split judges it, gives its golden pairs and proves what it answers.
    """
    from windrow.settings import Settings

    settings = Settings.read()
    service = _serving(view, settings)
    if allow_code_execution:
        click.echo(f"WARNING: {file.name} may run code of whoever wrote it.", err=True)
    with progress(f"onboarding {file.name}"):
        release = _onboarded(file, service, settings, allow_code_execution=allow_code_execution)
    _tell(release, as_json=as_json)


def _serving(view: str, settings: Settings) -> PredictionService:
    from windrow.discover import services
    from windrow.errors import UnknownNameError

    found = {s.view.name: s for s in services(project=settings.project).values()}
    if view not in found:
        raise UnknownNameError("feature view", view, list(found), where="the project")
    return found[view]


def _onboarded(file: Path, service: PredictionService, settings: Settings, *, allow_code_execution: bool) -> Release:
    from windrow.models.onboard import onboard
    from windrow.orchestrate.releases import newest_dataset, registry
    from windrow.orchestrate.resources import Stores

    stores = Stores(settings)
    dataset = newest_dataset(service, stores)
    return onboard(
        file, service, dataset, registry=registry(stores), metadata=stores.metadata,
        allow_code_execution=allow_code_execution,
    )  # fmt: skip


def _tell(release: Release, *, as_json: bool) -> None:
    facts = {
        "release": release.id,
        "service": release.service,
        "from": release.evidence["onboarded"],
        "answers_with": release.backend,
        "gates": "passed" if release.passed else "failed",
        "metrics": release.metrics,
    }
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in release.metrics.items())
    if as_json:
        show_json(facts)
    else:
        show([{**facts, "metrics": metrics}], as_json=False, title="Onboarded")
    for gate in () if release.passed else release.failed(release.created_at):
        say(f"Gate failed: {gate.why}", as_json=as_json, style="yellow")
    sign = "" if release.passed else ' --override "why" --by "your name", or improve it'
    say(f"Next: windrow promote {release.service} {release.id}{sign}", as_json=as_json)
