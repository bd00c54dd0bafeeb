"""Promises of the metadata store's URL and of its SQLite file; what both databases promise stands in tests/contract."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from windrow.errors import SettingsError, StoreError
from windrow.stores.metadata import Metadata, TombstoneRow


def test_a_url_of_another_database_is_refused_with_the_forms_to_write() -> None:
    with pytest.raises(SettingsError, match="WINDROW_METADATA names 'mysql'.*write sqlite:////.* or postgresql://"):
        Metadata("mysql://localhost/x")


def test_a_server_that_does_not_answer_is_an_error_without_the_password() -> None:
    with pytest.raises(StoreError, match=r"postgresql://127.0.0.1:1/x\?schema=windrow cannot be used") as raised:
        Metadata("postgresql://me:s3cret@127.0.0.1:1/x")
    assert "s3cret" not in str(raised.value)


def test_a_schema_that_is_no_plain_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="the schema in WINDROW_METADATA is no plain name"):
        Metadata("postgresql://localhost/x?schema=a;drop")


def test_text_that_is_no_url_is_refused_without_being_repeated() -> None:
    with pytest.raises(SettingsError, match="WINDROW_METADATA is not a URL"):
        Metadata("not a url")


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "m.db").write_bytes(b"x" * 4096)
    with pytest.raises(StoreError, match="m.db cannot be used: file is not a database"):
        Metadata(f"sqlite:///{tmp_path}/m.db")


# What the windrow of format 2 left behind, as its SQLite file said it.
_FORMAT_2 = """
PRAGMA journal_mode = WAL;
CREATE TABLE spans (number INTEGER NOT NULL, source TEXT NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL,
  known BIGINT NOT NULL, rows BIGINT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (number));
CREATE INDEX ix_spans_source ON spans (source);
CREATE TABLE definitions (number INTEGER NOT NULL, "key" TEXT NOT NULL, fingerprint TEXT NOT NULL,
  definition TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (number));
CREATE INDEX ix_definitions_key ON definitions ("key");
CREATE TABLE datasets (number INTEGER NOT NULL, id TEXT NOT NULL, service TEXT NOT NULL, document TEXT NOT NULL,
  at BIGINT NOT NULL, PRIMARY KEY (number));
CREATE INDEX ix_datasets_service ON datasets (service);
CREATE TABLE runs (number INTEGER NOT NULL, service TEXT NOT NULL, document TEXT NOT NULL, at BIGINT NOT NULL,
  PRIMARY KEY (number));
CREATE INDEX ix_runs_service ON runs (service);
CREATE TABLE releases (number INTEGER NOT NULL, service TEXT NOT NULL, id TEXT NOT NULL, document BLOB NOT NULL,
  at BIGINT NOT NULL, PRIMARY KEY (number), UNIQUE (id));
CREATE INDEX ix_releases_service ON releases (service);
CREATE TABLE tombstones (number INTEGER NOT NULL, entity TEXT NOT NULL, hash TEXT NOT NULL, salt TEXT NOT NULL,
  document TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (number));
CREATE TABLE deployments (number INTEGER NOT NULL, service TEXT NOT NULL, "release" TEXT NOT NULL,
  reason TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (number));
CREATE INDEX ix_deployments_service ON deployments (service);
INSERT INTO spans VALUES (1, 'payments', 1, 5, 6, 10, 100);
INSERT INTO definitions VALUES (1, 'features/a_v1', 'aa', '{"x":1}', 101);
INSERT INTO datasets VALUES (1, 'd1', 'churn', '{"id":"d1"}', 102);
INSERT INTO runs VALUES (1, 'churn', '{"auc":0.8}', 103);
INSERT INTO releases VALUES (1, 'churn', 'churn-1', x'00ff', 104), (2, 'churn', 'churn-2', x'01', 105);
INSERT INTO tombstones VALUES (1, 'card', 'h', 's', '{"rows":3}', 106);
INSERT INTO deployments VALUES (1, 'churn', 'churn-1', 'first', 107), (2, 'churn', 'churn-2', 'better', 108);
PRAGMA user_version = 2;
"""


def test_a_file_of_the_previous_format_is_opened_with_everything_in_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "m.db")
    connection.executescript(_FORMAT_2)
    connection.close()
    store = Metadata(f"sqlite:///{tmp_path}/m.db")
    assert store.spans() == {"payments": (1, 5, 6, 10)}
    assert store.definition("features/a_v1") == ("features/a_v1", "aa", {"x": 1}, 101)
    assert (store.datasets("churn"), store.runs("churn")) == ([{"id": "d1"}], [{"auc": 0.8}])
    assert store.releases("churn") == [("churn", "churn-1", b"\x00\xff", 1, 104), ("churn", "churn-2", b"\x01", 2, 105)]
    assert store.tombstones() == [TombstoneRow("card", "h", "s", {"rows": 3}, 106)]
    assert [row[1:4] for row in store.deployments("churn")] == [("churn-1", "first", 1), ("churn-2", "better", 2)]
    store.deploy("churn", "churn-1", reason="back", at=109)
    assert (store.live("churn"), store.change_counter()) == ("churn-1", 1)
    store.close()


def test_importing_the_store_loads_no_engine() -> None:
    heavy = "{'pyarrow', 'ibis', 'duckdb', 'pandas', 'deltalake', 'numpy', 'alembic', 'psycopg'}"
    code = f"import sys, windrow.stores.metadata; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
