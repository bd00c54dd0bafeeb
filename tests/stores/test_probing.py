"""What Python functions on DataFrames read: found on stored rows, once per definition, and held against what is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from windrow import Entity, FeatureGroup, Source, feature_group
from windrow.errors import DeclarationError
from windrow.features.query_lineage import Reads
from windrow.features.source import CsvFile
from windrow.stores.lake import Lake
from windrow.stores.materialize import materialize_source
from windrow.stores.metadata import Metadata
from windrow.stores.probing import learn, lineages, opaque, probe_group, recall

card = Entity("card", card_id="int64")
COLUMNS = {"card_id": "int64", "amount": "float64", "abroad": "bool", "note": "string"}
FILE = CsvFile("payments.csv", {**{name: name for name in COLUMNS}, "ts": "ts"})
payments = Source("payments", event_time="ts", columns=COLUMNS, file=FILE)
FEATURES = {"cents": "float64", "place": "int64"}
calls = [0]


def spend(payments):
    calls[0] += 1
    kept = payments[payments["abroad"]].copy()
    kept["cents"] = kept["amount"] * 100
    kept["place"] = kept["event_time"].rank(method="min").astype("int64")
    return kept[["card_id", "cents", "place", "event_time", "known_at"]]


def declared(**reads: Any) -> FeatureGroup:
    return feature_group(card, frame="pandas", features=FEATURES, reads=reads or None)(spend)


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    return Metadata(f"sqlite:///{tmp_path}/metadata.db")


@pytest.fixture
def lake(tmp_path: Path, metadata: Metadata) -> Lake:
    rows = [
        (c, 10.0 * c + d, "true" if (c + d) % 3 else "false", f"n{d}", f"2026-01-0{d}T00:00:00Z")
        for d in range(1, 9)
        for c in (1, 2, 3)
    ]
    pd.DataFrame(rows, columns=[*COLUMNS, "ts"]).to_csv(tmp_path / "payments.csv", index=False)
    made = Lake(str(tmp_path / "lake"))
    materialize_source(payments, made, metadata, tmp_path)
    return made


def told(reads: Reads) -> str:
    return " ".join(sorted(f"{r.column}:{r.kind}" for r in reads))


def test_a_function_is_probed_on_stored_rows(lake: Lake) -> None:
    found = probe_group(declared(), lake)
    assert told(found.features["cents"]) == "amount:probed"
    assert "ts:probed" in told(found.features["place"])
    assert "amount" not in told(found.features["place"])
    assert told(found.rows) == "abroad:probed card_id:probed ts:probed"


def test_what_was_found_is_remembered_until_the_definition_changes(lake: Lake, metadata: Metadata) -> None:
    group = declared()
    found = learn(group, lake, metadata)
    before = calls[0]
    assert learn(group, lake, metadata) == found == recall(group, metadata)
    assert calls[0] == before
    changed = feature_group(card, frame="pandas", features={**FEATURES, "place": "int32"})(spend)
    assert recall(changed, metadata) is None


def test_nothing_is_learned_before_the_inputs_have_rows(tmp_path: Path, metadata: Metadata) -> None:
    assert learn(declared(), Lake(str(tmp_path / "empty")), metadata) is None


def test_a_probed_lineage_takes_the_place_of_the_assumed_one(lake: Lake, metadata: Metadata) -> None:
    group = declared()
    assert "assumed" in told(lineages([group], metadata)[group.key].features["cents"])
    learn(group, lake, metadata)
    assert told(lineages([group], metadata)[group.key].features["cents"]) == "amount:probed"


def test_declared_reads_that_are_true_stay_what_counts(lake: Lake, metadata: Metadata) -> None:
    group = declared(cents=["payments.amount"], place=["payments.event_time"], rows=["payments.abroad"])
    learn(group, lake, metadata)
    assert told(lineages([group], metadata)[group.key].features["cents"]) == "amount:value"


def test_a_read_that_is_not_declared_is_refused(lake: Lake, metadata: Metadata) -> None:
    group = declared(cents=["payments.note"], place=["payments.event_time"], rows=["payments.abroad"])
    with pytest.raises(
        DeclarationError,
        match="feature 'cents' of group 'spend' changes with payments.amount, which its reads= does not name.*Next: add 'payments.amount'",
    ):
        learn(group, lake, metadata)


def test_an_ibis_definition_is_not_opaque() -> None:
    def plain(payments):
        return payments.select("card_id", "amount")

    assert not opaque(feature_group(card)(plain))
    assert opaque(declared())
