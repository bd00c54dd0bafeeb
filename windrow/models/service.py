"""The prediction service: one object that names its view, label, model, and how it is served and watched."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from windrow.clock import duration
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.group import FeatureGroup
from windrow.features.kinds import check_kind, check_kinds
from windrow.features.label import Label
from windrow.features.reference import Reference, declaring_package
from windrow.features.source import Source
from windrow.features.view import FeatureView
from windrow.features.view import describe as describe_view
from windrow.models.columns import check_columns
from windrow.models.gate import CLASS_METRICS, GATES, NUMBER_METRICS, AnyGate, check_classes, check_declared
from windrow.models.keys import label_keys
from windrow.models.online import Online, check_online
from windrow.models.precomputed import key_fields
from windrow.models.resources import check_resources
from windrow.models.split import GroupSplit, RandomSplit, Split, StratifiedSplit, TimeSplit, describe_split, group_of
from windrow.schema import EVENT_TIME, check_name, fingerprint

SINKS = ("delta", "duckdb", "postgres")
_CRON = re.compile(r"@(hourly|daily|midnight|weekly|monthly|yearly|annually)|[\dA-Za-z*/,#?-]+( [\dA-Za-z*/,#?-]+){4}")


@dataclass(frozen=True)
class Batch:
    """Score on a schedule and write to sinks.

    Parameters
    ----------
    schedule
        ``@daily``, ``@hourly`` or a cron line.
    sinks
        ``delta`` (a table of the lake), ``duckdb`` (a file replaced at once), and ``postgres`` (a table of
        the database that ``WINDROW_SINK_POSTGRES`` names; where it names none, the run fails).
    optional_sinks
        Written as well where the settings say where they are; else the run says that it left them out, and why.
    rows
        ``day``: every spine row of a day, one partition a day; ``latest``: the newest row of each key.

    Examples
    --------
    >>> Batch("@daily", sinks=["delta"], optional_sinks=["postgres"]).every_sink
    ('delta', 'postgres')
    """

    schedule: str = "@daily"
    sinks: Sequence[str] = ("delta",)
    optional_sinks: Sequence[str] = ()
    rows: Literal["day", "latest"] = "day"

    def __post_init__(self) -> None:
        check_kinds(self.sinks, str, where="sinks= of Batch()", example='"delta"')
        check_kinds(self.optional_sinks, str, where="optional_sinks= of Batch()", example='"postgres"')
        for sink in self.every_sink:
            if sink not in SINKS:
                raise UnknownNameError("sink", sink, SINKS, where="Batch()")
        if self.rows not in ("day", "latest"):
            raise UnknownNameError("choice of rows", self.rows, ["day", "latest"], where="Batch()")
        if not (isinstance(self.schedule, str) and _CRON.fullmatch(self.schedule)):
            raise DeclarationError(
                f"Batch({self.schedule!r}) is no schedule",
                next_step='write "@daily", "@hourly" or a cron line such as "30 6 * * *" (minute hour day month weekday)',
            )

    @property
    def every_sink(self) -> tuple[str, ...]:
        """The names of all of them, the optional ones last."""
        return (*self.sinks, *self.optional_sinks)


@dataclass(frozen=True)
class Stream:
    """Score each spine row once, as soon as it is due, and append the answer to the table ``stream/<service>``.

    A row of a clock is due when a feature group of its view has a new event for its key.

    Parameters
    ----------
    lookback
        How far back rows are looked for that were not there when their time came, such as ``"1h"``.

    Examples
    --------
    >>> Stream().lookback
    '1h'
    """

    lookback: str = "1h"

    def __post_init__(self) -> None:
        if duration(self.lookback, where="lookback= of Stream()") <= 0:
            raise DeclarationError(
                f"Stream(lookback={self.lookback!r}) looks for nothing", next_step='give a time, such as "1h"'
            )


@dataclass(frozen=True)
class Drift:
    """Watch the log's newest `window` of vectors against the training data.

    A feature drifted if it is further from the training data than `effect`, than chance explains, and
    than any equally long time of the training data was from the rest of it (so seasons are no drift).

    Parameters
    ----------
    window
        How far back from now.
    effect
        The distance from which a feature counts as drifted (Jensen-Shannon distance with the natural
        logarithm: 0 for the same distribution, 0.83 for no overlap at all).
    min_rows
        With fewer rows the verdict is "too few rows", never "drift".
    name
        Its asset is ``<service>/monitoring/<name>``.
    ignore
        Features not to judge, such as those that never repeat.

    Examples
    --------
    >>> Drift(window="7d", ignore=["order_number"]).ignore
    ('order_number',)
    """

    window: str = "30d"
    effect: float = 0.2
    min_rows: int = 200
    name: str = "drift"
    ignore: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_name("monitor", self.name)
        if duration(self.window, where="window= of Drift()") <= 0:
            raise DeclarationError(
                f"Drift(window={self.window!r}) holds nothing", next_step='give a time, such as "30d"'
            )
        if not 0 < self.effect < 0.83:
            raise DeclarationError(
                f"Drift(effect={self.effect}) is never or always exceeded",
                next_step="give a distance between 0 and 0.83, such as 0.2",
            )
        if self.min_rows < 1:
            raise DeclarationError(
                f"Drift(min_rows={self.min_rows}) judges nothing", next_step="give a number of rows, such as 200"
            )
        if isinstance(self.ignore, str):
            raise DeclarationError(
                f"Drift(ignore={self.ignore!r}) is one text", next_step=f"write ignore=[{self.ignore!r}]"
            )
        object.__setattr__(self, "ignore", tuple(self.ignore))


@dataclass(frozen=True)
class Notebook:
    """A notebook of the project's ``notebooks/`` folder that trains the model.

    Examples
    --------
    >>> Notebook("train_electricity.ipynb").stem
    'train_electricity'
    """

    file: str

    def __str__(self) -> str:
        return self.file

    @property
    def stem(self) -> str:
        """File name without ending."""
        return Path(self.file).stem


@dataclass(frozen=True, eq=False, init=False)
class PredictionService:
    """One named prediction service: listed, tested, versioned and compared as one thing.

    Parameters
    ----------
    name
        Lower snake case; its HTTP path and asset prefix.
    view, label
        What is known, and what is asked.
    model
        ``"train:model"``, a function that returns an *unfitted* estimator or search (windrow fits it, on
        the training split only), or a `Notebook`.
    train
        Instead of `model`: ``"train:fit"``, a function ``fit(train)`` or ``fit(train, validation)`` that
        is given these splits and nothing else, each with ``.X``, ``.y`` and ``.rows``, and returns a
        *fitted* estimator.
    split
        `TimeSplit`, `RandomSplit`, `StratifiedSplit` or `GroupSplit`.
    baseline
        The feature whose value is the naive prediction; default: the training label's mean.
    gates
        Bars for the candidate.
    online, batch, stream
        How it is served; leave out what is not wanted.
    monitors
        What is watched.
    resources
        What training needs: ``cpu``, ``gpu``, ``memory`` and ``queue``, such as
        ``{"gpu": 1, "memory": "8Gi"}``; passed on to Dagster's launchers as tags.

    Raises
    ------
    DeclarationError
        For anything that cannot work on any machine, with the name of the thing and the next step.
    """

    name: str
    view: FeatureView
    label: Label
    model: Reference | Notebook | None
    train: Reference | None
    split: Split
    baseline: str | None
    gates: tuple[AnyGate, ...]
    online: Online | None
    batch: Batch | None
    stream: Stream | None
    monitors: tuple[Drift, ...]
    resources: Mapping[str, int | float | str]
    owner: str | None
    description: str

    def __init__(
        self,
        name: str,
        view: FeatureView,
        label: Label,
        *,
        split: Split,
        model: str | Callable[[], Any] | Notebook | None = None,
        train: str | Callable[..., Any] | None = None,
        baseline: str | None = None,
        gates: Sequence[AnyGate] = (),
        online: Online | None = None,
        batch: Batch | None = None,
        stream: Stream | None = None,
        monitors: Sequence[Drift] = (),
        resources: Mapping[str, int | float | str] | None = None,
        owner: str | None = None,
        description: str = "",
    ) -> None:
        values: dict[str, Any] = {"name": check_name("service", name), "view": view, "label": label, "split": split}
        if (model is None) == (train is None):
            raise DeclarationError(
                f"service {name!r} has {'no trainer' if model is None else 'both model= and train='}",
                next_step='write model="train:model" (an unfitted estimator), or train="train:fit" (data in, fitted out)',
            )
        package = declaring_package()
        values["model"] = model if isinstance(model, Notebook | None) else Reference.to(model, package)
        values["train"] = None if train is None else Reference.to(train, package)
        _check_kinds(
            f"service {name!r}",
            {**values, "baseline": baseline, "gates": gates, "online": online, "batch": batch, "stream": stream,
             "monitors": monitors},
        )  # fmt: skip
        values |= {"baseline": baseline, "gates": tuple(gates), "online": online, "batch": batch, "stream": stream}
        values |= {"monitors": tuple(monitors), "owner": owner, "description": description}
        values["resources"] = check_resources(resources or {}, where=f"service {name!r}")
        for key, value in values.items():
            object.__setattr__(self, key, value)
        _check(self)

    @property
    def trainer(self) -> Reference | Notebook:
        """What makes its model: `model`, or `train`."""
        found = self.model or self.train
        assert found is not None  # one of both is given
        return found

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are computed for it."""
        return CLASS_METRICS if self.label.binary or self.label.multiclass else NUMBER_METRICS

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every source it depends on, directly or through groups, each once."""
        spine = (self.view.spine,) if isinstance(self.view.spine, Source) else ()
        read = [s for group in self.view.groups for s in _sources(group)]
        told = [self.label.source] if isinstance(self.label.source, Source) else _sources(self.label.source)
        return tuple(dict.fromkeys((*spine, *read, *told)))

    @property
    def groups(self) -> tuple[FeatureGroup, ...]:
        """The feature groups that it reads itself, its label's included, each once."""
        told = (self.label.source,) if isinstance(self.label.source, FeatureGroup) else ()
        return tuple(dict.fromkeys((*self.view.groups, *told)))

    def describe(self) -> dict[str, Any]:
        """The declaration as JSON-like facts, for `windrow diff`."""
        groups = {
            g.table_name: {**g.describe(), "inputs": sorted(i.key for i in g.inputs.values())} for g in self.groups
        }
        return {
            "view": describe_view(self.view),
            "groups": groups,
            "sources": {s.name: s.describe() for s in self.sources},
            "label": self.label.describe(),
            "model": str(self.trainer),
            "split": describe_split(self.split),
            "baseline": self.baseline,
            "gates": [{"kind": type(g).__name__, **asdict(g)} for g in self.gates],
            "online": asdict(self.online) if self.online else None,
            "batch": asdict(self.batch) if self.batch else None,
            "stream": asdict(self.stream) if self.stream else None,
            "monitors": [asdict(m) for m in self.monitors],
        }

    @property
    def fingerprint(self) -> str:
        """Changes when any part of the declaration changes."""
        return fingerprint([self.describe(), self.view.fingerprint])

    def _repr_html_(self) -> str:
        from windrow.html import service_card

        return service_card(self)

    def trainer_path(self, notebooks: Path) -> Path:
        """Return the file that trains the model; notebooks are found in the folder `notebooks`."""
        return notebooks / self.trainer.file if isinstance(self.trainer, Notebook) else self.trainer.source_path()

    def check_trainer(self, notebooks: Path) -> None:
        """Raise if the trainer is missing or asks for a column that the view does not have."""
        path = self.trainer_path(notebooks)
        if not path.is_file():
            raise DeclarationError(
                f"service {self.name!r}: its trainer {path.name!r} does not exist",
                next_step=f"create it in {path.parent.name}/",
            )
        check_columns(path, list(self.view.contract.feature_names), service=self.name)


def _sources(group: Any) -> list[Source]:
    found: list[Source] = []
    for item in group.inputs.values():
        found += [item] if isinstance(item, Source) else _sources(item)
    return found


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "view": ((FeatureView,), 'FeatureView("name", spine=..., features=[...])'),
    "label": ((Label,), "Label.value(...) or another way to make a Label"),
    "split": ((TimeSplit, RandomSplit, StratifiedSplit, GroupSplit), 'TimeSplit(test="60d") or RandomSplit(test=0.25)'),
    "baseline": ((str, type(None)), 'the name of a feature, such as baseline="demand_7d"'),
    "online": ((Online, type(None)), "Online(p99_ms=20), or leave it out"),
    "batch": ((Batch, type(None)), 'Batch("@daily"), or leave it out'),
    "stream": ((Stream, type(None)), "Stream(), or leave it out"),
}
_LISTS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "gates": (GATES, 'Gate("mae", of_baseline=0.9)'),
    "monitors": (Drift, 'Drift(window="30d")'),
}


def _check_kinds(where: str, given: Mapping[str, Any]) -> None:
    for name, (kinds, example) in _KINDS.items():
        check_kind(given[name], kinds, where=f"{name}= of {where}", example=example)
    for name, (kind, example) in _LISTS.items():
        check_kinds(given[name], kind, where=f"{name}= of {where}", example=example)


def _check(service: PredictionService) -> None:
    where, names = f"service {service.name!r}", list(service.view.contract.feature_names)
    if service.baseline is not None and service.baseline not in names:
        raise UnknownNameError("baseline feature", service.baseline, names, where=where)
    if service.baseline is not None and service.label.multiclass:
        raise DeclarationError(
            f"the baseline of {where} is one feature, but its label has {len(service.label.classes)} classes",
            next_step="leave baseline= out: the classes' shares in training are the baseline then",
        )
    spine = [f.name for f in service.view.spine.spine_fields]
    columns, online = list(dict.fromkeys((*spine, *names))), service.online is not None
    check_declared(service.gates, where, metrics=service.metrics, columns=columns, online=online)
    check_classes(service.gates, where, classes=service.label.classes)
    if service.label.on and service.label.on not in spine:
        raise UnknownNameError("label key", service.label.on, spine, where=f"the spine of {where}")
    _check_split(service, where=where)
    label_keys(service)
    if service.online is not None:
        check_online(service.online, service.label, service.view, where=where)
        for name in service.online.immutable:
            if name not in names:
                raise UnknownNameError("immutable feature", name, names, where=where)
        offline = [g.name for g in service.view.groups if not g.online]
        if offline:
            raise DeclarationError(
                f"{where} is online, but group {offline[0]!r} is not",
                next_step="set online=True on the group, or leave online= out of the service",
            )
        _check_precomputed(service, where=where)
    _check_monitors(service, names, where=where)


def _check_precomputed(service: PredictionService, *, where: str) -> None:
    if service.online is None or service.online.precomputed is None:
        return
    if service.batch is None:
        raise DeclarationError(
            f"{where} answers with precomputed predictions, but nothing makes them",
            next_step='add batch=Batch("@daily"), or leave precomputed= out of Online()',
        )
    key_fields(service.view.contract)


def _check_split(service: PredictionService, *, where: str) -> None:
    group, fields = group_of(service.split), [f.name for f in service.view.spine.spine_fields if f.name != EVENT_TIME]
    if group is not None and group not in fields:
        raise UnknownNameError("group of the split", group, fields, where=f"the spine of {where}")


def _check_monitors(service: PredictionService, features: list[str], *, where: str) -> None:
    seen: set[str] = set()
    for monitor in service.monitors:
        if monitor.name in seen:
            raise DeclarationError(
                f"{where} has two monitors called {monitor.name!r}", next_step='tell them apart: Drift(name="...")'
            )
        seen.add(monitor.name)
        for feature in monitor.ignore:
            if feature not in features:
                raise UnknownNameError(
                    "feature", feature, features, where=f"the view of {where} (ignored by monitor {monitor.name!r})"
                )
