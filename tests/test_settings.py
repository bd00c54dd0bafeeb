"""One Settings object, and no two environments that share a writable place."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from windrow.clock import Clock
from windrow.errors import SettingsError
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.metadata import Metadata


def test_the_defaults_are_beside_the_project() -> None:
    read = Settings.read({})
    assert read.home == Path(".windrow").absolute()
    assert (read.data, read.project, read.clock) == (Path("data").absolute(), Path().absolute(), Clock("data"))


def test_every_store_is_inside_home_unless_told_otherwise() -> None:
    read = Settings.read({"WINDROW_HOME": "/srv/w"})
    assert (read.lake, read.online, read.metadata) == (
        "/srv/w/lake",
        "lmdb:///srv/w/online",
        "sqlite:////srv/w/metadata.db",
    )


def test_a_store_can_be_elsewhere() -> None:
    assert Settings.read({"WINDROW_ONLINE": "redis://h:1"}).online == "redis://h:1"


def test_two_homes_share_no_writable_place() -> None:
    one, two = (Settings.read({"WINDROW_HOME": home}) for home in ("/a", "/b"))
    writable = ("home", "lake", "online", "metadata")
    assert not {str(getattr(one, n)) for n in writable} & {str(getattr(two, n)) for n in writable}


@pytest.mark.parametrize("clock", ["real", "data", "fixed:2019-09-30"])
def test_a_child_process_reads_the_same_settings(clock: str) -> None:
    read = Settings.read({"WINDROW_HOME": "/srv/w", "WINDROW_DATA": "/srv/d", "WINDROW_CLOCK": clock})
    assert Settings.read(read.environ()) == read


def test_a_child_process_is_as_open_and_as_encrypted_as_its_parent() -> None:
    read = Settings.read({"WINDROW_INSECURE": "1", "WINDROW_TLS_CERT": "c.pem", "WINDROW_TLS_KEY": "/k.pem"})
    assert (read.insecure, read.tls_cert, read.tls_key) == (True, str(Path("c.pem").absolute()), "/k.pem")
    assert Settings.read(read.environ()) == read
    assert Settings.read({}).insecure is False


@pytest.mark.parametrize("text", ["yes", "true", "no", "off", "2", " "])
def test_what_opens_the_service_is_one_and_nothing_like_it(text: str) -> None:
    with pytest.raises(SettingsError, match="WINDROW_INSECURE is .* Next: write 1, or leave it out"):
        Settings.read({"WINDROW_INSECURE": text})


def test_a_setting_that_windrow_does_not_know_is_refused() -> None:
    with pytest.raises(SettingsError, match="windrow has no setting 'WINDROW_HOM'.*did you mean 'WINDROW_HOME'"):
        Settings.read({"WINDROW_HOM": "x"})


def test_settings_of_others_are_not_looked_at() -> None:
    assert Settings.read({"DAGSTER_HOME": "/x"}) == Settings.read({})


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert Settings.read({"WINDROW_HOME": "", "WINDROW_CLOCK": ""}) == Settings.read({})


def test_an_unknown_clock_is_refused() -> None:
    with pytest.raises(SettingsError, match="WINDROW_CLOCK is 'noon'"):
        Settings.read({"WINDROW_CLOCK": "noon"})


def test_a_folder_is_made_where_it_is_asked_for(tmp_path: Path) -> None:
    made = Settings.read({"WINDROW_HOME": str(tmp_path / "new")}).folder("reports")
    assert (made, made.is_dir()) == (tmp_path / "new" / "reports", True)


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SettingsError, match="cannot make the folder .*/file/reports: .* Next: set WINDROW_HOME to a writable folder"
    ):
        Settings.read({"WINDROW_HOME": str(tmp_path / "file")}).folder("reports")


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@host:6379/0", "unix://:hunter2@/run/redis.sock?db=1", "postgresql://user:hunter2@host/db"]
)
def test_settings_that_are_shown_show_no_password(url: str) -> None:
    settings = Settings.read({"WINDROW_ONLINE": url, "WINDROW_METADATA": url})
    assert settings.online == settings.metadata == url
    assert "hunter2" not in repr(settings)
    assert repr(url.replace("hunter2", "***")) in repr(settings)


@pytest.mark.parametrize("folder", ["what?", "50%41", "a#b", "a\x1bb"])
def test_a_home_that_no_url_can_name_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has .* in its path.*Next: set WINDROW_HOME"):
        Settings.read({"WINDROW_HOME": str(tmp_path / folder)})
    assert not list(tmp_path.iterdir())


def test_a_home_may_have_spaces_and_letters_of_any_language(tmp_path: Path) -> None:
    settings = Settings.read({"WINDROW_HOME": str(tmp_path / "my härd & 家 {x}")})
    metadata = Metadata(settings.metadata)
    assert metadata.access_keys() == []
    metadata.close()
    assert (settings.home / "metadata.db").is_file()
    table = Lake(settings.lake).table("t")
    table.append(pa.table({"x": [1]}))
    assert table.scan(engine()).x.to_pyarrow().to_pylist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == [settings.home.name]


def test_that_no_good_request_is_told_can_be_said() -> None:
    assert Settings.read({"WINDROW_NOTE_EVERY": "0"}).note_every == 0


@pytest.mark.parametrize("text", ["0.5", "0", "-1", "1e3", "nan", "many"])
@pytest.mark.parametrize("name", ["WINDROW_INGEST_BACKLOG", "WINDROW_KEEP_RELEASES"])
def test_what_is_counted_is_a_whole_number_above_0(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is '{text}'. Next: write a whole number above 0"):
        Settings.read({name: text})


def _environment(name: str, **urls: str) -> Settings:
    return Settings.read({"WINDROW_HOME": "/srv/w", "WINDROW_ENV": name, **urls})


_SERVERS = {
    "WINDROW_LAKE": "/mnt/lake",
    "WINDROW_ONLINE": "redis://:pw@host:6379/0",
    "WINDROW_STREAMS": "redis://:pw@host:6379/0",
    "WINDROW_CACHE": "redis://:pw@host:6379/0",
    "WINDROW_METADATA": "postgresql://windrow:pw@host/db",
    "WINDROW_SINK_POSTGRES": "postgresql://windrow:pw@host/reports",
}


@pytest.mark.parametrize("urls", [{}, _SERVERS], ids=["embedded", "servers"])
def test_no_two_of_dev_staging_and_prod_share_a_writable_place(urls: dict[str, str]) -> None:
    settings = [_environment(name, **urls) for name in ("dev", "staging", "prod")]
    for place in ("home", "lake", "online", "metadata", *(["streams", "cache", "sink_postgres"] if urls else [])):
        assert len({str(getattr(one, place)) for one in settings}) == 3, place


def test_an_environment_has_its_part_of_every_place() -> None:
    prod = _environment("prod", **_SERVERS)
    assert (prod.home, prod.lake) == (Path("/srv/w/prod"), "/mnt/lake/prod")
    assert prod.online == prod.streams == prod.cache == "redis://:pw@host:6379/0?namespace=prod"
    assert prod.metadata == "postgresql://windrow:pw@host/db?schema=windrow_prod"
    assert _environment("prod", WINDROW_METADATA="sqlite:////srv/m.db").metadata == "sqlite:////srv/prod/m.db"
    given = _environment("prod", WINDROW_METADATA="sqlite:////srv/m.db?vfs=a/b")
    assert given.metadata == "sqlite:////srv/prod/m.db?vfs=a/b"
    assert _environment("prod", WINDROW_ONLINE="lmdb:///srv/o").online == "lmdb:///srv/o/prod"


def test_a_place_may_say_itself_where_the_environment_stands() -> None:
    read = _environment("dev", WINDROW_ONLINE="redis://{env}.host:6379/0", WINDROW_LAKE="/mnt/{env}-lake")
    assert (read.online, read.lake) == ("redis://dev.host:6379/0", "/mnt/dev-lake")


def test_a_user_or_password_of_its_own_is_no_place_of_its_own() -> None:
    read = _environment("dev", WINDROW_METADATA="postgresql://{env}:{env}@host/db")
    assert read.metadata == "postgresql://dev:dev@host/db?schema=windrow_dev"
    read = _environment("dev", WINDROW_METADATA="postgresql://host/db?application_name={env}")
    assert read.metadata == "postgresql://host/db?application_name=dev&schema=windrow_dev"


@pytest.mark.parametrize("name", ["m", "schema", "db", "host"])
def test_a_child_process_reads_the_same_places_whatever_the_environment_is_called(name: str) -> None:
    read = _environment(name, **_SERVERS)
    assert Settings.read(read.environ()) == read


def test_a_part_that_a_url_names_already_is_divided_further() -> None:
    read = _environment(
        "dev", WINDROW_METADATA="postgresql://host/db?schema=rig", WINDROW_ONLINE="redis://h?namespace=a"
    )
    assert (read.metadata, read.online) == ("postgresql://host/db?schema=rig_dev", "redis://h?namespace=a_dev")


@pytest.mark.parametrize("urls", [{}, _SERVERS, {"WINDROW_LAKE": "/mnt/{env}"}], ids=["embedded", "servers", "named"])
def test_a_child_process_is_in_the_same_environment(urls: dict[str, str]) -> None:
    read = _environment("w", **urls)
    assert Settings.read(read.environ()) == read


def test_a_place_for_each_environment_needs_one() -> None:
    with pytest.raises(SettingsError, match="WINDROW_LAKE names a place for each environment.*Next: set WINDROW_ENV"):
        Settings.read({"WINDROW_LAKE": "/mnt/{env}"})


def test_a_name_that_not_every_place_can_carry_is_refused() -> None:
    with pytest.raises(SettingsError, match="WINDROW_ENV is 'Prod/eu'"):
        _environment("Prod/eu")


def test_a_place_that_nobody_knows_how_to_divide_is_refused() -> None:
    with pytest.raises(
        SettingsError, match="WINDROW_METADATA is one place for all environments, and 'mysql' is not known"
    ):
        _environment("dev", WINDROW_METADATA="mysql://host/db")
