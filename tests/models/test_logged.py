"""Logged vectors become training rows when their outcomes have matured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.models.worlds import DAY, World, chargebacks, fraud, fraud_world
from windrow import RandomSplit
from windrow.clock import to_micros
from windrow.errors import DataError, NotFoundError
from windrow.models.dataset import build_dataset, dataset_from_log, load_split, view_rows
from windrow.models.spine import spine_rows
from windrow.stores.engine import engine
from windrow.stores.log import LogRecord, LogWriter, PredictionLog


def prediction(number: int, at: int) -> LogRecord:
    return LogRecord(
        kind="prediction", request_id=f"r{number:03}", service="fraud", release="fraud-1", received_at=at + 1, event_time=at, known_at=at,
        keys={"card_id": number}, request={"payment_id": number, "card_id": number, "amount": float(number)},
        vector={"limit": 100.0, "plan": None if number % 2 else "a", "amount": float(number), "share": number / 100},
        output=0.5,
    )  # fmt: skip


def outcome(number: int, value: float, known_at: int) -> LogRecord:
    return LogRecord(
        kind="outcome", request_id=f"r{number:03}", service="fraud", received_at=known_at, event_time=known_at, known_at=known_at,
        outcome=value,
    )  # fmt: skip


def logged(folder: Path, *records: LogRecord) -> tuple[World, PredictionLog]:
    world = World(folder)
    with LogWriter(folder / "log", "api-0") as log:
        log.append(list(records))
    return world, PredictionLog(folder / "log", world.lake)


def build(world, log, folder, *, now=60 * DAY, **options):
    return dataset_from_log(
        fraud(split=RandomSplit(0.25), **options), world.lake, log, world.metadata, now=now, home=folder
    )


def test_a_dataset_of_the_log_has_the_vectors_that_were_served_with_posted_outcomes(tmp_path):
    records = [prediction(n, DAY) for n in range(1, 21)] + [outcome(n, n % 2, 5 * DAY) for n in range(1, 21)]
    world, log = logged(tmp_path, *records)
    made = build(world, log, tmp_path)
    assert (made.kind, made.rows, made.splits, made.excluded) == ("log", 20, {"train": 15, "test": 5}, {})
    test = load_split(made, fraud().view.contract, "test")
    numbers = np.array(test.rows["row"].to_pylist()) * 0 + [int(r[1:]) for r in test.rows["request_id"].to_pylist()]
    assert test.frame["amount"].tolist() == numbers.tolist()
    assert test.y.tolist() == (numbers % 2).tolist()
    assert test.frame["plan"].tolist() == ["(missing)" if n % 2 else "a" for n in numbers]


def test_nothing_is_learned_from_an_answer_that_was_given_without_a_vector(tmp_path):
    stored = [msgspec.structs.replace(prediction(n, DAY), vector={}, answered_by="precomputed") for n in range(21, 25)]
    records = [prediction(n, DAY) for n in range(1, 21)] + [outcome(n, n % 2, 5 * DAY) for n in range(1, 25)]
    world, log = logged(tmp_path, *records, *stored)
    assert build(world, log, tmp_path).rows == 20


def test_an_outcome_posted_before_maturity_does_not_count_yet(tmp_path):
    world, log = logged(tmp_path, prediction(1, DAY), outcome(1, 1.0, 2 * DAY))
    with pytest.raises(DataError, match=r"no row of service 'fraud' has a known label.*1 rows: 1 immature, 0 unknown"):
        build(world, log, tmp_path, now=11 * DAY - 1)


def test_without_a_posted_outcome_the_labels_source_says_what_came_of_it(tmp_path):
    world, log = logged(tmp_path, *(prediction(n, DAY) for n in range(1, 9)), outcome(2, 1.0, 5 * DAY))
    world.add(chargebacks, payment_id=[1], card_id=[1], ts=[3 * DAY], seen=[3 * DAY])
    made = build(world, log, tmp_path)
    labels = np.concatenate([load_split(made, fraud().view.contract, name).y for name in ("train", "test")])
    assert (made.rows, labels.sum()) == (8, 2.0)


def test_without_any_outcome_a_logged_row_is_unknown(tmp_path):
    world, log = logged(
        tmp_path, *(prediction(n, DAY) for n in range(1, 9)), *(outcome(n, 0.0, 5 * DAY) for n in range(1, 7))
    )
    made = build(world, log, tmp_path)
    assert (made.rows, made.excluded) == (6, {"unknown": 2})


def test_a_log_that_is_younger_than_its_test_time_is_split_at_random(tmp_path):
    records = [prediction(n, DAY) for n in range(1, 21)] + [outcome(n, n % 2, 5 * DAY) for n in range(1, 21)]
    world, log = logged(tmp_path, *records)
    made = dataset_from_log(fraud(), world.lake, log, world.metadata, now=60 * DAY, home=tmp_path)
    assert (made.split, made.splits) == ("RandomSplit(test=0.25, validation=0.0, seed=0)", {"train": 15, "test": 5})


def test_an_empty_log_is_an_error_that_says_how_to_fill_it(tmp_path):
    world = World(tmp_path)
    with pytest.raises(NotFoundError, match=r"service 'fraud' has no logged prediction yet.*POST /v1/fraud/predict"):
        build(world, PredictionLog(tmp_path / "log", world.lake), tmp_path)


def test_a_dataset_of_the_log_equals_the_offline_join_on_their_common_features(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.groups(service)
    offline = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    served = view_rows(
        service, world.lake, engine(), spine_rows(service, world.lake, engine(), now=60 * DAY)
    ).to_pylist()
    names = list(service.view.contract.feature_names)
    records = [
        LogRecord(
            kind="prediction", request_id=f"r{row['payment_id']:04}", service="fraud", release="fraud-1", output=0.5,
            received_at=micros(row), event_time=micros(row), known_at=micros(row), keys={"card_id": row["card_id"]},
            request={name: row[name] for name in ("payment_id", "card_id", "amount")}, vector={name: row[name] for name in names},
        )
        for row in served
    ]  # fmt: skip
    with LogWriter(tmp_path / "log", "api-0") as log:
        log.append(records)
    logged = dataset_from_log(service, world.lake, PredictionLog(tmp_path / "log", world.lake), world.metadata, now=60 * DAY, home=tmp_path)  # fmt: skip
    assert (logged.splits, logged.excluded) == (offline.splits, offline.excluded)
    for split in offline.splits:
        one, two = (load_split(d, service.view.contract, split) for d in (offline, logged))
        order, turned = (np.argsort(part.rows["payment_id"].to_numpy()) for part in (one, two))
        for name in names:
            assert one.frame[name][order].tolist() == two.frame[name][turned].tolist()
        assert one.y[order].tolist() == two.y[turned].tolist()


def micros(row) -> int:
    return to_micros(row["event_time"])
