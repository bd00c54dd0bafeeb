"""Long requests, answered as they arrive: by the middleware alone, and by the real process."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serving import world
from tests.serving.conftest import Caller, eventually, make_key_for, signed
from tests.serving.world import GOOD
from windrow.errors import RequestError
from windrow.serving import bulk
from windrow.serving.arrow import ANSWER, Batches
from windrow.serving.lines import Lines
from windrow.stores.log import LogRecord, records

NDJSON, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"


def ndjson(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def arrow(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=1000)
    return sink.getvalue()


def lines(caller: Caller, body: bytes, **options: Any) -> list[dict[str, Any]]:
    answer = caller("POST", "/v1/fraud/batch", body, kind=NDJSON, **options)
    assert (answer.status, answer.headers) == (200, {"content-type": NDJSON})
    return [json.loads(line) for line in answer.body.splitlines()]


def table(caller: Caller, body: bytes, **options: Any) -> pa.Table:
    answer = caller("POST", "/v1/fraud/batch", body, kind=ARROW, **options)
    assert (answer.status, answer.headers) == (200, {"content-type": ARROW})
    return pa.ipc.open_stream(answer.body).read_all()


def logged(caller: Caller) -> dict[tuple[str, int], LogRecord]:
    return {(r.request_id, r.row): r for _, r in records(caller.worker.settings.home / "log")}


def test_every_line_is_answered_in_order_as_a_single_prediction_is(fraud: Caller) -> None:
    rows = [{**GOOD, "amount": amount} for amount in range(200)]
    answers = lines(fraud, ndjson(rows))
    alone = [fraud.predict(row).json["predictions"][0] for row in rows]
    assert [answer["line"] for answer in answers] == list(range(200))
    # One row at a time and many together differ in the last bit of float32.
    assert [a["value"] for a in answers] == pytest.approx([one["value"] for one in alone], abs=1e-6)
    assert set(answers[0]) == {"line", "row", "request_id", "release", "now", "value", "statuses", "probability"}
    assert answers[0]["statuses"] == alone[0]["statuses"]


def test_every_answered_row_is_in_the_log_under_the_request_and_row_that_its_line_names(fraud: Caller) -> None:
    rows = [{**GOOD, "amount": amount} for amount in range(150)]
    answers = lines(fraud, ndjson(rows))
    kept = logged(fraud)
    for row, answer in zip(rows, answers, strict=True):
        record = kept[answer["request_id"], answer["row"]]
        assert (record.kind, record.output) == ("prediction", answer["value"])
        assert record.request["amount"] == row["amount"]


def test_an_outcome_can_be_sent_for_any_row_of_a_stream(fraud: Caller) -> None:
    answer = lines(fraud, ndjson([GOOD] * 1500))[-1]
    outcome = {"request_id": answer["request_id"], "row": answer["row"], "value": 1}
    assert fraud("POST", "/v1/fraud/outcomes", {"outcomes": [outcome]}).status == 200


@pytest.mark.parametrize("size", [1, 3, 64, 65, 1000])
def test_how_the_body_is_cut_changes_nothing(fraud: Caller, size: int) -> None:
    body = ndjson([{**GOOD, "amount": amount} for amount in range(20)]).rstrip(b"\n")
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    answers = lines(fraud, b"", chunks=parts)
    assert [answer["line"] for answer in answers] == list(range(20))
    assert len({answer["value"] for answer in answers}) == 20


BAD: list[tuple[bytes, int, str, str]] = [
    (b"{", 400, "broken-json", ""),
    (b'{"card_id": 1, "amount": NaN, "x": 1}', 400, "broken-json", ""),
    (b"[" * 10_000 + b"]" * 10_000, 400, "too-deep", ""),
    (b"[]", 422, "wrong-type", "$"),
    (b'{"amount": 1, "x": 2}', 422, "missing-key", "$"),
    (b'{"card_id": 1, "amount": "many", "x": 1}', 422, "wrong-type", "$.amount"),
    (b'{"card_id": 4711, "amount": 1, "x": 1}', 404, "unknown-entity", "$.card_id"),
    (b'{"rows": [{"card_id": 1, "amount": 1, "x": 1}]}', 422, "unknown-field", "$"),
    (b'{"card_id": 1, "amount": 1, "x": ' + b" " * (1 << 20) + b"1}", 413, "line-too-long", "$"),
]


@pytest.mark.parametrize(("bad", "status", "kind", "where"), BAD)
def test_a_row_that_cannot_be_answered_gets_a_problem_and_the_others_their_answer(
    fraud: Caller, bad: bytes, status: int, kind: str, where: str
) -> None:
    good = json.dumps(GOOD).encode()
    answers = lines(fraud, b"\n".join([good] * 70 + [bad] + [good, b"", good]))
    assert [a["line"] for a in answers] == [*range(72), 73]
    assert [a["line"] for a in answers if "value" not in a] == [70]
    told = answers[70]
    assert (told["status"], told["type"], told["where"]) == (status, f"urn:windrow:problem:{kind}", where)
    assert set(told) == {"line", "type", "title", "status", "detail", "where", "next", "request_id"}
    record = logged(fraud)[told["request_id"], 0]
    assert (record.kind, record.status, record.error) == ("error", status, kind)


def test_values_of_wrong_rows_are_not_repeated(fraud: Caller) -> None:
    answer = fraud("POST", "/v1/fraud/batch", b'{"card_id": "secret-4711", "secret x": 1}\n', kind=NDJSON)
    assert b"secret" not in answer.body


@pytest.mark.parametrize(
    ("path", "kind", "status", "problem"),
    [
        ("/v1/frud/batch", NDJSON, 404, "unknown-service"),
        ("/v1/fraud/batch", "application/json", 415, "not-a-stream"),
        ("/v1/fraud/batch", "text/csv", 415, "not-a-stream"),
    ],
)
def test_what_cannot_begin_is_refused_as_everywhere(
    fraud: Caller, path: str, kind: str, status: int, problem: str
) -> None:
    answer = fraud("POST", path, ndjson([GOOD]), kind=kind)
    assert (answer.status, answer.json["type"]) == (status, f"urn:windrow:problem:{problem}")
    assert fraud("GET", path).status == 405


def test_a_compressed_body_is_refused(fraud: Caller) -> None:
    headers = [*fraud.signed, (b"content-encoding", b"gzip")]
    assert fraud("POST", "/v1/fraud/batch", b"x", headers=headers).json["type"].endswith(":compressed")


def test_an_empty_body_has_an_empty_answer(fraud: Caller) -> None:
    assert lines(fraud, b"") == []


def test_only_keys_with_the_scope_predict_may_stream(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "outcomes")
    assert fraud("POST", "/v1/fraud/batch", ndjson([GOOD]), headers=signed(key)).status == 403


def test_a_key_that_is_revoked_ends_its_streams(fresh: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    keyring = fresh.worker.guard.keyring
    valid, asked = keyring.valid, []

    def revoked_at_the_second_look(id: str) -> Any:
        asked.append(id)
        return valid(id) if len(asked) == 1 else None

    monkeypatch.setattr(keyring, "valid", revoked_at_the_second_look)
    *answers, last = lines(fresh, ndjson([GOOD] * 200))
    assert [answer["line"] for answer in answers] == list(range(bulk.MOST))
    assert (last["line"], last["ended"], last["status"]) == (bulk.MOST, True, 401)


def test_a_slow_key_is_answered_slowly_and_whole(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "predict", rate=20.0)
    answers = lines(fraud, ndjson([GOOD] * (bulk.MOST * 25)), headers=signed(key))
    assert {"value" in answer for answer in answers} == {True}


def test_a_log_that_cannot_be_written_ends_the_stream_and_no_row_is_answered_without_it(
    fresh: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    from windrow.errors import StoreError

    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    append, written = fresh.worker._log.append, []

    def full_at_the_third(found: Sequence[LogRecord]) -> None:
        if len(written) == 2:
            raise StoreError("no space left on the device", next_step="make room")
        written.append(len(found))
        append(found)

    monkeypatch.setattr(fresh.worker._log, "append", full_at_the_third)
    *answers, last = lines(fresh, ndjson([GOOD] * 300))
    assert [answer["line"] for answer in answers] == list(range(sum(written)))
    assert (last["line"], last["ended"], last["status"]) == (sum(written), True, 503)


def test_an_arrow_stream_is_answered_as_its_rows_are_in_json(fraud: Caller) -> None:
    rows = [{**GOOD, "amount": float(amount)} for amount in range(2500)]
    by_line, by_batch = lines(fraud, ndjson(rows)), table(fraud, arrow(pa.Table.from_pylist(rows)))
    assert by_batch.schema == ANSWER
    assert by_batch["line"].to_pylist() == list(range(2500))
    assert by_batch["value"].to_pylist() == [line["value"] for line in by_line]
    assert json.loads(by_batch["statuses"][0].as_py()) == by_line[0]["statuses"]
    assert by_batch["problem"].null_count == 2500
    kept = logged(fraud)
    for id, row, value in zip(*(by_batch[name].to_pylist() for name in ("request_id", "row", "value")), strict=True):
        assert kept[id, row].output == value


def test_a_wrong_row_of_a_batch_gets_a_problem_and_the_others_their_answer(fraud: Caller) -> None:
    rows = [{**GOOD, "card_id": card} for card in (1, 4711, None, 1)]
    answers = table(fraud, arrow(pa.Table.from_pylist(rows))).to_pylist()
    assert [(a["line"], a["status"], a["where"]) for a in answers] == [
        (0, None, None), (1, 404, "$.card_id"), (2, 422, "$"), (3, None, None)
    ]  # fmt: skip
    assert [a["value"] is None for a in answers] == [False, True, True, False]


def test_times_of_a_batch_are_times_with_a_zone(fraud: Caller) -> None:
    moment = pa.array([1_001_000_000], pa.timestamp("us", "UTC"))
    row = pa.table({**{name: [value] for name, value in GOOD.items()}, "event_time": moment})
    answer = table(fraud, arrow(row)).to_pylist()[0]
    assert logged(fraud)[answer["request_id"], 0].event_time == 1_001_000_000
    naive = row.set_column(3, "event_time", moment.cast(pa.timestamp("us")))
    assert table(fraud, arrow(naive)).to_pylist()[0]["problem"] == "urn:windrow:problem:wrong-time"


def test_an_arrow_stream_cut_anywhere_is_answered_as_far_as_it_came(fraud: Caller) -> None:
    body = arrow(pa.Table.from_pylist([GOOD] * 2000))
    whole = table(fraud, b"", chunks=[body[i : i + 997] for i in range(0, len(body), 997)])
    assert whole.num_rows == 2000
    *rows, last = table(fraud, body[: len(body) - 200]).to_pylist()
    assert len(rows) == 1000
    assert (last["line"], last["ended"], last["problem"]) == (1000, True, "urn:windrow:problem:broken-arrow")


@pytest.mark.parametrize("together", [True, False], ids=["at once", "in pieces"])
def test_what_follows_the_end_of_an_arrow_stream_is_not_left_out_in_silence(fraud: Caller, together: bool) -> None:
    body = arrow(pa.Table.from_pylist([GOOD] * 3))
    sent: dict[str, Any] = {"body": body + body} if together else {"body": b"", "chunks": [body, body]}
    *rows, last = table(fraud, **sent).to_pylist()
    assert [row["problem"] for row in rows] == [None] * 3
    assert (last["line"], last["ended"], last["problem"]) == (3, True, "urn:windrow:problem:after-the-end")


def test_a_stream_says_that_it_explains_nothing(fraud: Caller) -> None:
    answer = fraud("POST", "/v1/fraud/batch?explain=shap", ndjson([GOOD]), kind=NDJSON)
    assert (answer.status, answer.json["type"]) == (400, "urn:windrow:problem:not-explained-here")


@pytest.mark.parametrize(
    ("made", "options", "problem"),
    [
        (lambda: pa.table({"x": pa.array(["a"]).dictionary_encode()}), {}, "wrong-type"),
        (lambda: pa.table({"x": [[1]]}), {}, "wrong-type"),
        (lambda: pa.table([[1], [2]], names=["x", "x"]), {}, "wrong-type"),
        (lambda: pa.table({"x": pa.array([0], pa.timestamp("ns", "UTC"))}), {}, "wrong-type"),
        (lambda: pa.table({"x": [0.0] * 1000}), {"options": pa.ipc.IpcWriteOptions(compression="zstd")}, "wrong-type"),
        (lambda: pa.table({"x": pa.nulls(1000)}), {}, "batch-too-large"),
        (lambda: pa.table({"x": pa.array([2**62], pa.timestamp("us", "UTC"))}), {}, "wrong-type"),
    ],
)  # fmt: skip
def test_columns_that_a_row_cannot_have_end_the_stream(fraud: Caller, made: Any, options: Any, problem: str) -> None:
    answers = table(fraud, arrow(made(), **options)).to_pylist()
    assert [(a["line"], a["ended"], a["problem"]) for a in answers] == [(0, True, f"urn:windrow:problem:{problem}")]


def _taken(body: bytes) -> int:
    """The status of what is wrong with a stream, or 0."""
    batches = Batches()
    try:
        batches.feed(body)
        while batches.take(64):
            pass
        batches.finish()
    except RequestError as error:
        return error.status
    return 0


GOOD_ARROW = arrow(pa.Table.from_pylist([GOOD] * 3))


@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, len(GOOD_ARROW) - 1), st.integers(0, 255))))
def test_damaged_arrow_streams_are_refused_as_such_and_never_fail_otherwise(damage: bytes | tuple[int, int]) -> None:
    if isinstance(damage, tuple):
        body = GOOD_ARROW[: damage[0]] + bytes([damage[1]]) + GOOD_ARROW[damage[0] + 1 :]
    else:
        body = damage
    assert _taken(body) in (0, 400, 413, 422)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_lines_are_the_same_however_they_arrive(body: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(body)]
    parts = [body[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    found = Lines()
    for part in parts:
        found.feed(part)
    found.finish()
    expected = [(i, line) for i, line in enumerate(body.split(b"\n")) if line.strip()]
    assert found.take(1000) == expected
