"""A key for a session, and what another site can try with a browser that is signed in."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

from tests.serving.conftest import Answered, Caller, make_key_for, signed
from tests.serving.world import GOOD
from windrow.serving import sessions
from windrow.serving.sessions import Sessions
from windrow.stores.metadata import Metadata

HTML = (b"accept", b"text/html,*/*")


def sign_in(caller: Caller, key: str, place: str = "/", **scope: Any) -> Answered:
    body = f"key={quote(key)}&next={quote(place, safe='')}".encode()
    return caller("POST", "/ui/login", body, kind="application/x-www-form-urlencoded", **{"headers": [], **scope})


def cookie_of(answer: Answered) -> tuple[bytes, bytes]:
    return b"cookie", answer.headers["set-cookie"].partition(";")[0].encode()


def csrf_of(caller: Caller, cookie: tuple[bytes, bytes]) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', caller("GET", "/", headers=[cookie]).body.decode())
    assert found is not None
    return found[1]


@pytest.fixture
def cookie(fraud: Caller) -> tuple[bytes, bytes]:
    return cookie_of(sign_in(fraud, make_key_for(fraud.worker, "metrics", "predict")))


def test_a_browser_without_a_session_is_sent_to_the_form_and_comes_back_where_it_wanted(fraud: Caller) -> None:
    answer = fraud("GET", "/ui/lineage", headers=[HTML], query_string=b"service=fraud")
    assert (answer.status, answer.headers["location"]) == (303, "/ui/login?next=%2Fui%2Flineage%3Fservice%3Dfraud")
    form = fraud("GET", "/ui/login", headers=[HTML], query_string=b"next=%2Fui%2Flineage%3Fservice%3Dfraud")
    assert (form.status, b'name="next" value="/ui/lineage?service=fraud"' in form.body) == (200, True)
    done = sign_in(fraud, make_key_for(fraud.worker, "metrics"), "/ui/lineage?service=fraud")
    assert (done.status, done.headers["location"]) == (303, "/ui/lineage?service=fraud")


def test_a_program_without_a_key_is_told_and_not_sent_to_a_form(fraud: Caller) -> None:
    assert fraud("GET", "/ui/lineage", headers=[(b"accept", b"*/*")]).status == 401
    assert fraud("POST", "/v1/fraud/predict", GOOD, headers=[HTML]).status == 401


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "metrics")
    attributes = sign_in(fraud, key).headers["set-cookie"].split("; ")
    assert re.fullmatch(r"windrow=[\w-]{43}", attributes[0])
    assert attributes[1:] == ["Path=/", "HttpOnly", "SameSite=Strict"]
    secure = sign_in(fraud, key, scheme="https").headers["set-cookie"].split("; ")
    assert (secure[0].partition("=")[0], secure[-1]) == ("__Host-windrow", "Secure")


def test_with_its_cookie_a_browser_sees_the_pages_its_key_may_see(fraud: Caller, cookie: tuple[bytes, bytes]) -> None:
    assert fraud("GET", "/", headers=[cookie]).status == 200
    assert fraud("GET", "/metrics", headers=[(b"cookie", b"other=1; " + cookie[1] + b"; third=2")]).status == 200
    assert fraud("GET", "/v1/requests/x/explanation", headers=[cookie]).status == 403


def test_what_changes_something_needs_the_token_of_the_session(fraud: Caller, cookie: tuple[bytes, bytes]) -> None:
    def ask(*headers: tuple[bytes, bytes]) -> int:
        return fraud("POST", "/v1/fraud/predict", GOOD, headers=[cookie, *headers]).status

    token = csrf_of(fraud, cookie)
    other = csrf_of(fraud, cookie_of(sign_in(fraud, make_key_for(fraud.worker, "metrics"))))
    assert [
        ask(),
        ask((b"x-csrf-token", b"")),
        ask((b"x-csrf-token", b"\xff")),
        ask((b"x-csrf-token", other.encode())),
    ] == [403] * 4
    assert ask((b"x-csrf-token", token.encode())) == 200


def test_signing_out_needs_the_token_ends_the_session_and_forgets_the_cookie(
    fraud: Caller, cookie: tuple[bytes, bytes]
) -> None:
    form = "application/x-www-form-urlencoded"
    token = csrf_of(fraud, cookie)
    assert fraud("POST", "/ui/logout", b"csrf=x", kind=form, headers=[cookie]).status == 403
    assert fraud("GET", "/", headers=[cookie]).status == 200
    done = fraud("POST", "/ui/logout", f"csrf={token}".encode(), kind=form, headers=[cookie])
    assert (done.status, done.headers["location"]) == (303, "/ui/login")
    assert "Max-Age=0" in done.headers["set-cookie"]
    assert fraud("GET", "/", headers=[cookie]).status == 401


def test_a_session_ends_with_its_key(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "metrics")
    cookie = cookie_of(sign_in(fraud, key))
    store = Metadata(fraud.worker.settings.metadata)
    store.revoke_key(key.split("_")[1])
    store.close()
    fraud.worker.guard.keyring.refresh()
    assert fraud("GET", "/", headers=[cookie]).status == 401


@pytest.mark.parametrize("limit", ["IDLE_SECONDS", "SECONDS"])
def test_a_session_ends_for_want_of_use_and_after_half_a_day(
    fraud: Caller, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(sessions, limit, 0)
    assert fraud("GET", "/", headers=[cookie_of(sign_in(fraud, make_key_for(fraud.worker, "metrics")))]).status == 401


def test_a_key_that_opens_nothing_gets_the_form_again_and_no_cookie(fraud: Caller) -> None:
    poor = make_key_for(fraud.worker, "predict")
    for key, status, told in (
        ("wr_x", 401, b"not valid here"),
        ("\udcff\x00", 401, b"not valid"),
        (poor, 403, b"lacks the scope"),
    ):
        body = f"key={quote(key, errors='replace')}".encode()
        answer = fraud("POST", "/ui/login", body, headers=[])
        assert (answer.status, told in answer.body, "set-cookie" in answer.headers) == (status, True, False)
        assert b'value="wr_' not in answer.body


@pytest.mark.parametrize(
    "place", ["//attacker.example", "https://attacker.example", "/\\attacker.example", "", "javascript:alert(1)", "/a\r\nset-cookie: x=1", "/" + "a" * 600]
)  # fmt: skip
def test_signing_in_never_leads_elsewhere(fraud: Caller, place: str) -> None:
    assert sign_in(fraud, make_key_for(fraud.worker, "metrics"), place).headers["location"] == "/"


def test_what_an_address_carries_is_text_in_the_form(fraud: Caller) -> None:
    form = fraud("GET", "/ui/login", headers=[], query_string=b"next=/%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert b"<script" not in form.body
    assert form.headers["content-security-policy"].startswith("default-src 'none'")
    assert form.headers["cache-control"] == "no-store"


def test_a_form_of_another_site_signs_nobody_in(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "metrics")
    host = (b"host", b"127.0.0.1:3000")
    foreign = (b"https://attacker.example", b"null", b"http://[", b"http://[::1", b"\xff")
    for origin, status in (*((text, 403) for text in foreign), (b"http://127.0.0.1:3000", 303)):
        assert sign_in(fraud, key, headers=[host, (b"origin", origin)]).status == status


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"key=" + b"x" * 5000, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a=%d" % n for n in range(50)), "application/x-www-form-urlencoded", 401),
        (b"\xff\xfe=\x00", "application/x-www-form-urlencoded", 401),
        (b"{}", "application/json", 415),
    ],
)
def test_a_form_that_is_none_is_refused(fraud: Caller, body: bytes, kind: str, status: int) -> None:
    assert fraud("POST", "/ui/login", body, kind=kind, headers=[]).status == status


def test_a_guessed_cookie_is_no_session(fraud: Caller) -> None:
    for value in (b"windrow=", b"windrow=x", b"windrow", b";;;=", b"windrow=" + b"A" * 43, b"__Host-windrow=x"):
        assert fraud("GET", "/", headers=[(b"cookie", value)]).status == 401


def test_sessions_are_bounded_and_the_oldest_goes_first(fraud: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MOST", 3)
    held = Sessions(fraud.worker.guard.keyring)
    key = make_key_for(fraud.worker, "metrics")
    grant = fraud.worker.guard.keyring.find(key.encode())
    assert grant is not None
    cookies = [held.open(grant)[1] for _ in range(5)]
    found = [held.find({"headers": [(b"cookie", f"windrow={value}".encode())]}) is not None for value in cookies]
    assert found == [False, False, True, True, True]


def test_signing_in_and_out_is_in_the_audit_with_the_id_of_the_key(fraud: Caller) -> None:
    key = make_key_for(fraud.worker, "metrics")
    cookie = cookie_of(sign_in(fraud, key))
    fraud("POST", "/ui/logout", f"csrf={csrf_of(fraud, cookie)}".encode(), headers=[cookie])
    store = Metadata(fraud.worker.settings.metadata)
    id = key.split("_")[1]
    assert [row.action for row in store.audit() if row.who == f"key:{id}"] == ["signed in", "signed out"]
    store.close()


def test_a_key_in_the_header_needs_no_token(fraud: Caller, cookie: tuple[bytes, bytes]) -> None:
    headers = [*signed(make_key_for(fraud.worker, "predict")), cookie]
    assert fraud("POST", "/v1/fraud/predict", GOOD, headers=headers).status == 200
