"""A bundle's files are checked before they are read, and it answers as when it was made."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.models.making import NUMBERS, bundle_folder, frame_of
from windrow.errors import ModelError, ParityError, StoreError
from windrow.features.contract import OnDemand, canonical, matrix
from windrow.models.bundle import Bundle, Golden, load_bundle, read_release, write_bundle
from windrow.models.forest import Column, encode_forest
from windrow.models.release import sha256

TREES = {"max_iter": 20, "max_leaf_nodes": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return bundle_folder(tmp_path_factory.mktemp("onnx"), HistGradientBoostingClassifier(**TREES), NUMBERS)


@pytest.fixture(scope="module")
def kept_folder(tmp_path_factory) -> Path:
    kept = make_pipeline(FunctionTransformer(np.square), HistGradientBoostingClassifier(**TREES))
    return bundle_folder(tmp_path_factory.mktemp("skops"), kept, NUMBERS)


@pytest.fixture(scope="module")
def forest_folder(tmp_path_factory) -> Path:
    return bundle_folder(tmp_path_factory.mktemp("forest"), RandomForestClassifier(5, random_state=0), NUMBERS)


def copied(folder: Path, to: Path) -> Path:
    (to / folder.name).mkdir()
    for file in folder.iterdir():
        (to / folder.name / file.name).write_bytes(file.read_bytes())
    return to / folder.name


def rehashed(folder: Path, name: str, data: bytes) -> Path:
    """Plant a file and make the release agree to it."""
    (folder / name).write_bytes(data)
    release = read_release(folder)
    release = msgspec.structs.replace(release, files={**release.files, name: sha256(data)})
    (folder / "release.json").write_bytes(msgspec.json.encode(release))
    return folder


def test_a_bundle_holds_exactly_these_files(folder, kept_folder, forest_folder):
    names = {"contract.json", "golden.json", "release.json", "environment.txt"}
    assert {p.name for p in folder.iterdir()} == names | {"model.onnx", "model.treelite", "model.skops"}
    assert {p.name for p in forest_folder.iterdir()} == names | {"model.treelite", "model.skops"}
    assert {p.name for p in kept_folder.iterdir()} == names | {"model.skops"}


def test_a_loaded_compiled_model_needs_no_heavy_package(folder, forest_folder):
    code = f"""
import sys
from pathlib import Path
from windrow.models.bundle import load_bundle
from windrow.serving.predictor import CompiledPredictor
for folder in ({str(folder)!r}, {str(forest_folder)!r}):
    bundle = load_bundle(Path(folder))
    bundle.replay_golden()
    CompiledPredictor(bundle)
heavy = ("pandas", "sklearn", "skops", "skl2onnx", "onnx", "ibis", "pyarrow", "duckdb", "dagster", "evidently", "papermill", "shap")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_compiled_bundle_loads_within_a_second(folder, forest_folder):
    for each in (folder, forest_folder):
        begin = time.perf_counter()
        load_bundle(each)
        assert time.perf_counter() - begin < 1.0


def test_every_backend_answers_float64_of_one_value_per_row(folder, kept_folder, forest_folder):
    frame = frame_of(NUMBERS, 7)
    for each in (folder, kept_folder, forest_folder):
        found = load_bundle(each).predict(frame)
        assert (found.shape, found.dtype) == ((7,), np.float64)
        assert ((found >= 0) & (found <= 1)).all()


def test_a_batch_is_answered_by_the_fastest_proven_model(folder):
    release = msgspec.structs.replace(read_release(folder), batch_backend="treelite")
    bundle, frame = load_bundle(folder, release), frame_of(NUMBERS, 2_000)
    found, expected = bundle.predict_batch(frame), bundle.predict(frame)
    assert 0 < np.abs(found - expected).max() < 1e-5  # float64 in treelite, float32 in ONNX
    few = {name: values[:100] for name, values in frame.items()}
    assert bundle.predict_batch(few).tolist() == bundle.predict(few).tolist()


def test_a_changed_model_of_the_batch_is_refused_too(folder, tmp_path):
    broken = copied(folder, tmp_path)
    release = msgspec.structs.replace(read_release(folder), batch_backend="sklearn")
    bundle = load_bundle(broken, release)
    (broken / "model.skops").write_bytes(b"planted")
    with pytest.raises(ModelError, match=r"model\.skops is not the file that was released"):
        bundle.predict_batch(frame_of(NUMBERS, 2_000))


def test_the_golden_pairs_are_replayed(folder, kept_folder, forest_folder):
    for each in (folder, kept_folder, forest_folder):
        bundle = load_bundle(each)
        assert len(bundle.golden.outputs) == 64
        assert bundle.replay_golden() <= 1e-7


def test_golden_pairs_with_another_answer_are_a_parity_error(folder):
    bundle = load_bundle(folder)
    outputs = [bundle.golden.outputs[0] + 0.01, *bundle.golden.outputs[1:]]
    changed = Bundle(bundle.release, bundle.model, Golden(bundle.golden.inputs, outputs))
    with pytest.raises(ParityError, match=r"answers its golden inputs differently here, by up to 0\.01"):
        changed.replay_golden()


def test_a_regression_bundle_answers_values(tmp_path):
    bundle = load_bundle(bundle_folder(tmp_path, HistGradientBoostingRegressor(**TREES), NUMBERS))
    assert 4_000 < bundle.predict(frame_of(NUMBERS, 1))[0] < 9_000


def test_a_matrix_gives_the_same_answer_as_its_frame(folder):
    bundle, frame = load_bundle(folder), frame_of(NUMBERS, 9)
    assert bundle.matrix_input
    assert bundle.predict_matrix(matrix(frame)).tolist() == bundle.predict(frame).tolist()


def test_a_bundle_without_matrix_input_says_so(kept_folder):
    with pytest.raises(ModelError, match="takes no matrix"):
        load_bundle(kept_folder).predict_matrix(np.zeros((1, 3), dtype="float32"))


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "missing"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_a_value_that_the_original_refuses_is_refused_with_its_name(tmp_path, value, kind):
    bundle = load_bundle(bundle_folder(tmp_path, LogisticRegression(), NUMBERS, missing=False))
    assert bundle.release.backend == "onnx"
    frame = canonical(NUMBERS, {"a": [1.0, 1.0], "b": [1.0, value], "c": [1, 1]})
    assert bundle.refused(frame).tolist() == [False, True]
    with pytest.raises(ModelError, match=f"does not take a {kind} value of 'b'"):
        bundle.predict(frame)


@pytest.mark.parametrize(
    "name", ["model.onnx", "model.treelite", "model.skops", "contract.json", "golden.json", "environment.txt"]
)
def test_a_changed_file_is_refused_before_it_is_read(folder, tmp_path, name):
    broken = copied(folder, tmp_path)
    (broken / name).write_bytes(b"not what was released")
    with pytest.raises(ModelError, match=f"{name} is not the file that was released"):
        load_bundle(broken)


def test_a_missing_file_is_named(folder, tmp_path):
    broken = copied(folder, tmp_path)
    (broken / "golden.json").unlink()
    with pytest.raises(ModelError, match=r"toy-1/golden\.json cannot be read"):
        load_bundle(broken)


def test_the_registrys_copy_of_the_release_wins_over_a_changed_folder(folder, tmp_path):
    original, planted = read_release(folder), rehashed(copied(folder, tmp_path), "model.onnx", b"planted")
    with pytest.raises(ModelError, match=r"model\.onnx is not the file that was released"):
        load_bundle(planted, original)


def test_a_model_file_that_is_no_model_is_refused(folder, tmp_path):
    with pytest.raises(ModelError, match="ONNX Runtime cannot load the model"):
        load_bundle(rehashed(copied(folder, tmp_path), "model.onnx", b"planted"))


class Planted:
    """What an attacker would store: unpickling it would run a command."""

    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/windrow-planted",)


def test_a_planted_artefact_that_would_run_code_is_refused_by_its_types(kept_folder, tmp_path):
    from skops.io import dumps

    harmful = dumps({"model": Planted()})
    broken = rehashed(copied(kept_folder, tmp_path), "model.skops", harmful)
    with pytest.raises(ModelError, match=r"types that windrow does not trust: .*Planted"):
        load_bundle(broken)
    assert not Path("/tmp/windrow-planted").exists()


def test_a_model_file_of_trees_that_is_none_is_refused(forest_folder, tmp_path):
    for number, planted in enumerate((b"planted", encode_forest([Column("a")], b"planted"))):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ModelError, match=r"(is no model of trees|treelite cannot load the model)"):
            load_bundle(rehashed(copied(forest_folder, tmp_path / str(number)), "model.treelite", planted))


def zipped(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return made.getvalue()


def members_of(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "model.skops") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_trusted_model_with_a_harmful_part_planted_into_it_is_refused_by_that_part(kept_folder, tmp_path):
    """The outer names stay right; only what a tree's own state is built from is exchanged."""
    members = members_of(kept_folder)
    schema = members["schema.json"].decode()
    planted = schema.replace('"TreePredictor"', '"system"').replace(
        '"sklearn.ensemble._hist_gradient_boosting.predictor"', '"os"'
    )
    assert planted != schema
    broken = rehashed(
        copied(kept_folder, tmp_path), "model.skops", zipped({**members, "schema.json": planted.encode()})
    )
    with pytest.raises(ModelError, match=r"types that windrow does not trust: 'os\.system'"):
        load_bundle(broken)


def test_an_archive_that_names_files_outside_of_itself_is_refused(kept_folder, tmp_path):
    harmful = zipped({**members_of(kept_folder), "../../planted": b"x"})
    with pytest.raises(ModelError, match=r"names files outside of itself: '\.\./\.\./planted'"):
        load_bundle(rehashed(copied(kept_folder, tmp_path), "model.skops", harmful))


def test_an_archive_that_would_fill_the_memory_is_refused_before_it_is_unpacked(kept_folder, tmp_path):
    harmful = zipped({"schema.json": b" " * (80 * 2**20)})
    assert len(harmful) < 2**17
    with pytest.raises(ModelError, match=r"would grow from [\d,]+ to 83,886,080 bytes"):
        load_bundle(rehashed(copied(kept_folder, tmp_path), "model.skops", harmful))


def test_a_release_of_a_newer_list_of_trusted_types_is_refused(kept_folder):
    release = msgspec.structs.replace(read_release(kept_folder), trusted_types=99)
    with pytest.raises(ModelError, match=r"written under list 99 of trusted types, and this windrow has list 1"):
        load_bundle(kept_folder, release)


def test_a_pickle_is_not_read(kept_folder, tmp_path):
    import pickle  # noqa: TID251 - written here to prove that it is not read

    broken = rehashed(copied(kept_folder, tmp_path), "model.skops", pickle.dumps(Planted()))
    with pytest.raises(ModelError, match="is not a skops file"):
        load_bundle(broken)
    assert not Path("/tmp/windrow-planted").exists()


def test_nothing_is_left_when_the_files_are_not_the_releases(folder, tmp_path):
    release = read_release(folder)
    files = {name: (folder / name).read_bytes() for name in release.files}
    with pytest.raises(ModelError, match=r"golden\.json is not the file that was released"):
        write_bundle(tmp_path / "toy-1", release, {**files, "golden.json": b"{}"})
    assert list((tmp_path).glob("*toy*")) == []


def test_a_release_is_never_written_over(folder):
    bundle = load_bundle(folder)
    files = {name: (folder / name).read_bytes() for name in bundle.release.files}
    with pytest.raises(StoreError, match="cannot be written"):
        write_bundle(folder, bundle.release, files)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["toy-1"]


SOURCE = "def double(x):\n    return x * 2\n"


def with_functions(folder: Path, sha: str) -> Bundle:
    """The bundle, as if its view had one on-demand feature."""
    bundle = load_bundle(folder)
    spec = OnDemand("twice", "double", "float32", {"x": "request.a"}, {"x": "float64"})
    contract = msgspec.structs.replace(bundle.contract, on_demand=(spec,), on_demand_source=SOURCE)
    release = msgspec.structs.replace(bundle.release, contract=contract, on_demand_sha256=sha)
    return Bundle(release, bundle.model, bundle.golden)


def test_on_demand_functions_come_from_the_text_that_the_release_carries(folder):
    assert with_functions(folder, sha256(SOURCE.encode())).functions["double"](np.array([2.0])).tolist() == [4.0]


def test_a_changed_on_demand_module_is_not_run(folder):
    with pytest.raises(
        ModelError, match=r"release 'toy-1': the text of its on-demand module was changed.*Functions: 'double'"
    ):
        _ = with_functions(folder, "0" * 64).functions
