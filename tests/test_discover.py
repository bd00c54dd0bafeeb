from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from windrow.discover import groups, pick, services
from windrow.errors import DeclarationError, UnknownNameError

SERVICE = """
from windrow import Entity, FeatureView, Label, PredictionService, Source, TimeSplit, feature_group

shop = Entity("shop", shop_id="int64")
sales = Source("sales", event_time="day", columns={{"shop_id": "int64", "loaves": "float64"}})

@feature_group(shop)
def recent(sales):
    return sales.select("shop_id", {column})

{name} = PredictionService(
    "{name}", FeatureView("{name}", spine=sales, features=[recent]), Label.value(sales, "loaves", ahead="24h"),
    model="train:model", split=TimeSplit(test="10d"),
)
"""
Project = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Project:
    """Write ``<package>/<folder>/service.py`` files; the package has a name of its own, as modules stay imported."""
    package = f"p_{abs(hash(request.node.nodeid))}"
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files: str) -> str:
        for folder, text in files.items():
            (tmp_path / package / folder).mkdir(parents=True)
            (tmp_path / package / folder / "service.py").write_text(textwrap.dedent(text))
        return package

    return write


def _bakery(name: str = "bakery", column: str = '"loaves"') -> str:
    return SERVICE.format(name=name, column=column)


def test_a_project_is_what_its_service_modules_declare(project: Project) -> None:
    assert list(services(project(bakery=_bakery()))) == ["bakery"]


def test_a_missing_package_says_where_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"There is no package 'nowhere'.*make nowhere/<name>/service.py"):
        services("nowhere", project=tmp_path)


def test_a_package_of_another_project_is_not_taken_for_this_one(project: Project, tmp_path: Path) -> None:
    package = project(bakery=_bakery())
    (tmp_path / "other").mkdir()
    with pytest.raises(DeclarationError, match="There is no package"):
        services(package, project=tmp_path / "other")


def test_a_package_without_services_says_what_to_write(project: Project, tmp_path: Path) -> None:
    package = project()
    (tmp_path / package).mkdir()
    with pytest.raises(DeclarationError, match="declares no prediction service"):
        services(package)


def test_a_module_that_fails_is_told_with_file_and_line(project: Project) -> None:
    with pytest.raises(DeclarationError, match=r"ZeroDivisionError: division by zero.*bakery/service.py, line 2"):
        services(project(bakery="x = 1\ny = 1 / 0\n"))


def test_a_module_that_ends_the_process_is_told_with_file_and_line(project: Project) -> None:
    with pytest.raises(DeclarationError, match=r"ends the process \(sys.exit\(3\)\).*bakery/service.py, line 2"):
        services(project(bakery="import sys\nsys.exit(3)\n"))


def test_a_module_that_cannot_be_parsed_is_told_with_file_and_line(project: Project) -> None:
    with pytest.raises(DeclarationError, match=r"SyntaxError.*bakery/service.py, line 1"):
        services(project(bakery="def (:\n"))


def test_a_declaration_error_is_told_in_its_own_words(project: Project) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'int64'"):
        services(project(bakery='from windrow import Entity\nEntity("shop", shop_id="int46")\n'))


def test_a_module_without_a_service_says_what_to_end_it_with(project: Project) -> None:
    with pytest.raises(DeclarationError, match="declares no PredictionService"):
        services(project(bakery="x = 1\n"))


def test_two_services_of_one_name_are_refused_when_they_differ(project: Project) -> None:
    package = project(bakery=_bakery(), copy=_bakery(column="doubled=sales.loaves * 2"))
    with pytest.raises(DeclarationError, match="two prediction services are called 'bakery' and differ"):
        services(package)


def test_two_groups_of_one_name_and_version_are_refused_when_they_differ(project: Project) -> None:
    package = project(bakery=_bakery(), market=_bakery("market", column="doubled=sales.loaves * 2"))
    with pytest.raises(DeclarationError, match="two declarations of feature group 'recent_v1' differ"):
        services(package)


def test_services_may_share_equal_groups_and_sources(project: Project) -> None:
    found = services(project(bakery=_bakery(), market=_bakery("market")))
    assert list(found) == ["bakery", "market"]
    assert [g.table_name for g in groups(found.values())] == ["recent_v1"]


def test_an_unknown_service_offers_the_closest(project: Project) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'bakery'"):
        pick(services(project(bakery=_bakery())), "bakry")


def test_the_example_project_declares_its_services() -> None:
    assert set(services(project=Path(__file__).parents[1])) >= {"churn", "electricity"}
