"""Promises of the prediction log's writer and reader."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from tests.stores.log_tools import killed_writer, outcome, prediction
from windrow.errors import StoreError
from windrow.features.contract import Contract
from windrow.schema import Field
from windrow.stores.committer import commit
from windrow.stores.lake import Lake
from windrow.stores.log import LogRecord, LogWriter, PredictionLog, log_schema, records, to_table
from windrow.stores.segments import MAGIC, SegmentId, frame


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def log(tmp_path: Path, folder: Path) -> PredictionLog:
    return PredictionLog(folder, Lake(str(tmp_path / "lake")))


def test_a_record_is_in_the_table_as_soon_as_append_returns(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1)])
        assert log.table("churn").column("request_id").to_pylist() == ["r1"]


def test_a_service_without_a_record_has_an_empty_table_of_the_schema(log: PredictionLog) -> None:
    for kind in ("prediction", "outcome", "error"):
        assert log.table("churn", kind).schema == log_schema()
        assert log.table("churn", kind).num_rows == 0


def test_the_schema_is_fixed() -> None:
    assert [f"{f.name}: {f.type}" for f in log_schema()] == [
        "kind: string", "request_id: string", "service: string", "row: int64", "release: string",
        "received_at: timestamp[us, tz=UTC]", "event_time: timestamp[us, tz=UTC]", "known_at: timestamp[us, tz=UTC]",
        "keys: string", "request: string", "vector: string", "statuses: string", "output: double", "outcome: double",
        "status: int64", "error: string", "stages_us: string", "degraded: string", "answered_by: string",
        "experiment: string", "arms: string", "propensities: string", "cached: bool",
    ]  # fmt: skip


def test_every_field_comes_back_before_and_after_the_commit(folder: Path, log: PredictionLog) -> None:
    record = LogRecord(
        kind="prediction", request_id="r1", service="churn", row=3, release="churn-1", received_at=1, event_time=-5,
        known_at=7, keys={"id": 2**63 - 1}, request={"a": [1, None, "ü"]}, vector={"x": 0.1, "y": "b", "z": None},
        statuses={"x": 0}, output=0.25, status=200, stages_us={"log": 1.5},
        experiment="trial", arms={"trial": "new"}, propensities={"trial": 0.25},
    )  # fmt: skip
    with LogWriter(folder, "w") as writer:
        writer.append([record])
    before = log.table("churn").to_pylist()
    assert commit(folder, log.lake) == 1
    (found,) = log.table("churn").to_pylist()
    assert before == [found]
    assert found["event_time"].isoformat() == "1969-12-31T23:59:59.999995+00:00"
    assert (found["keys"], found["request"]) == ('{"id":9223372036854775807}', '{"a":[1,null,"ü"]}')
    assert (found["vector"], found["statuses"]) == ('{"x":0.1,"y":"b","z":null}', '{"x":0}')
    assert (found["experiment"], found["arms"], found["propensities"]) == ("trial", '{"trial":"new"}', '{"trial":0.25}')
    assert (found["row"], found["output"], found["outcome"], found["status"]) == (3, 0.25, None, 200)


NEW = ("experiment", "arms", "propensities")


def test_a_segment_of_an_earlier_windrow_is_read(folder: Path, log: PredictionLog) -> None:
    earlier = {k: v for k, v in msgspec.to_builtins(prediction(1)).items() if k not in NEW}
    with LogWriter(folder, "w") as writer:
        writer.append_frame(bytearray(frame(msgspec.msgpack.encode([earlier]))))
        writer.append([prediction(2, arms={"trial": "new"})])
    for _ in range(2):
        assert log.table("churn").select(NEW).to_pylist() == [
            {"experiment": "", "arms": "{}", "propensities": "{}"},
            {"experiment": "", "arms": '{"trial":"new"}', "propensities": "{}"},
        ]
        commit(folder, log.lake)


def test_a_table_of_an_earlier_windrow_is_read_and_takes_new_records(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1, output=None)])
    earlier = to_table([(SegmentId("old", 1), record) for _, record in records(folder)]).drop_columns(list(NEW))
    shutil.rmtree(folder)
    log.lake.table("log/churn").append(earlier)
    assert log.table("churn").select(["output", *NEW]).to_pylist() == [
        {"output": None, "experiment": "", "arms": "{}", "propensities": "{}"}
    ]
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(2, experiment="trial")])
    assert log.table("churn")["experiment"].to_pylist() == ["", "trial"]
    commit(folder, log.lake)
    assert log.table("churn")["experiment"].to_pylist() == ["", "trial"]
    assert log.table("churn").schema == log_schema()


def test_kinds_and_services_do_not_mix(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1), prediction(2, service="fraud"), prediction(3, status=422)])
        writer.append([prediction(4, kind="error", release="churn-1", error="wrong_type")])
    for _ in range(2):
        assert log.table("churn").column("request_id").to_pylist() == ["r1", "r3"]
        assert log.table("churn", "error").column("error").to_pylist() == ["wrong_type"]
        assert log.table("fraud").column("request_id").to_pylist() == ["r2"]
        commit(folder, log.lake)
    assert log.lake.keys() == ["log/churn", "log/fraud"]


@pytest.mark.parametrize("name", ["../no such", "no_such", ""])
def test_a_request_that_no_release_answers_makes_no_table_of_its_own(
    folder: Path, log: PredictionLog, name: str
) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([LogRecord(kind="error", request_id="e", service=name, status=404)])
        writer.append([LogRecord(kind="error", request_id="f", service="other", status=404)])
    for _ in range(2):
        assert log.table(name, "error").column("status").to_pylist() == [404]
        commit(folder, log.lake)
    assert log.lake.keys() == ["log/_other"]


def test_errors_before_and_after_the_first_release_are_one_table(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        for number, release in enumerate(["", "churn-1"]):
            writer.append([prediction(number, kind="error", release=release)])
    for _ in range(2):
        assert log.table("churn", "error").column("release").to_pylist() == ["", "churn-1"]
        commit(folder, log.lake)
    assert log.lake.keys() == ["log/_other", "log/churn"]


def test_an_append_is_one_write_of_one_frame(folder: Path) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(i) for i in range(3)])
        (path,) = folder.glob("*.open")
        data = path.read_bytes()
        assert data[: len(MAGIC)] == b"WINDROW1"
        assert int.from_bytes(data[8:12], "little") == len(data) - 12


def test_a_batch_whose_frame_is_torn_is_ignored_as_a_whole(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1)])
        writer.append([prediction(i) for i in (2, 3, 4)])
        (path,) = folder.glob("*.open")
        for length in range(path.stat().st_size - 1, path.stat().st_size - 40, -3):
            os.truncate(path, length)
            assert log.table("churn").column("request_id").to_pylist() == ["r1"]


def test_zeros_left_by_a_power_cut_are_ignored(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1)])
        (path,) = folder.glob("*.open")
        path.write_bytes(path.read_bytes() + bytes(4096))
        assert log.table("churn").num_rows == 1


def test_after_kill_9_every_record_that_append_confirmed_is_there_once(folder: Path, log: PredictionLog) -> None:
    last = killed_writer(folder, after=200, segment_bytes=20_000)
    assert len(list(folder.glob("*.seg"))) > 2
    for _ in range(2):
        logged = log.table("churn")
        numbers = [int(r.removeprefix("r")) for r in logged.column("request_id").to_pylist()]
        assert sorted(set(numbers)) == list(range(max(numbers) + 1))
        assert len(numbers) == 2 * len(set(numbers))
        assert max(numbers) in (last, last + 1)
        commit(folder, log.lake)
    assert [p.name for p in folder.iterdir() if p.suffix in (".open", ".seg")] == []


def test_a_restarted_worker_goes_on_after_its_dead_self(folder: Path, log: PredictionLog) -> None:
    killed_writer(folder, after=3)
    with LogWriter(folder, "victim") as writer:
        writer.append([prediction(10_000)])
        assert commit(folder, log.lake) >= 8
        writer.append([prediction(10_001)])
    commit(folder, log.lake)
    assert log.table("churn").column("request_id").to_pylist()[-2:] == ["r10000", "r10001"]


def test_numbers_of_a_worker_grow_although_the_clock_went_back(folder: Path) -> None:
    folder.mkdir()
    (folder / "w.lock").write_text("09000000000000000000")
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1)])
        assert [str(s) for s, _ in records(folder)] == ["w-9000000000000000001"]


def test_two_writers_of_one_name_are_refused(folder: Path) -> None:
    with LogWriter(folder, "w"), pytest.raises(StoreError, match="another process writes the log as 'w'"):
        LogWriter(folder, "w")
    LogWriter(folder, "w").close()


def test_a_name_that_is_no_file_name_is_refused(folder: Path) -> None:
    with pytest.raises(StoreError, match="'../w' cannot name a log writer"):
        LogWriter(folder, "../w")


def test_a_large_segment_is_handed_over_at_the_next_append(folder: Path) -> None:
    with LogWriter(folder, "w", segment_bytes=1) as writer:
        for i in range(3):
            writer.append([prediction(i)])
        assert (len(list(folder.glob("*.seg"))), len(list(folder.glob("*.open")))) == (2, 1)


def test_an_old_segment_is_handed_over_at_the_next_append(folder: Path) -> None:
    with LogWriter(folder, "w", segment_seconds=0.05) as writer:
        writer.append([prediction(1)])
        time.sleep(0.06)
        writer.append([prediction(2)])
        assert (len(list(folder.glob("*.seg"))), len(list(folder.glob("*.open")))) == (1, 1)


def test_a_closed_writer_leaves_no_empty_segment_and_says_that_it_is_closed(folder: Path) -> None:
    writer = LogWriter(folder, "w")
    writer.close()
    writer.close()
    assert [p.name for p in folder.iterdir()] == ["w.lock"]
    with pytest.raises(StoreError, match="is closed"):
        writer.append([prediction(1)])


def test_a_full_disk_is_a_store_error_and_the_segment_stays_readable(folder: Path, log: PredictionLog) -> None:
    code = f"""
import resource
from pathlib import Path
from tests.stores.log_tools import prediction
from windrow.errors import StoreError
from windrow.stores.log import LogWriter
writer = LogWriter(Path({str(folder)!r}), "w")
writer.append([prediction(1)])
(path,) = Path({str(folder)!r}).glob("*.open")
for number, room in ((2, 100), (3, 0)):  # the write is cut short; the write is refused
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, -1))
    try:
        writer.append([prediction(number)])
    except StoreError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
writer.append([prediction(4)])
"""
    root = Path(__file__).parent.parent.parent
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root).stdout
    assert told.count("cannot be written: ") == 2
    assert "Next: free disk space" in told
    assert log.table("churn").column("request_id").to_pylist() == ["r1", "r4"]


def test_a_writer_whose_folder_was_removed_makes_it_again_and_says_what_is_lost(
    folder: Path, log: PredictionLog, caplog: pytest.LogCaptureFixture
) -> None:
    with LogWriter(folder, "w", segment_seconds=0.0) as writer:
        writer.append([prediction(1)])
        shutil.rmtree(folder)
        writer.append([prediction(2)])
        assert log.table("churn").column("request_id").to_pylist() == ["r2"]
        shutil.rmtree(folder)
    assert [record.message.count("is gone") for record in caplog.records] == [1, 1]


def test_a_writer_makes_no_folder_in_one_that_is_gone(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "home" / "log", "w") as writer:
        shutil.rmtree(tmp_path / "home")
        with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
            writer.append([prediction(1)])


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        LogWriter(tmp_path / "file" / "log", "w")


def test_a_request_with_values_beyond_msgpack_is_logged_as_text(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1, request={"huge": 2**70, "odd": "\ud800", "list": [{"x": -(2**80)}], "ok": 1})])
    (text,) = log.table("churn").column("request").to_pylist()
    assert text == '{"huge":"1180591620717411303424","odd":"?","list":[{"x":"-1208925819614629174706176"}],"ok":1}'


def test_nan_in_a_vector_is_null_in_the_table(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1, vector={"x": math.nan})])
    assert log.table("churn").column("vector").to_pylist() == ['{"x":null}']


def test_an_infinite_number_in_a_vector_stays_what_it_is(folder: Path, log: PredictionLog) -> None:
    fields = (Field("x", "float64"), Field("plan", "string"))
    contract = Contract(view="v", spine="s", request=(), optional=(), lookups=(), on_demand=(), features=fields)
    with LogWriter(folder, "w") as writer:
        writer.append(
            [prediction(i, vector={"x": x, "plan": "Infinity"}) for i, x in enumerate((math.inf, -math.inf, 0.5))]
        )
    commit(folder, log.lake)
    made = log.vectors("churn", contract)
    assert made.column("x").to_pylist() == [math.inf, -math.inf, 0.5]
    assert made.column("plan").to_pylist() == ["Infinity"] * 3


def test_the_newest_outcome_by_known_at_wins_for_each_row(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([outcome("r1", 1.0, known_at=20, received_at=1), outcome("r1", 5.0, known_at=10, row=1)])
        writer.append([outcome("r1", 0.0, known_at=10, received_at=2)])
    commit(folder, log.lake)
    with LogWriter(folder, "w") as writer:
        writer.append([outcome("r1", 6.0, known_at=10, row=1, received_at=9), outcome("r2", 7.0, known_at=1)])
    found = log.table("churn", "outcome").to_pylist()
    assert sorted((r["request_id"], r["row"], r["outcome"]) for r in found) == [
        ("r1", 0, 1.0),
        ("r1", 1, 6.0),
        ("r2", 0, 7.0),
    ]


def test_vectors_have_one_column_per_feature_of_the_contract(folder: Path, log: PredictionLog) -> None:
    fields = (Field("x", "float64"), Field("plan", "string"), Field("new", "int64"))
    contract = Contract(view="v", spine="s", request=(), optional=(), lookups=(), on_demand=(), features=fields)
    with LogWriter(folder, "w") as writer:
        writer.append(
            [prediction(1, vector={"x": 0.1, "plan": "a", "gone": 3.0}), prediction(2, vector={"x": math.nan})]
        )
    made = log.vectors("churn", contract)
    assert made.column_names == ["request_id", "row", "release", "event_time", "output", "x", "plan", "new"]
    assert [made.schema.field(n).type for n in ("x", "plan", "new")] == [pa.float32(), pa.string(), pa.float32()]
    assert made.select(["x", "plan", "new"]).to_pylist() == [
        {"x": pa.scalar(0.1, pa.float32()).as_py(), "plan": "a", "new": None},
        {"x": None, "plan": None, "new": None},
    ]


def test_vectors_of_an_empty_log_have_the_contracts_columns(log: PredictionLog) -> None:
    fields = (Field("x", "float64"),)
    contract = Contract(view="v", spine="s", request=(), optional=(), lookups=(), on_demand=(), features=fields)
    assert log.vectors("churn", contract).schema.field("x").type == pa.float32()


def test_importing_the_log_loads_no_engine() -> None:
    heavy = "{'pyarrow', 'ibis', 'duckdb', 'pandas', 'deltalake'}"
    code = f"import sys, windrow.stores.log; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_outcomes_of_what_was_never_predicted_are_counted(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1)])
        writer.append([outcome("r1", 1.0, known_at=5), outcome("r1", 1.0, known_at=5, row=7)])
        writer.append([outcome("nobody", 0.0, known_at=5), outcome("r1", 1.0, known_at=5, service="fraud")])
    for _ in range(2):
        assert (log.unmatched("churn"), log.unmatched("fraud"), log.unmatched("loans")) == (2, 1, 0)
        commit(folder, log.lake)
