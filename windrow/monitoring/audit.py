"""The one rule, proved on what was served: each logged online vector against the offline point-in-time vector."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from windrow.features.contract import MISSING_TEXT, Frame
from windrow.schema import EVENT_TIME

if TYPE_CHECKING:
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.models.bundle import Bundle
    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog

SHOWN = 20


class Difference(msgspec.Struct, frozen=True):
    """One value that was served and is not what the point-in-time join gives for the same keys and time."""

    request_id: str
    row: int
    feature: str
    served: float | str | None
    offline: float | str | None


class AuditReport(msgspec.Struct, frozen=True):
    """What an audit found.

    Attributes
    ----------
    rows, equal
        Logged vectors that were compared, and those of which every value is equal.
    by_feature
        Feature -> rows that differ in it; empty when all is well.
    shown
        The first differences, at most 20.
    others
        Other release -> its logged vectors, which were not compared.
    """

    service: str
    release: str
    rows: int
    equal: int
    by_feature: dict[str, int]
    shown: list[Difference]
    others: dict[str, int] = {}

    @property
    def passed(self) -> bool:
        """Whether every compared vector is equal."""
        return self.rows == self.equal


def audit(
    service: PredictionService, bundle: Bundle, *, lake: Lake, log: PredictionLog, con: BaseBackend
) -> AuditReport:
    """Recompute every logged vector of a release offline, as of the time it was asked about.

    Values are compared in the form that models see, bit for bit (float32 or text); missing equals missing.

    Parameters
    ----------
    service
        Declares the spine that a request is one row of.
    bundle
        The release whose predictions are audited: its contract and its on-demand functions are used.
    lake, log, con
        Where the features, the predictions and the engine are.

    Returns
    -------
    AuditReport
        With no logged prediction: 0 rows, which says that nothing was proved.
    """
    import pyarrow.compute as pc

    from windrow.features.join import view_frame
    from windrow.models.dataset import frame_of
    from windrow.stores.log import with_vector
    from windrow.stores.tables import group_tables

    contract = bundle.contract
    every = with_vector(log.table(service.name))
    logged = every.filter(pc.equal(every["release"], bundle.id))
    spine = _spine(service, logged)
    tables = group_tables(contract.lookups, lake)
    offline = frame_of(view_frame(con, contract, spine, tables, functions=bundle.functions), contract)
    others = Counter(every["release"].to_pylist())
    del others[bundle.id]
    return msgspec.structs.replace(_compared(service.name, bundle.id, logged, offline), others=dict(others))


def _spine(service: PredictionService, logged: pa.Table) -> pa.Table:
    import pyarrow as pa

    from windrow.features.arrow import arrow_type

    requests = [msgspec.json.decode(text) for text in logged["request"].to_pylist()]
    fields = {f.name: f.dtype for f in service.view.spine.spine_fields if f.name != EVENT_TIME}
    columns = {n: pa.array([r.get(n) for r in requests], arrow_type(d)) for n, d in fields.items()}
    return pa.table({**columns, EVENT_TIME: logged[EVENT_TIME]})


def _compared(service: str, release: str, logged: pa.Table, offline: Frame) -> AuditReport:
    # A missing text stands in the log as the model saw it, a missing number as null.
    vectors = [_named(msgspec.json.decode(text)) for text in logged["vector"].to_pylist()]
    wrong = np.zeros(len(vectors), bool)
    by_feature, shown = Counter[str](), list[Difference]()
    for name, values in offline.items():
        differs = np.array([_differs(v[name], o) for v, o in zip(vectors, values, strict=True)], bool)
        wrong |= differs
        by_feature[name] += int(differs.sum())
        shown += [
            _difference(logged, int(i), name, vectors[i][name], values[i]) for i in np.flatnonzero(differs)[:SHOWN]
        ]
    return AuditReport(service, release, len(vectors), int((~wrong).sum()), dict(+by_feature), shown[:SHOWN])


def _named(vector: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value == MISSING_TEXT else value for name, value in vector.items()}


def _differs(served: Any, offline: Any) -> bool:
    missing = _plain(offline) is None
    if served is None or missing:
        return (served is None) != missing
    return bool(served != offline if isinstance(offline, str) else np.float32(served) != offline)


def _plain(value: Any) -> float | str | None:
    """Return a value of a model's input array as it stands in the log, None where it is missing."""
    if isinstance(value, str):
        return None if value == MISSING_TEXT else value
    return None if np.isnan(value) else float(value)


def _difference(logged: pa.Table, index: int, feature: str, served: Any, offline: Any) -> Difference:
    row = logged["row"][index].as_py()
    return Difference(logged["request_id"][index].as_py(), row, feature, served, _plain(offline))
