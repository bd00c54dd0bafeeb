"""Promises of experiments as they are started, changed and stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.serving import world
from tests.serving.conftest import settings_in
from windrow.commands.promote import say_compared
from windrow.errors import DeclarationError, ModelError, NotFoundError, StoreError, UnknownNameError
from windrow.models.experiment import Arm, Experiment, misfit, same_artefact, weighed
from windrow.models.experiments import Experiments, newest
from windrow.models.registry import Registry
from windrow.models.release import Release
from windrow.models.versions import kept_versions
from windrow.schema import Field
from windrow.settings import Settings
from windrow.stores.metadata import Metadata


class Place:
    """A registry with three releases of fraud that answer differently, the first one live."""

    def __init__(self, settings: Settings) -> None:
        self.metadata = Metadata(settings.metadata)
        self.registry = Registry(self.metadata, settings.folder("releases"))
        self.experiments = Experiments(self.metadata, self.registry)

    def start(self, name: str = "trial", **facts: Any) -> Experiment:
        return self.experiments.start(plan(name, **facts))


def plan(name: str = "trial", **facts: Any) -> Experiment:
    values: dict[str, Any] = {"arms": weighed({"new": ("fraud-2", 0.25)}), "unit": ("card_id",), **facts}
    return Experiment(service="fraud", name=name, **values)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the releases, to be copied."""
    settings = settings_in(tmp_path_factory.mktemp("released"))
    for number, shift in ((1, 0.0), (2, 0.5), (3, 1.0)):
        world.release_fraud(settings, number, shift=shift, promote=number == 1, groups={f"card_v{number}": "x"})
    return settings.home


@pytest.fixture
def place(settings: Settings, released: Path) -> Iterator[Place]:
    shutil.copytree(released, settings.home)
    made = Place(settings)
    yield made
    made.metadata.close()


def test_a_started_experiment_is_found_as_it_was_given(place: Place) -> None:
    started = place.start(holdout=0.1)
    assert place.experiments.list("fraud") == [started]
    assert started.running
    assert started.propensities == pytest.approx({"holdout": 0.1, "golden": 0.675, "new": 0.225})


def test_golden_takes_what_the_other_arms_leave(place: Place) -> None:
    assert [arm.weight for arm in place.start().arms] == [0.75, 0.25]
    assert [arm.weight for arm in place.experiments.reweigh("fraud", "trial", {"new": 0.4}).arms] == [0.6, 0.4]


def test_each_change_is_kept(place: Place) -> None:
    place.start()
    place.experiments.reweigh("fraud", "trial", {"new": 0.5}, reason="it does well")
    place.experiments.stop("fraud", "trial", reason="enough")
    history = place.experiments.history("fraud", "trial")
    assert [(one.arms[1].weight, one.running, one.reason) for one in history] == [
        (0.25, True, ""), (0.5, True, "it does well"), (0.5, False, "enough"),
    ]  # fmt: skip


def test_a_stopped_experiment_cannot_be_changed_or_begun_again(place: Place) -> None:
    place.start()
    place.experiments.stop("fraud", "trial", reason="enough")
    with pytest.raises(DeclarationError, match=r"'trial' was stopped \(enough\)"):
        place.experiments.reweigh("fraud", "trial", {"new": 0.5})
    with pytest.raises(DeclarationError, match="has an experiment 'trial' already"):
        place.start()


def test_releases_must_be_of_the_service(place: Place, settings: Settings) -> None:
    world.release_churn(settings)
    for id in ("fraud-9", "churn-1"):
        with pytest.raises(NotFoundError, match=f"service 'fraud' has no release '{id}'. It has 'fraud-1', 'fraud-2'"):
            place.start(arms=weighed({"new": (id, 0.1)}))
    with pytest.raises(NotFoundError, match="no release 'fraud-7'"):
        place.start(shadows=("fraud-7",))


def test_a_service_without_live_release_has_nothing_to_compare_with(place: Place, settings: Settings) -> None:
    world.release_churn(settings, promote=False)
    with pytest.raises(NotFoundError, match="service 'churn' has no live release to compare with"):
        place.experiments.start(msgspec.structs.replace(plan(), service="churn"))


def test_an_unknown_service_offers_the_closest(place: Place) -> None:
    for act in (
        lambda: place.experiments.start(msgspec.structs.replace(plan(), service="frad")),
        lambda: place.experiments.stop("frad", "x"),
    ):
        with pytest.raises(NotFoundError, match="no service 'frad' was ever released.*did you mean 'fraud'"):
            act()


@pytest.mark.parametrize(
    ("arms", "what"),
    [
        ((Arm("golden", 0.5), Arm("new", 0.4, "fraud-2")), "add up to 0.9"),
        ((Arm("golden", 1.1), Arm("new", -0.1, "fraud-2")), "the weight of arm 'new' is -0.1"),
        ((Arm("golden", 0.5), Arm("new", float("nan"), "fraud-2")), "the weight of arm 'new' is nan"),
        ((Arm("golden", float("inf")), Arm("new", 0.5, "fraud-2")), "the weight of arm 'golden' is inf"),
        ((Arm("new", 1.0, "fraud-2"),), "has no golden arm"),
        ((Arm("golden", 0.5), Arm("new", 0.5)), "arm 'new' has no release"),
        ((Arm("golden", 0.5), Arm("holdout", 0.5, "fraud-2")), "cannot call an arm 'holdout'"),
        ((Arm("golden", 0.5), Arm("golden", 0.5, "fraud-2")), "cannot call an arm 'golden'"),
        ((Arm("golden", 1.0),), "tries nothing"),
    ],
)
def test_arms_that_cannot_be_are_refused(arms: tuple[Arm, ...], what: str) -> None:
    with pytest.raises(DeclarationError, match=what):
        plan(arms=arms)


@pytest.mark.parametrize("facts", [{"holdout": 0.95}, {"holdout": -0.1}, {"share": 0.0}, {"share": float("nan")}])
def test_shares_that_cannot_be_are_refused(facts: dict[str, float]) -> None:
    with pytest.raises(DeclarationError, match="give a share from"):
        plan(**facts)


def test_weights_are_changed_for_arms_that_are_there(place: Place) -> None:
    place.start()
    with pytest.raises(NotFoundError, match="no arm 'nwe'. It has 'golden', 'new'. Next: did you mean 'new'"):
        place.experiments.reweigh("fraud", "trial", {"nwe": 0.5})
    with pytest.raises(DeclarationError, match="'golden' is -0.2. Next: give the others at most 1 together"):
        place.experiments.reweigh("fraud", "trial", {"new": 1.2})
    assert place.experiments.experiment("fraud", "trial").arms[1].weight == 0.25


def test_the_unit_is_made_of_entity_keys_of_a_request(place: Place) -> None:
    with pytest.raises(UnknownNameError, match="no entity key 'amount'. It has 'card_id', 'request'"):
        place.start(unit=("amount",))
    with pytest.raises(DeclarationError, match="each request is a unit of its own. Next: give 'request' alone"):
        place.start(unit=("card_id", "request"))


def test_equal_artefacts_are_not_compared(place: Place, settings: Settings) -> None:
    twin = world.release_fraud(settings, 4, promote=False)
    for facts in ({"arms": weighed({"new": (twin, 0.5)})}, {"shadows": (twin,)}):
        with pytest.raises(ModelError, match="would compare 'fraud-4' with itself: 'fraud-1' is the same model file"):
            place.start(**facts)
    with pytest.raises(ModelError, match="would compare 'fraud-1' with itself"):
        place.start(arms=weighed({"new": ("fraud-1", 0.5)}))


def test_a_shadow_is_given_once() -> None:
    with pytest.raises(DeclarationError, match="has the shadow 'fraud-2' 2 times. Next: give each shadow once"):
        plan(shadows=("fraud-2", "fraud-3", "fraud-2"))


@pytest.mark.parametrize("facts", [{}, {"arms": weighed({}), "shadows": ("fraud-2",)}], ids=["arm", "shadow"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_damaged_release_is_not_tried(place: Place, facts: dict[str, Any], damage: str) -> None:
    folder = place.registry.path("fraud-2")
    if damage == "gone":
        shutil.rmtree(folder)
    else:
        file = max((p for p in folder.iterdir() if "model" in p.name), key=lambda p: p.stat().st_size)
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match="fraud-2"):
        place.start(**facts)
    assert place.experiments.list("fraud") == []


def test_a_shadow_may_be_an_arm_too(place: Place) -> None:
    assert place.start(shadows=("fraud-2",)).releases == ("fraud-2",)


def test_a_release_that_needs_more_than_the_live_one_is_given_does_not_fit(place: Place) -> None:
    golden = place.registry.release("fraud-1")

    def other(**contract: Any) -> Release:
        changed = msgspec.structs.replace(golden.contract, **contract)
        return msgspec.structs.replace(golden, id="fraud-8", contract=changed)

    request = golden.contract.request
    assert misfit(golden, other(request=request[:2])) == ""
    assert "need not bring 'shop' (string)" in misfit(golden, other(request=(*request, Field("shop", "string"))))
    assert "need not bring 'payment_id'" in misfit(golden, other(request=(*request, Field("payment_id", "int64"))))
    strict = (*request[:2], Field("x", "float64", nullable=False))
    assert "may leave 'x' null" in misfit(golden, other(request=strict))
    assert "it predicts regression" in misfit(golden, msgspec.structs.replace(golden, task="regression"))
    assert not same_artefact(golden, other(request=request[:2]))


def test_a_layer_is_shared_out_and_then_full(place: Place) -> None:
    first = place.start("first", share=0.6)
    second = place.start("second", share=0.4, arms=weighed({"new": ("fraud-3", 0.5)}))
    assert (first.buckets, second.buckets) == (((0, 600),), ((600, 1000),))
    with pytest.raises(
        DeclarationError, match="layer 'main' has no room for 1% of its units. 'first', 'second' have 100%"
    ):
        place.start("third", share=0.01)
    place.experiments.stop("fraud", "first")
    assert place.start("third", share=0.01).buckets == ((0, 10),)


def test_a_layer_has_one_unit(place: Place) -> None:
    place.start("first", share=0.5)
    with pytest.raises(
        DeclarationError, match="layer 'main' is divided by 'card_id' .experiment 'first'.: by 'request'"
    ):
        place.start("second", share=0.5, unit=("request",))
    assert place.start("second", layer="limits", unit=("request",)).layer == "limits"


def test_two_who_start_at_once_do_not_both_get_the_layer(place: Place) -> None:
    # What the second one saw before the first one's row was written.
    number, known = place.experiments._known("fraud")
    place.start("first")
    place.experiments._known = lambda service: (number, known)  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="were changed meanwhile"):
        place.start("second")
    assert [name for _, name in newest(place.metadata)] == ["first"]


def test_a_feature_group_version_is_kept_while_an_experiment_needs_it(place: Place) -> None:
    def kept() -> set[str]:
        return {one.group for one in kept_versions(place.metadata, ["fraud"], keep=1)}

    assert kept() == {"card_v1", "card_v3"}
    place.start(arms=weighed({"new": ("fraud-2", 0.5)}))
    assert kept() == {"card_v1", "card_v2", "card_v3"}
    place.experiments.stop("fraud", "trial")
    assert kept() == {"card_v1", "card_v3"}


def test_who_makes_an_arm_live_is_told_that_nothing_is_compared_any_more(
    place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDROW_HOME", str(settings.home))
    place.start("over", layer="other", arms=weighed({"new": ("fraud-2", 0.5)}))
    place.experiments.stop("fraud", "over")
    place.start()
    for release in ("fraud-1", "fraud-2"):
        say_compared("fraud", release, as_json=False)
    assert " ".join(capsys.readouterr().out.split()) == (
        "Experiment trial compares fraud-2 with itself from now on. Next: windrow experiment stop fraud trial"
    )
