"""Promises of what the log is given of a vector."""

from __future__ import annotations

from pathlib import Path

import pytest

from windrow.serving.recorder import Recorder
from windrow.stores.log import LogRecord, LogWriter, records


@pytest.mark.parametrize("features", [["limit", "a b"], ['"', "\\"], []])
@pytest.mark.parametrize("huge", [1, 2**70])
def test_a_vector_is_read_from_the_log_by_its_features_names(tmp_path: Path, features: list[str], huge: int) -> None:
    recorder, values = Recorder(features), [0.5, float("nan")][: len(features)]
    vector, statuses = recorder.vector(values, finite=False), recorder.statuses(dict.fromkeys(features, 1))
    with LogWriter(tmp_path, "w") as log:
        # What msgpack does not hold is logged another way.
        log.append([LogRecord(kind="prediction", request_id="r", service="s", request={"x": huge}, vector=vector, statuses=statuses)])  # fmt: skip
    ((_, found),) = records(tmp_path)
    assert found.vector == dict(zip(features, [0.5, None], strict=False))
    assert found.statuses == dict.fromkeys(features, 1)


def test_rows_of_different_states_are_told_apart() -> None:
    recorder, all_there, one_missing = Recorder(["x", "y"]), {"x": 0, "y": 0}, {"x": 0, "y": 2}
    told = [bytes(recorder.statuses(status)) for status in (all_there, one_missing, all_there)]
    assert told == [b"\x82\xa1x\x00\xa1y\x00", b"\x82\xa1x\x00\xa1y\x02", b"\x82\xa1x\x00\xa1y\x00"]
