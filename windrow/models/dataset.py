"""Training datasets: for every spine row what was known at its time, and what came of it.

A dataset is a Parquet file with a content hash. The same rows give the same hash and the same id,
however the tables that they came from were written.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.clock import duration
from windrow.errors import DataError, DeclarationError, ModelError, NotFoundError, StoreError, listed
from windrow.features.arrow import to_numpy, to_pandas
from windrow.features.contract import Contract, Frame, canonical
from windrow.models.content import content_hash
from windrow.models.labels import IMMATURE, KNOWN, LABEL, STATE, UNKNOWN, label_rows
from windrow.models.service import PredictionService
from windrow.models.spine import spine_rows
from windrow.models.split import RandomSplit, TimeSplit
from windrow.models.split import Split as DeclaredSplit
from windrow.models.splits import GAP, SPLITS, assign
from windrow.models.statistics import SplitStatistics, statistics_of
from windrow.schema import EVENT_TIME, Status, fingerprint
from windrow.stores.tables import lake_key

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog
    from windrow.stores.metadata import Metadata

SPLIT = "split"
BARE = "without features"


class TrainingDataset(msgspec.Struct, frozen=True, kw_only=True):
    """A built training dataset: what it holds, where it is, and how to prove that it is the same.

    Attributes
    ----------
    rows
        Rows in a split; `excluded` counts the others by reason.
    features
        Names of the model's inputs, in the view's order.
    splits, split
        Rows by split, and how they were split.
    content_hash
        SHA-256 of the rows' values in their canonical order.
    seq
        Only rows written up to this ``_seq`` were read.
    now
        The clock's now at building time, UTC microseconds.
    kind
        ``view``: the past recomputed; ``log``: the vectors that were served.
    path
        The Parquet file.
    statistics
        What each split holds; empty for a dataset of an older windrow.
    """

    id: str
    service: str
    rows: int
    features: list[str]
    excluded: dict[str, int]
    splits: dict[str, int]
    split: str
    content_hash: str
    seq: int
    now: int
    view_fingerprint: str
    kind: Literal["view", "log"]
    path: str
    statistics: dict[str, SplitStatistics] = {}

    def _repr_html_(self) -> str:
        from windrow.html import dataset_card

        return dataset_card(self)


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a dataset.

    Attributes
    ----------
    frame
        Canonical arrays by feature, shape (n,).
    y
        Labels, float64 of shape (n,).
    rows
        The other columns: spine fields and ``event_time``.
    """

    frame: Frame
    y: NDArray[np.float64]
    rows: pa.Table

    @cached_property
    def X(self) -> pd.DataFrame:
        """The frame as a DataFrame (float32 and object columns), a copy: what an estimator is fitted on."""
        return to_pandas(self.frame)

    def handed_out(self) -> Split:
        """Return the same rows for a trainer, which may change its `X` and `y` and can only read the frame."""
        frame = {name: values.view() for name, values in self.frame.items()}
        for values in frame.values():
            values.setflags(write=False)
        return Split(frame, self.y.copy(), self.rows)


class Splits:
    """A dataset's splits in memory: each is read when it is first asked for, and once.

    Parameters
    ----------
    contract
        Of the view, or of the release that was trained on it.

    Raises
    ------
    NotFoundError, ModelError
        As `load_split` does, when a split is asked for.
    """

    def __init__(self, dataset: TrainingDataset, contract: Contract) -> None:
        self.dataset, self._contract = dataset, contract
        self._read = dict[str, Split]()

    def __getitem__(self, split: str) -> Split:
        if split not in self._read:
            self._read[split] = load_split(self.dataset, self._contract, split)
        return self._read[split]


def build_dataset(
    service: PredictionService, lake: Lake, metadata: Metadata, *, now: int, home: Path
) -> TrainingDataset:
    """Build the dataset of a service from its feature groups, as each row could have known them.

    Parameters
    ----------
    now
        The clock's now, UTC microseconds; labels that have not matured by then are left out.
    home
        The file goes to ``<home>/datasets/<service>/<id>.parquet``.

    Raises
    ------
    NotFoundError
        If a source or group was never materialised.
    DataError
        If no row has a label, or a split has no row.
    """
    from windrow.stores.engine import engine

    _refuse_taken_names(service)
    seq = newest_seq(service, lake)
    rows, excluded = past_rows(service, lake, engine(), now=now, as_of=seq)
    return _finished(service, rows, metadata, excluded=excluded, seq=seq, now=now, kind="view", home=home)


def past_rows(
    service: PredictionService, lake: Lake, con: BaseBackend, *, now: int, as_of: int
) -> tuple[pa.Table, dict[str, int]]:
    """Return every row with a known label and what was known at its time, and how many were left out, by reason."""
    spine = spine_rows(service, lake, con, now=now, as_of=as_of)
    labelled = label_rows(service, lake, con, spine, now=now, as_of=as_of)
    known, excluded = _known(service, labelled)
    rows, bare = _without_bare(service, view_rows(service, lake, con, known, as_of=as_of))
    return rows, excluded | ({BARE: bare} if bare else {})


def dataset_from_log(
    service: PredictionService, lake: Lake, log: PredictionLog, metadata: Metadata, *, now: int, home: Path
) -> TrainingDataset:
    """Build a dataset from the vectors that were served and the outcomes that have matured since.

    Outcomes posted for a prediction count first, then what the label's source says.

    Raises
    ------
    NotFoundError
        If nothing was logged yet.
    DataError
        If no logged prediction has a matured outcome, or a split has no row.
    """
    from windrow.models.logged import logged_rows
    from windrow.stores.engine import engine

    _refuse_taken_names(service)
    labelled = logged_rows(service, lake, log, engine(), now=now, vectors=True)
    known, excluded = _known(service, labelled)
    seq = lake.table(service.label.source.key).stats().seq if lake.table(service.label.source.key).exists else 0
    return _finished(service, known, metadata, excluded=excluded, seq=seq, now=now, kind="log", home=home)


def view_rows(
    service: PredictionService, lake: Lake, con: BaseBackend, spine: pa.Table, *, as_of: int | None = None
) -> pa.Table:
    """Return `spine` with the view's features and statuses as of each row's time, in the spine's order."""
    from windrow.features.join import view_frame
    from windrow.stores.tables import group_tables

    tables = group_tables(service.view.contract.lookups, lake)
    functions = {f.function.__name__: f.function for f in service.view.on_demand}
    return view_frame(con, service.view.contract, spine, tables, functions=functions, as_of=as_of)


def frame_of(rows: pa.Table, contract: Contract) -> Frame:
    """Return the canonical arrays of a table that has the contract's features as columns."""
    return canonical(contract, {f.name: to_numpy(rows.column(f.name), f.dtype) for f in contract.features})


def load_split(dataset: TrainingDataset, contract: Contract, split: str) -> Split:
    """Read one split of a dataset.

    Parameters
    ----------
    contract
        Of the view, or of the release that was trained on it.
    split
        ``train``, ``validation`` (empty unless one is declared) or ``test``.

    Raises
    ------
    NotFoundError
        If the file is gone.
    ModelError
        If the dataset was built for other features.
    """
    import pyarrow.parquet as pq

    if dataset.features != list(contract.feature_names):
        other = sorted(set(dataset.features) ^ set(contract.feature_names))
        raise ModelError(
            f"dataset {dataset.id!r} was built for other features than view {contract.view!r} has now ({listed(other)})",
            next_step=f"build {dataset.service}/training_dataset again",
        )
    if not Path(dataset.path).is_file():
        raise NotFoundError(
            f"the file of dataset {dataset.id!r} is gone ({Path(dataset.path).name})",
            next_step=f"build {dataset.service}/training_dataset again",
        )
    rows = pq.read_table(dataset.path, filters=[(SPLIT, "==", split)], memory_map=False)
    frame = frame_of(rows, contract)
    others = rows.drop_columns([*(n for n in frame if n in rows.column_names), LABEL, SPLIT])
    return Split(frame, to_numpy(rows[LABEL], "float64"), others)


def newest_seq(service: PredictionService, lake: Lake) -> int:
    """Return the newest ``_seq`` over every table that a service's dataset is made from."""
    spine = service.view.spine
    # What another system keeps has no place in our write order.
    keys = {lake_key(read) for read in service.view.contract.lookups if read.external is None}
    keys |= {service.label.source.key}
    keys |= {spine.key} if hasattr(spine, "key") else set()
    return max(lake.table(key).stats().seq for key in sorted(keys))


def _refuse_taken_names(service: PredictionService) -> None:
    used = {*service.view.contract.feature_names, *(f.name for f in service.view.spine.spine_fields)}
    taken = sorted(used & {LABEL, STATE, SPLIT})
    if taken:
        raise DeclarationError(
            f"view {service.view.name!r} has a column called {taken[0]!r}, which a training dataset needs itself",
            next_step="rename it in the source or group",
        )


def _known(service: PredictionService, labelled: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    import pyarrow.compute as pc

    counts = {name: int(pc.sum(pc.equal(labelled[STATE], name)).as_py() or 0) for name in (IMMATURE, UNKNOWN, KNOWN)}
    if not counts[KNOWN]:
        raise DataError(
            f"no row of service {service.name!r} has a known label",
            exists=f"{labelled.num_rows} rows: {counts[IMMATURE]} immature, {counts[UNKNOWN]} unknown",
            next_step="bring older data or outcomes, or look at the label's source, key and matures_after",
        )
    known = labelled.filter(pc.equal(labelled[STATE], KNOWN)).drop_columns([STATE])
    return known, {name: counts[name] for name in (IMMATURE, UNKNOWN) if counts[name]}


def _without_bare(service: PredictionService, rows: pa.Table) -> tuple[pa.Table, int]:
    """Leave out a clock's ticks at which nothing at all was found; a source's rows are events and stay."""
    import pyarrow.compute as pc

    from windrow.features.join import status_column

    lookups = service.view.contract.lookups
    if hasattr(service.view.spine, "key") or not lookups:
        return rows, 0
    found = pc.not_equal(rows[status_column(lookups[0])], int(Status.NOT_FOUND))
    for lookup in lookups[1:]:
        found = pc.or_(found, pc.not_equal(rows[status_column(lookup)], int(Status.NOT_FOUND)))
    kept = rows.filter(found)
    return kept, rows.num_rows - kept.num_rows


def _finished(
    service: PredictionService, rows: pa.Table, metadata: Metadata, *, excluded: dict[str, int], kind: Literal["view", "log"],
    seq: int, now: int, home: Path,
) -> TrainingDataset:  # fmt: skip
    made, parts, split = split_rows(service, rows, kind)
    digest = content_hash(made)
    contract = service.view.contract
    id = fingerprint([service.name, digest, contract.fingerprint, service.label.fingerprint, kind])
    counts = {name: int(n) for name in SPLITS if (n := (parts == name).sum())}
    gap = int((parts == GAP).sum())
    dataset = TrainingDataset(
        id=id, service=service.name, rows=made.num_rows, features=list(contract.feature_names),
        excluded={**excluded, **({GAP: gap} if gap else {})}, splits=counts, split=str(split), content_hash=digest,
        seq=seq, now=now, view_fingerprint=contract.fingerprint, kind=kind, path=str(home / "datasets" / service.name / f"{id}.parquet"),
        statistics=_statistics(service, made, list(counts)),
    )  # fmt: skip
    _write(made, Path(dataset.path))
    metadata.add_dataset(id, service.name, msgspec.to_builtins(dataset))
    return dataset


def _statistics(service: PredictionService, made: pa.Table, splits: list[str]) -> dict[str, SplitStatistics]:
    return {name: _statistics_of(made.filter(_is(made, name)), service.view.contract) for name in splits}


def _statistics_of(rows: pa.Table, contract: Contract) -> SplitStatistics:
    times = rows[EVENT_TIME].cast("int64").to_numpy()
    return statistics_of(frame_of(rows, contract), times, to_numpy(rows[LABEL], "float64"))


def _is(rows: pa.Table, split: str) -> Any:
    import pyarrow.compute as pc

    return pc.equal(rows[SPLIT], split)


def split_rows(service: PredictionService, rows: pa.Table, kind: str) -> tuple[pa.Table, NDArray[Any], DeclaredSplit]:
    """Return the dataset that `rows` make, with its column of splits; the part of each row; and how they were split."""
    names = _columns(service, rows, kind)
    split = _split_of(service, rows, kind)
    times, labels = rows[EVENT_TIME].cast("int64").to_numpy(), to_numpy(rows[LABEL], "float64")
    parts = assign(split, times, rows.select(names.identity), labels=labels)
    return _parted(rows.select(names.all), parts), parts, split


class _Columns(NamedTuple):
    identity: list[str]
    all: list[str]


def _columns(service: PredictionService, rows: pa.Table, kind: str) -> _Columns:
    spine = [f.name for f in service.view.spine.spine_fields]
    own = ["request_id", "row"] if kind == "log" else []
    identity = [*own, *(n for n in spine if n in rows.column_names and n != EVENT_TIME)]
    features = list(service.view.contract.feature_names)
    return _Columns(identity, list(dict.fromkeys([*identity, EVENT_TIME, *features, LABEL])))


def _split_of(service: PredictionService, rows: pa.Table, kind: str) -> DeclaredSplit:
    """Return the declared split; a log that is younger than its test time is split at random."""
    split = service.split
    if kind == "view" or not isinstance(split, TimeSplit):
        return split
    times = rows[EVENT_TIME].cast("int64").to_numpy()
    validation = duration(split.validation) + duration(split.gap) if split.validation else 0
    long = times.max() - times.min() > duration(split.test) + duration(split.gap) + validation
    return split if long else split.one_snapshot or RandomSplit(0.25, validation=0.2 if validation else 0.0)


def _parted(rows: pa.Table, parts: NDArray[Any]) -> pa.Table:
    import pyarrow as pa

    made = rows.append_column(SPLIT, pa.array(parts, pa.string())).filter(pa.array(parts != GAP))
    return made.replace_schema_metadata(None)


def _write(rows: pa.Table, path: Path) -> None:
    """Write beside and rename, so that no half file is ever visible; the same id is the same rows."""
    import pyarrow.parquet as pq

    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, beside)
        os.replace(beside, path)
    except OSError as error:
        raise StoreError(
            f"dataset {path.stem!r} cannot be written to {path.parent}: {error.strerror or error}",
            next_step="free space or set WINDROW_HOME to a writable folder",
        ) from error
    finally:
        with suppress(OSError):  # not made, or renamed
            beside.unlink()
