"""What is written to Parquet is what is returned in memory, however little memory there may be."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.bench_wide import Size, measured
from tests.laws.test_point_in_time import CALM, join
from tests.laws.worlds import World, worlds
from windrow.errors import StoreError
from windrow.features.contract import Contract
from windrow.features.join import view_frame
from windrow.features.parquet import point_in_time_to_parquet, view_frame_to_parquet
from windrow.schema import Field
from windrow.stores.engine import engine


@settings(max_examples=3, **CALM)
@given(worlds(), st.sampled_from([1, 5000, 1 << 20]))
def test_a_file_holds_what_the_join_returns(world: World, memory: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asked, path = world._replace(asked=world.asked[:40]), Path(folder) / "made" / "answer.parquet"
        options = {"memory": memory * 100 if memory == 1 else memory}
        count = point_in_time_to_parquet(engine(), asked.spine, asked.lookups, asked.tables, path, **options)
        assert pq.read_table(path).equals(join(asked))
        assert count == len(asked.asked)
        assert [p.name for p in path.parent.iterdir()] == ["answer.parquet"]


WORLD = World({}, [({"id": i, "other": None, "area": "N"}, i) for i in range(10)])


def test_a_spine_may_come_in_batches(tmp_path: Path) -> None:
    reader = pa.RecordBatchReader.from_batches(WORLD.spine.schema, WORLD.spine.to_batches(max_chunksize=3))
    assert point_in_time_to_parquet(engine(), reader, [], {}, tmp_path / "a.parquet", memory=4) == 10
    assert pq.read_table(tmp_path / "a.parquet").equals(WORLD.spine)


def test_an_empty_spine_gives_a_file_with_every_column(tmp_path: Path) -> None:
    nothing = WORLD.spine.slice(0, 0)
    assert point_in_time_to_parquet(engine(), nothing, [], {}, tmp_path / "a.parquet") == 0
    assert pq.read_table(tmp_path / "a.parquet").equals(nothing)
    none = pa.RecordBatchReader.from_batches(nothing.schema, [])
    assert point_in_time_to_parquet(engine(), none, [], {}, tmp_path / "b.parquet") == 0
    assert pq.read_table(tmp_path / "b.parquet").equals(nothing)


def test_the_frame_of_a_view_is_written_as_models_see_it(tmp_path: Path) -> None:
    contract = Contract(
        view="v", spine="s", request=(Field("id", "int64"),), optional=(), lookups=(), on_demand=(), features=(Field("id", "int64"),)
    )  # fmt: skip
    path = tmp_path / "frame.parquet"
    view_frame_to_parquet(engine(), contract, WORLD.spine, {}, path, functions={}, memory=100)
    assert pq.read_table(path).equals(view_frame(engine(), contract, WORLD.spine, {}, functions={}))


def test_a_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    unread = pa.RecordBatchReader.from_batches(WORLD.spine.schema, WORLD.spine.to_batches())
    with pytest.raises(
        StoreError, match="there is a folder of that name. Next: name a file, such as taken/rows.parquet"
    ):
        point_in_time_to_parquet(engine(), unread, [], {}, tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    assert unread.read_all().num_rows == 10


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="a.parquet cannot be written to .*/file: .*Next: free space there, or choose"):
        point_in_time_to_parquet(engine(), WORLD.spine, [], {}, tmp_path / "file" / "a.parquet")


def test_what_fails_in_the_middle_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield from WORLD.spine.to_batches()
        raise ValueError("the spine ends here")

    point_in_time_to_parquet(engine(), WORLD.spine.slice(0, 1), [], {}, tmp_path / "a.parquet")
    reader = pa.RecordBatchReader.from_batches(WORLD.spine.schema, batches())
    with pytest.raises(ValueError, match="the spine ends here"):
        point_in_time_to_parquet(engine(), reader, [], {}, tmp_path / "a.parquet", memory=4)
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 1


@pytest.mark.slow
def test_memory_depends_on_the_widest_group_and_not_on_how_many_there_are() -> None:
    few, many = (measured(Size(n, 40, 200_000, 20_000, 200_000)) for n in (2, 16))
    # Sixteen groups answer with 512 MB, two with 64.
    assert many["peak_mb"] <= 1.35 * few["peak_mb"], (few, many)
