"""Who may ask what: keys, scopes, rates, and what somebody without a key can try."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving import world
from tests.serving.conftest import Answered, Caller, eventually, make_key_for, settings_in, signed
from tests.serving.world import GOOD
from windrow.serving import keyring as keyring_module
from windrow.serving.guard import Guard, needs
from windrow.serving.keyring import Grant, Keyring
from windrow.serving.keys import LENGTH, SCOPES, digest, make_key
from windrow.serving.worker import Worker
from windrow.stores.metadata import AccessKey, Metadata

PREDICT, OUTCOMES = "/v1/fraud/predict", "/v1/fraud/outcomes"


def with_key(caller: Caller, key: str, method: str = "POST", path: str = PREDICT, body: Any = GOOD) -> Answered:
    return caller(method, path, body, headers=signed(key))


def problem(answer: Answered) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, answer.json["type"].removeprefix("urn:windrow:problem:")


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_health_is_told_to_everybody(fraud: Caller, path: str) -> None:
    assert fraud("GET", path, headers=[]).status == 200


def test_readiness_names_releases_and_reasons_only_to_a_key_that_may_know_how_things_are(fresh: Caller) -> None:
    settings = fresh.worker.settings
    world.release_fraud(settings)
    eventually(lambda: fresh.worker.live.ready)
    predicts, knows = (make_key_for(fresh.worker, scope) for scope in ("predict", "metrics"))
    strangers = ([], signed(predicts), signed("wr_nothing"), [(b"cookie", b"windrow=x")])
    told = [fresh("GET", "/readyz", headers=headers) for headers in strangers]
    assert {(a.status, json.dumps(a.json)) for a in told} == {
        (200, '{"status": "ready", "services": {"fraud": "ready"}}')
    }
    assert fresh("GET", "/readyz", headers=signed(knows)).json == {"status": "ready", "releases": {"fraud": "fraud-1"}}
    world.release_fraud(settings, 2, promote=False)
    (settings.home / "releases" / "fraud-2" / "model.onnx").write_bytes(b"broken")
    metadata = Metadata(settings.metadata)
    metadata.deploy("fraud", "fraud-2", reason="test", at=0)
    metadata.close()
    eventually(lambda: not fresh.worker.live.ready)
    told = [fresh("GET", "/readyz", headers=headers) for headers in strangers]
    assert {(a.status, a.json["detail"]) for a in told} == {(503, "Service 'fraud' is not ready")}
    assert (
        "model.onnx is not the file that was released" in fresh("GET", "/readyz", headers=signed(knows)).json["detail"]
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PREDICT), ("POST", "/v1/nothing/predict"), ("POST", OUTCOMES), ("POST", "/v1/ingest/payments"), ("GET", "/v1/fraud"),
        ("GET", "/v1/openapi.json"), ("GET", "/docs.json"), ("GET", "/metrics"), ("GET", "/"), ("GET", "/ui/lineage"),
        ("GET", "/ui/reports/fraud/drift.html"), ("GET", "/ui/releases/fraud-1"), ("POST", "/ui/logout"), ("GET", "/nowhere"),
        ("OPTIONS", "*"), ("DELETE", "/v1/fraud"), ("GET", "/healthz/"), ("GET", "//healthz"), ("POST", "/v1/fraud/predict/"), ("GET", ""),
    ],
)  # fmt: skip
def test_without_a_key_everything_else_is_401_with_the_way_to_get_one(fraud: Caller, method: str, path: str) -> None:
    answer = fraud(method, path, headers=[])
    assert problem(answer) == (401, "no-key")
    assert answer.headers["www-authenticate"] == 'Bearer realm="windrow"'
    assert "windrow keys create" in answer.json["next"]


def test_a_key_may_do_what_its_scopes_say_and_nothing_else(fraud: Caller) -> None:
    addresses = {
        "predict": ("POST", PREDICT), "outcomes": ("POST", OUTCOMES), "ingest": ("POST", "/v1/ingest/payments"),
        "explain": ("GET", "/v1/requests/x-1/explanation"), "metrics": ("GET", "/metrics"),
    }  # fmt: skip
    for scope in SCOPES:
        key = make_key_for(fraud.worker, scope)
        answers = {needed: with_key(fraud, key, *address) for needed, address in addresses.items()}
        refused = {needed for needed, answer in answers.items() if answer.status == 403}
        assert refused == (set() if scope == "admin" else {*addresses} - {scope}), scope
        assert {answer.status for answer in answers.values()} & {401} == set()
        for needed in refused:
            assert problem(answers[needed]) == (403, "wrong-scope")
            assert f"the scope '{needed}'" in answers[needed].json["detail"]
            assert f'error="insufficient_scope", scope="{needed}"' in answers[needed].headers["www-authenticate"]


def test_any_key_may_read_the_description_and_finds_nothing_elsewhere(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "ingest")
    assert with_key(fraud, key, "GET", "/v1/fraud").status == 200
    assert with_key(fraud, key, "GET", "/v1/openapi.json").status == 200
    assert problem(with_key(fraud, key, "GET", "/v1/fraud/secrets")) == (404, "no-page")


def test_every_address_that_the_interface_names_has_a_scope_of_its_own(fraud: Caller) -> None:
    document = fraud("GET", "/v1/openapi.json").json
    assert {path: needs(path) for path in document["paths"]} == {
        PREDICT: "predict", "/v1/fraud/batch": "predict", OUTCOMES: "outcomes", "/v1/fraud": "any",
        "/v1/requests/{id}/explanation": "explain",
    }  # fmt: skip


def test_the_interface_says_that_keys_are_asked_for_and_how_a_request_is_refused(fraud: Caller) -> None:
    document = fraud("GET", "/v1/openapi.json").json
    assert document["components"]["securitySchemes"] == {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "An access key: windrow keys create NAME --scope ...",
        }
    }
    operation = document["paths"][PREDICT]["post"]
    assert operation["security"] == [{"key": ["predict"]}]
    assert {"401", "403", "429"} <= set(operation["responses"])
    assert "Retry-After" in operation["responses"]["429"]["headers"]


@pytest.mark.parametrize(
    "header",
    [
        b"", b"Bearer", b"Bearer ", b"Bearer  ", b"Basic d3I6eA==", b"wr_0123456789_" + b"0" * 64, b"Bearer wr_", b"Bearer wr__",
        b"Bearer " + b"\xff" * LENGTH, b"Bearer " + "wr_schlüssel".encode(), b"Bearer " + b"A" * 60_000, b"\x00", b"Bearer wr_\r\nx: y",
        b"Bearer wr_0123456789_" + b"0" * 64, b"Bearer " + b"wr_" * 26, b"Bearer,Bearer", b"Token x",
    ],
)  # fmt: skip
def test_garbage_in_the_header_is_401_and_is_not_echoed(fraud: Caller, header: bytes) -> None:
    answer = fraud("POST", PREDICT, GOOD, headers=[(b"authorization", header)])
    assert problem(answer) == (401, "no-key")
    assert answer.headers["www-authenticate"] == 'Bearer realm="windrow", error="invalid_token"'
    assert len(header) < 20 or header[7:20] not in answer.body


@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"cookie", b"x-api-key", b"host"]), st.binary(max_size=200)))
)
@settings(max_examples=60, deadline=None)
def test_no_bytes_in_any_header_let_a_stranger_in(fraud: Caller, headers: list[tuple[bytes, bytes]]) -> None:
    assert fraud("POST", PREDICT, GOOD, headers=headers).status == 401


@given(place=st.integers(0, LENGTH - 1), letter=st.sampled_from(list("0123456789abcdefwr_ A")))
@settings(max_examples=60, deadline=None)
def test_a_key_with_any_one_character_changed_is_no_key(fraud: Caller, place: int, letter: str) -> None:
    key = fraud.signed[0][1].decode().removeprefix("Bearer ")
    changed = key[:place] + letter + key[place + 1 :]
    assert with_key(fraud, changed).status == (200 if changed == key else 401)


def test_a_key_that_is_cut_or_longer_is_no_key(fraud: Caller) -> None:
    key = fraud.signed[0][1].decode().removeprefix("Bearer ")
    assert {
        with_key(fraud, other).status for other in (key[:-1], key + "0", key + " ", f"{key},{key}", key.upper())
    } == {401}


def test_the_scheme_is_taken_in_any_case(fraud: Caller) -> None:
    value = fraud.signed[0][1]
    assert fraud("POST", PREDICT, GOOD, headers=[(b"authorization", b"bearer" + value[6:])]).status == 200


def test_two_authorization_headers_are_refused_even_if_both_are_valid(fraud: Caller) -> None:
    answer = fraud("POST", PREDICT, GOOD, headers=[*fraud.signed, *fraud.signed])
    assert problem(answer) == (401, "no-key")
    assert answer.json["detail"] == "There are several headers Authorization"


def test_a_key_of_another_home_is_unknown_here(fraud: Caller, tmp_path: Path) -> None:
    elsewhere = Metadata(f"sqlite:///{tmp_path}/metadata.db")
    _, key = make_key(elsewhere, "other", scopes=["admin"])
    elsewhere.close()
    assert with_key(fraud, key).status == 401


def test_an_expired_key_is_refused_from_that_moment_on(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "predict", expires_at=time.time_ns() // 1000 + 1_500_000)
    assert with_key(fraud, key).status == 200
    eventually(lambda: with_key(fraud, key).status == 401, seconds=10)


def test_a_revoked_key_is_refused_within_a_second_while_it_is_in_use(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "predict")
    assert with_key(fraud, key).status == 200
    store = Metadata(fraud.worker.settings.metadata)
    store.revoke_key(key.split("_")[1])
    revoked = time.monotonic()
    eventually(lambda: with_key(fraud, key).status == 401, seconds=10)
    assert keyring_module.POLL_SECONDS <= 0.5  # what makes it within a second; the rest is this machine's
    assert time.monotonic() - revoked < 5
    store.close()


def test_a_key_that_is_made_while_the_service_runs_works_without_a_restart(fraud: Caller) -> None:
    store = Metadata(fraud.worker.settings.metadata)
    _, key = make_key(store, "late", scopes=["predict"])
    store.close()
    eventually(lambda: with_key(fraud, key).status == 200)


def test_a_burst_gets_exactly_its_rate_and_the_rest_429_with_the_seconds_to_wait(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "predict", rate=0.01)  # one, and the next in a hundred seconds
    answers = [with_key(fraud, key) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 429, 429, 429, 429]
    assert problem(answers[1]) == (429, "too-often")
    assert 95 <= int(answers[1].headers["retry-after"]) <= 100


@given(rate=st.floats(0.01, 5000), waits=st.lists(st.integers(0, 2_000_000_000), max_size=60))
def test_a_rate_is_never_exceeded_over_any_time(rate: float, waits: list[int]) -> None:
    grant = Grant(AccessKey("0a", "n", "ab" * 32, ("predict",), rate, None, at=0))
    burst, now, passed = max(1, -(-rate // 1)), 0, []
    for _ in range(int(min(burst, 200)) + 5):
        passed += [now] if grant.spend(now) == 0 else []
    assert len(passed) == min(burst, min(burst, 200) + 5)  # at one moment: the burst, to the last one
    for wait in waits:
        now += wait
        passed += [now] if grant.spend(now) == 0 else []
    for i, begin in enumerate(passed):
        within = len(passed) - i
        assert within <= burst + rate * (passed[-1] - begin) / 1e9 + 1e-3 * rate + 1


def test_who_waits_as_long_as_told_is_let_in() -> None:
    grant = Grant(AccessKey("0a", "n", "ab" * 32, ("predict",), 3.0, None, at=0))
    assert [grant.spend(0) for _ in range(3)] == [0, 0, 0]
    wait = grant.spend(0)
    assert (grant.spend(wait - 1), grant.spend(wait)) == (1, 0)


def test_other_keys_being_made_do_not_refill_a_rate(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "predict", rate=0.001)
    assert with_key(fraud, key).status == 200
    make_key_for(fraud.worker, "predict")
    assert with_key(fraud, key).status == 429


def test_ten_thousand_unknown_keys_leave_no_memory_behind(fraud: Caller) -> None:
    guard = fraud.worker.guard

    def ask(number: int) -> None:
        key = f"Bearer wr_{number:010x}_{number:064x}".encode()
        with pytest.raises(Exception, match="not valid here"):
            guard.admit({"type": "http", "method": "POST", "path": PREDICT, "headers": [(b"authorization", key)]})

    ask(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(10_000):
        ask(number)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000  # ten thousand keys alone would be a megabyte


def test_secrets_are_compared_in_constant_time_and_only_hashes_are_kept(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "predict")
    (kept,) = [row for row in Metadata(fraud.worker.settings.metadata).access_keys() if row.id == key.split("_")[1]]
    assert bytes.fromhex(kept.hash) == digest(key.encode())
    assert "compare_digest" in Keyring.find.__code__.co_names


def test_a_refused_body_is_not_read(fraud: Caller) -> None:
    async def unread() -> Any:
        raise AssertionError("the body was read")

    import asyncio

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": []}
    asyncio.run(fraud.app(scope, unread, send))
    assert sent[0]["status"] == 401


def test_keys_are_believed_for_minutes_without_the_store_and_then_nobody_is_let_in(
    fraud: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fraud.predict(GOOD).status == 200
    monkeypatch.setattr(keyring_module, "STALE_SECONDS", -1.0)
    answer = fraud.predict(GOOD)
    assert problem(answer) == (503, "keys-unknown")
    assert answer.headers["retry-after"] == "5"


def test_a_store_that_cannot_be_read_is_told_once_and_keys_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metadata.db"
    metadata = Metadata(f"sqlite:///{path}")
    _, key = make_key(metadata, "n", scopes=["predict"])
    keyring = Keyring(metadata)
    keyring.start()
    with closing(sqlite3.connect(path)) as file:
        file.execute("ALTER TABLE changes RENAME TO away")
    eventually(lambda: "access keys cannot be read" in caplog.text)
    time.sleep(3 * keyring_module.POLL_SECONDS)
    assert keyring.find(key.encode()) is not None
    assert caplog.text.count("access keys cannot be read") == 1
    keyring.close()


@pytest.mark.parametrize("damage", ["document = json_set(document, '$.rate', 1e-320)", "hash = 'zz'"])
def test_a_damaged_key_is_refused_and_all_others_are_followed(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metadata.db"
    metadata = Metadata(f"sqlite:///{path}")
    (bad, key), (good, other) = (make_key(metadata, n, scopes=["predict"], rate=5.0) for n in ("bad", "good"))
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(f"UPDATE access_keys SET {damage} WHERE id = ?", (bad.id,))
    keyring = Keyring(metadata)
    keyring.refresh()
    assert (keyring.find(key.encode()), keyring.find(other.encode()) is not None) == (None, True)
    assert f"access key {bad.id} is refused" in caplog.text
    metadata.revoke_key(good.id)
    keyring.refresh()
    assert keyring.find(other.encode()) is None
    keyring.close()


def test_refusals_are_counted(fresh: Caller) -> None:
    fresh("POST", PREDICT, GOOD, headers=[])
    metrics = fresh("GET", "/metrics").body
    assert b'windrow_requests_total{route="refused",service="",status="401"} 1.0' in metrics


def test_no_key_and_no_hash_is_written_anywhere_or_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = settings_in(tmp_path)
    world.publish(made)
    world.release_fraud(made)
    worker = Worker(made, committer=False)
    worker.start()
    eventually(lambda: worker.live.ready)
    caller = Caller(worker)
    good, poor, gone = (make_key_for(worker, *scopes) for scopes in (("admin",), ("ingest",), ("predict",)))
    store = Metadata(made.metadata)
    store.revoke_key(gone.split("_")[1])
    worker.guard.keyring.refresh()
    unknown = "wr_0123456789_" + "5" * 64
    answers = [with_key(caller, key) for key in (good, poor, gone, unknown)]
    answers += [caller("POST", "/ui/login", f"key={key}".encode(), headers=[]) for key in (good, poor, gone, unknown)]
    answers += [
        with_key(caller, good, body={"card_id": good, "amount": 1, "x": 1}),
        with_key(caller, good, "GET", "/metrics"),
    ]
    cookie = answers[4].headers["set-cookie"].split("=", 1)[1].partition(";")[0]
    told = b"".join(answer.body for answer in answers) + caplog.text.encode() + repr(store.audit()).encode()
    told += repr(store.access_keys()).encode() + repr(worker.guard.keyring._grants).encode() + repr(made).encode()
    hashes = [digest(key.encode()).hex() for key in (good, poor, gone)]
    worker.close()
    store.close()
    files = {str(p): p.read_bytes() for p in made.home.rglob("*") if p.is_file()}
    assert any("log" in name for name in files)
    for key in (good, poor, gone, unknown):
        secret = key.rpartition("_")[2].encode()
        assert secret not in told
        assert [name for name, data in files.items() if secret in data] == []
    for hash in hashes:  # kept in the metadata store, and nowhere else
        assert hash.encode() not in told
        assert {Path(name).name.partition("-")[0] for name, data in files.items() if hash.encode() in data} == {
            "metadata.db"
        }
    assert [name for name, data in files.items() if cookie.encode() in data] == []


@pytest.fixture
def everybody(tmp_path: Path) -> Iterator[Caller]:
    """A worker that asks for no keys."""
    worker = Worker(msgspec.structs.replace(settings_in(tmp_path), insecure=True), committer=False)
    worker.start()
    yield Caller(worker)
    worker.close()


@pytest.mark.parametrize("host", [b"127.0.0.1:3000", b"localhost", b"localhost:3000", b"[::1]:3000", b"127.8.9.1"])
def test_insecure_is_answered_under_every_name_of_this_machine(everybody: Caller, host: bytes) -> None:
    assert everybody("GET", "/metrics", headers=[(b"host", host)]).status == 200


@pytest.mark.parametrize(
    "scope",
    [
        {"headers": [(b"host", b"attacker.example:3000")]},
        {"headers": [(b"host", b"localhost.attacker.example")]},
        {"headers": [(b"host", b"127.0.0.1.nip.example")]},
        {"headers": [(b"host", b"localhost@attacker.example")]},
        {"headers": [(b"host", b"")]},
        {"headers": [(b"host", b"\xff\x00[")]},
        {"headers": [(b"host", b"localhost" + b"0" * 10_000)]},
        {"headers": [(b"host", b"127.0.0.1"), (b"origin", b"https://attacker.example")]},
        {"headers": [(b"host", b"127.0.0.1"), (b"origin", b"null")]},
        {"headers": [(b"host", b"127.0.0.1"), (b"x-forwarded-for", b"192.0.2.7")]},
        {"headers": [], "client": ("192.0.2.7", 1)},
        {"headers": [], "client": ("fe80::1%eth0", 1)},
        {"headers": [], "client": None},
    ],
)
def test_insecure_is_refused_from_elsewhere_and_under_other_names(everybody: Caller, scope: dict[str, Any]) -> None:
    assert problem(everybody("GET", "/metrics", **scope)) == (403, "not-from-here")
    assert everybody("GET", "/livez", **scope).status == 200


def test_insecure_asks_nobody_to_sign_in(everybody: Caller) -> None:
    answer = everybody("GET", "/ui/login", headers=[])
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert everybody("GET", "/", headers=[(b"accept", b"text/html")]).status == 200


def test_a_guard_needs_nothing_but_a_keyring(tmp_path: Path) -> None:
    keyring = Keyring(Metadata(f"sqlite:///{tmp_path}/metadata.db"))
    keyring.refresh()
    Guard(keyring).admit({"type": "http", "method": "GET", "path": "/livez", "headers": []})
    keyring.close()


def test_problems_stay_json_and_small_whatever_the_path(fraud: Caller) -> None:
    answer = fraud("GET", "/v1/" + "x" * 60_000 + "/predict", headers=[])
    assert answer.status == 401
    assert len(json.dumps(answer.json)) < 600
