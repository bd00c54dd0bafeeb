"""Local times in an hour that happens twice: the join sees the one that the source declares, or nothing is read at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from windrow import CsvFile, Source
from windrow.errors import TimeError
from windrow.features.contract import Lookup
from windrow.features.join import point_in_time
from windrow.stores.engine import engine
from windrow.stores.reader import read_source
from windrow.testing import MemoryTable, times

# In Berlin the hour from two to three came twice on that night: from 00:00 and from 01:00 UTC.
ROWS = "card,limit,when\n1,10,2026-10-25 01:59:59\n1,20,2026-10-25 02:30:00\n1,30,2026-10-25 03:00:00\n"
ASKED = ["2026-10-24T23:59:59Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"]


def source(ambiguous: str) -> Source:
    file = CsvFile("limits.csv", {"card": "card", "limit": "limit", "ts": "when"})
    return Source(
        "limits", event_time="ts", timezone="Europe/Berlin", ambiguous=ambiguous, file=file,
        columns={"card": "int64", "limit": "int64"},
    )  # fmt: skip


@pytest.mark.parametrize(("ambiguous", "found"), [("earliest", [10, 20, 20, 30]), ("latest", [10, 10, 20, 30])])
def test_the_join_sees_the_hour_that_is_declared(tmp_path: Path, ambiguous: str, found: list[int]) -> None:
    (tmp_path / "limits.csv").write_text(ROWS)
    table = MemoryTable("features/limits_v1", read_source(source(ambiguous), tmp_path))
    lookup = Lookup("limits_v1", "", {"card": "card"}, {"limit": "limit"}, {"limit": "int64"})
    spine = pa.table({"card": [1] * 4, "event_time": times(*ASKED)})
    assert point_in_time(engine(), spine, [lookup], {"limits_v1": table})["limit"].to_pylist() == found


def test_without_a_declaration_the_hour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "limits.csv").write_text(ROWS)
    with pytest.raises(TimeError, match="ambiguous"):
        read_source(source("refuse"), tmp_path)
