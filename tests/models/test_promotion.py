"""Promotion has rules; who goes against them signs, and that stays visible."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Engine, event

from tests.models.making import NUMBERS, fitted, frame_of, release_of
from windrow.clock import Clock, parse_time
from windrow.errors import DeclarationError, ModelError, NotFoundError
from windrow.models.compile import compile_estimator
from windrow.models.packing import pack
from windrow.models.promotion import Override, stale_groups
from windrow.models.registry import Registry
from windrow.models.release import GateResult, Release, Waived, encode_release
from windrow.stores.metadata import Metadata

DAY = 86_400_000_000
FAILED = GateResult(
    "auc", 0.6, "at least 0.7", False, "auc is 0.6 on 90 rows; the bar is at least 0.7", name="gate_auc"
)
ADA = Override(by="ada", reason="the old model is down")


@pytest.fixture(scope="module")
def made() -> tuple[Release, dict[str, bytes]]:
    frame = frame_of(NUMBERS, missing=False)
    compiled = compile_estimator(fitted(LogisticRegression(), frame), NUMBERS, frame)
    files = pack(compiled, NUMBERS, frame)
    return release_of(compiled, NUMBERS, files), files


class Shop:
    """A registry on a data clock, with releases of one service."""

    def __init__(self, home: Path, made: tuple[Release, dict[str, bytes]]) -> None:
        self.metadata = Metadata(f"sqlite:///{home / 'metadata.db'}")
        self.registry = Registry(self.metadata, home / "releases", clock=Clock("data"))
        self._made = made

    def add(self, number: int, **facts: object) -> str:
        release, files = self._made
        id = f"toy-{number}"
        facts = {"sources": ("rows",), **facts}
        self.registry.register(msgspec.structs.replace(release, id=id, number=number, **facts), files)
        return id

    def known(self, day: int, source: str = "rows") -> None:
        """The source's data reach this day."""
        self.metadata.record_span(source, first=0, last=day * DAY, known=day * DAY, rows=day)


@pytest.fixture
def shop(tmp_path, made) -> Shop:
    return Shop(tmp_path, made)


def test_a_release_whose_gate_failed_is_not_promoted_and_told_why(shop):
    id = shop.add(1, gates=[FAILED])
    with pytest.raises(
        ModelError, match=r"gate_auc failed: auc is 0.6 on 90 rows; the bar is at least 0.7. Next: .*--override"
    ):
        shop.registry.promote("toy", id, reason="please")
    assert shop.registry.live("toy") is None


def test_a_release_that_was_never_evaluated_is_not_promoted(shop):
    id = shop.add(1, metrics={})
    with pytest.raises(ModelError, match="was never evaluated: it has no metric of held-out rows"):
        shop.registry.promote("toy", id, reason="please")


def test_an_override_is_signed_and_stays_in_the_history(shop):
    id = shop.add(1, gates=[FAILED], metrics={})
    signed = shop.registry.promote("toy", id, reason="down", at=5, override=ADA)
    assert signed is not None
    assert [text[:20] for text in signed.objections] == ["gate_auc failed: auc", "it was never evaluat"]
    deployment = shop.registry.history("toy")[0]
    assert (deployment.release, deployment.at, deployment.override["by"]) == (id, 5, "ada")
    assert deployment.override["reason"] == "the old model is down"


def test_where_no_rule_is_in_the_way_nothing_is_signed(shop):
    assert shop.registry.promote("toy", shop.add(1), reason="good", override=ADA) is None
    assert shop.registry.history("toy")[0].override is None


@pytest.mark.parametrize(("by", "reason", "missing"), [("", "why", "signature"), ("ada", " ", "reason")])
def test_an_override_without_a_name_or_a_reason_is_none(by, reason, missing):
    with pytest.raises(DeclarationError, match=f'an override has no {missing}.*--override "why" --by "your name"'):
        Override(by=by, reason=reason)


def test_an_override_does_not_promote_a_damaged_release(shop, tmp_path):
    id = shop.add(1, gates=[FAILED])
    (tmp_path / "releases" / id / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"model\.onnx is not the file that was released"):
        shop.registry.promote("toy", id, reason="down", override=ADA)


def test_a_waived_gate_promotes_until_the_waiver_ends(shop):
    end = parse_time("2030-01-01")
    gates = [msgspec.structs.replace(FAILED, waived=Waived("the board", until=end))]
    id, late = shop.add(1, gates=gates), shop.add(2, gates=gates)
    shop.registry.promote("toy", id, reason="waived", at=end - 1)
    with pytest.raises(ModelError, match=r"gate_auc failed: .* \(its waiver ended on 2030-01-01\)"):
        shop.registry.promote("toy", late, reason="too late", at=end)


def test_a_group_without_materialisation_for_twice_its_schedule_is_in_the_way(shop):
    shop.known(day=100)
    shop.metadata.record_materialization("features/card_v1")
    first, id = (shop.add(number, groups={"card_v1": "abc"}, schedule="@daily") for number in (1, 2))
    shop.known(day=102)
    shop.registry.promote("toy", first, reason="two days are allowed")
    shop.known(day=103)
    with pytest.raises(
        ModelError,
        match=r"feature group 'card_v1' had no materialisation for 3d \(last 20.*\); twice its schedule \(@daily\) is 2d",
    ):
        shop.registry.promote("toy", id, reason="three are not")
    shop.metadata.record_materialization("features/card_v1")
    shop.registry.promote("toy", id, reason="materialised again")


def test_a_weekly_service_allows_its_groups_two_weeks(shop):
    shop.known(day=100)
    shop.metadata.record_materialization("features/card_v1")
    id = shop.add(1, groups={"card_v1": "abc"}, schedule="0 6 * * 1")
    shop.known(day=114)
    shop.registry.promote("toy", id, reason="two weeks")


def test_a_group_that_was_never_materialised_is_in_the_way(shop):
    id = shop.add(1, groups={"card_v1": "abc"})
    with pytest.raises(ModelError, match="its feature group 'card_v1' was never materialised"):
        shop.registry.promote("toy", id, reason="please")


def test_the_data_of_other_services_make_no_group_old(shop):
    shop.known(day=100)
    shop.metadata.record_materialization("features/card_v1")
    id = shop.add(1, groups={"card_v1": "abc"})
    shop.known(day=900, source="elsewhere")
    shop.registry.promote("toy", id, reason="its own sources stand still")


def test_the_real_clock_counts_from_the_run_and_a_fixed_one_stands_still(shop):
    shop.metadata.record_materialization("features/card_v1")
    release = shop.registry.release(shop.add(1, groups={"card_v1": "abc"}))
    later = Clock("fixed", time.time_ns() // 1000 + 90 * DAY)
    for clock in (Clock("real"), later):
        assert stale_groups(release, shop.metadata, clock=clock) == []


def test_rolling_back_goes_to_the_one_that_was_live_before(shop):
    first, second = shop.add(1), shop.add(2)
    for at, id in enumerate((first, second)):
        shop.registry.promote("toy", id, reason="next", at=at)
    assert shop.registry.rollback("toy", reason="worse", at=9).id == first
    assert [d.release for d in shop.registry.history("toy")] == [first, second, first]


def test_who_promotes_rolls_back_or_signs_is_in_the_audit(shop):
    first, second = shop.add(1), shop.add(2, gates=[FAILED])
    shop.registry.promote("toy", first, reason="first")
    shop.registry.promote("toy", second, reason="down", override=ADA)
    shop.registry.rollback("toy", reason="worse")
    rows = shop.metadata.audit()
    assert {row.who.partition(":")[0] for row in rows} == {"os"}
    assert [(row.action, row.subject, row.document) for row in rows] == [
        ("release promoted", "toy", {"release": first, "reason": "first"}),
        ("release promoted", "toy", {"release": second, "reason": "down", "signed_by": ADA.by}),
        ("release rolled back", "toy", {"release": first, "reason": "worse"}),
    ]


def test_rolling_back_needs_another_release_that_was_live(shop):
    shop.registry.promote("toy", shop.add(1), reason="first")
    shop.add(2)
    with pytest.raises(NotFoundError, match="service 'toy' never had another live release"):
        shop.registry.rollback("toy", reason="why not")


def test_rolling_back_to_features_that_nobody_materialises_is_refused_or_signed(shop):
    shop.known(day=1)
    for group in ("old_v1", "both_v1"):
        shop.metadata.record_materialization(f"features/{group}")
    first = shop.add(1, groups={"old_v1": "a", "both_v1": "b"})
    shop.registry.promote("toy", first, reason="first")
    shop.registry.promote("toy", shop.add(2, groups={"both_v1": "b"}), reason="second")
    shop.known(day=50)  # both are old now; what the live release reads as well is no reason to stay with it
    with pytest.raises(ModelError, match=r"cannot be promoted: its feature group 'old_v1' had .* is 2d\. Next"):
        shop.registry.rollback("toy", reason="worse")
    assert shop.registry.rollback("toy", reason="worse", override=ADA).id == first


def test_rolling_back_to_an_overridden_release_needs_no_second_signature(shop):
    first = shop.add(1, gates=[FAILED])
    shop.registry.promote("toy", first, reason="down", override=ADA)
    shop.registry.promote("toy", shop.add(2), reason="better")
    assert shop.registry.rollback("toy", reason="worse").id == first


def test_which_release_answered_at_a_time_is_known(shop):
    first, second = shop.add(1), shop.add(2)
    shop.registry.promote("toy", first, reason="first", at=10)
    shop.registry.promote("toy", second, reason="second", at=20)
    found = [shop.registry.live_at("toy", at) for at in (9, 10, 19, 20, 99)]
    assert [one and one.release for one in found] == [None, first, first, second, second]


def test_an_unknown_release_is_told_with_the_closest_one(shop):
    shop.add(1)
    with pytest.raises(
        NotFoundError, match="service 'toy' has no release 'toy-12'. It has 'toy-1'. Next: did you mean"
    ):
        shop.registry.promote("toy", "toy-12", reason="typo")


def test_a_thousand_releases_are_listed_by_one_question_to_the_store(shop, made):
    for number in range(1_000):
        one = msgspec.structs.replace(made[0], id=f"toy-{number}", number=number)
        shop.metadata.add_release("toy", one.id, encode_release(one))
    asked: list[str] = []

    def note(connection, cursor, statement, *_):
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert [release.number for release in shop.registry.list("toy")] == list(range(1_000))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(asked) == 1
