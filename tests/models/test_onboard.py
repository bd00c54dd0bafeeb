"""A model made elsewhere becomes a release like any other, or is refused with the reason."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from tests.models.elsewhere import dataset_of, service, world_of
from tests.models.worlds import World
from windrow.errors import ModelError
from windrow.models.dataset import TrainingDataset, load_split
from windrow.models.onboard import onboard


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return world_of(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def dataset(world) -> TrainingDataset:
    return dataset_of(world)


@pytest.fixture(scope="module")
def train(dataset):
    return load_split(dataset, service().view.contract, "train")


def onboarded(path, dataset, world, **options):
    return onboard(path, service(), dataset, registry=world.registry, metadata=world.metadata, **options)


def pipeline(train):
    # Missing limits are taken by boosted trees as they are.
    return HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(train.X, train.y)


def skops_file(train, folder: Path) -> Path:
    from skops.io import dump

    dump(pipeline(train), folder / "model.skops")
    return folder / "model.skops"


def onnx_bytes(train, **options) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    model = LogisticRegression().fit(np.nan_to_num(train.X), train.y)
    wide = DoubleTensorType if options.pop("double", False) else FloatTensorType
    made = convert_sklearn(model, initial_types=[("features", wide([None, 2]))], options={id(model): options})
    return made.SerializeToString()


def onnx_file(train, folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(onnx_bytes(train, zipmap=True))
    return folder / "model.onnx"


def xgboost_file(train, folder: Path) -> Path:
    import xgboost

    rows = xgboost.DMatrix(train.X, label=train.y)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, rows, num_boost_round=10)
    booster.save_model(folder / "model.json")
    return folder / "model.json"


def lightgbm_file(train, folder: Path) -> Path:
    import lightgbm

    options = {"objective": "binary", "num_threads": 1, "verbose": -1, "min_data_in_leaf": 2}
    booster = lightgbm.train(options, lightgbm.Dataset(train.X, train.y), num_boost_round=10)
    booster.save_model(folder / "model.txt")
    return folder / "model.txt"


def mlflow_folder(train, folder: Path, *, flavor: str = "sklearn") -> Path:
    """The layout that MLflow documents: MLmodel names the flavours and their files."""
    made = folder / "artifacts"
    made.mkdir()
    files = {"sklearn": skops_file, "onnx": onnx_file, "xgboost": xgboost_file, "lightgbm": lightgbm_file}
    file = files[flavor](train, made)
    key = "pickled_model" if flavor == "sklearn" else "data"
    columns = [{"type": "double", "name": name, "required": True} for name in ("limit", "amount")]
    lines = ["flavors:", f"  {flavor}:", f"    {key}: {file.name}", "    serialization_format: skops"]
    lines += [
        "  python_function:",
        "    loader_module: mlflow.sklearn",
        "signature:",
        f"  inputs: '{json.dumps(columns)}'",
    ]
    (made / "MLmodel").write_text("\n".join(lines) + "\n")
    return made


def joblib_file(train, folder: Path) -> Path:
    import joblib  # noqa: TID251 - written here to be onboarded

    joblib.dump(pipeline(train), folder / "model.joblib")
    return folder / "model.joblib"


SIX = {
    "skops": (skops_file, "onnx", "skops"),
    "ONNX": (onnx_file, "onnx", "ONNX"),
    "MLflow": (mlflow_folder, "onnx", "MLflow (sklearn), skops"),
    "XGBoost": (xgboost_file, "treelite", "XGBoost"),
    "LightGBM": (lightgbm_file, "treelite", "LightGBM"),
    "joblib": (joblib_file, "onnx", "joblib, converted to skops in another process"),
}


@pytest.mark.parametrize("kind", SIX)
def test_a_model_of_each_kind_becomes_a_release_with_proof_golden_pairs_metrics_and_gates(
    kind, train, dataset, world, tmp_path
):
    make, backend, source = SIX[kind]
    options = {"allow_code_execution": True} if kind == "joblib" else {}
    release = onboarded(make(train, tmp_path), dataset, world, **options)
    assert (release.backend, release.evidence["onboarded"]) == (backend, source)
    assert release.parity["rows"]["held out"] == 10_000
    assert set(release.metrics) == {"auc", "log_loss", "brier", "accuracy"}
    assert "auc" in [gate.metric for gate in release.gates]
    assert world.registry.live("fraud") is None
    bundle = world.registry.load(release.id)
    assert len(bundle.golden.outputs) == 64
    assert bundle.replay_golden() <= 1e-7
    assert world.metadata.runs("fraud")[-1]["release"] == release.id


@pytest.mark.parametrize("flavor", ["onnx", "xgboost", "lightgbm"])
def test_every_flavour_of_an_mlflow_folder_is_read(flavor, train, dataset, world, tmp_path):
    release = onboarded(mlflow_folder(train, tmp_path, flavor=flavor), dataset, world)
    assert release.evidence["onboarded"].startswith(f"MLflow ({flavor}), ")


@pytest.mark.parametrize(("make", "library"), [(xgboost_file, "xgboost"), (lightgbm_file, "lightgbm")])
def test_trees_answer_as_in_the_library_that_made_them(make, library, train, dataset, world, tmp_path):
    release = onboarded(make(train, tmp_path), dataset, world)
    assert "original" not in release.parity  # it was compared with the library itself
    assert max(release.parity["max_difference"].values()) <= 1e-5


def test_columns_in_another_order_are_given_by_name(train, dataset, world, tmp_path):
    import xgboost

    turned = train.X[["amount", "limit"]]
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(turned, label=train.y), num_boost_round=5)
    booster.save_model(tmp_path / "model.json")
    bundle = world.registry.load(onboarded(tmp_path / "model.json", dataset, world).id)
    found = bundle.predict(train.frame)
    np.testing.assert_allclose(found, booster.predict(xgboost.DMatrix(turned)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"zipmap": True}, {"zipmap": False}, {"zipmap": False, "double": True}])
def test_an_onnx_graph_is_brought_to_float_inputs_and_probabilities(options, train, dataset, world, tmp_path):
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(train, **options))
    release = onboarded(tmp_path / "model.onnx", dataset, world)
    model = LogisticRegression().fit(np.nan_to_num(train.X), train.y)
    rows = np.nan_to_num(train.X)[:50].astype(np.float32)
    found = world.registry.load(release.id).predict_matrix(rows)
    np.testing.assert_allclose(found, model.predict_proba(rows)[:, 1], rtol=0, atol=1e-6)


def test_other_inputs_are_refused_with_the_differences_and_close_names(train, dataset, world, tmp_path):
    from skops.io import dump

    other = train.X.rename(columns={"limit": "limits"}).assign(extra=1.0)
    dump(HistGradientBoostingClassifier(max_iter=2).fit(other, train.y), tmp_path / "m.skops")
    with pytest.raises(
        ModelError,
        match=r"m\.skops does not take what view 'fraud' gives: 'limits' is not in the view \(did you mean 'limit'\?\); "
        r"'extra' is not in the view; the view's 'limit' is not among its inputs.*The view's columns are 'amount', 'limit'",
    ):
        onboarded(tmp_path / "m.skops", dataset, world)


def test_another_number_of_inputs_is_refused(train, dataset, world, tmp_path):
    from skops.io import dump

    dump(HistGradientBoostingClassifier(max_iter=2).fit(np.ones((4, 3)), [0, 1, 0, 1]), tmp_path / "m.skops")
    with pytest.raises(ModelError, match="it takes 3 inputs, the view has 2"):
        onboarded(tmp_path / "m.skops", dataset, world)


def test_another_type_of_an_input_is_refused(train, dataset, world, tmp_path):
    folder = mlflow_folder(train, tmp_path, flavor="onnx")
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(text.replace('"double", "name": "limit"', '"string", "name": "limit"'))
    with pytest.raises(ModelError, match="'limit' is text to the model and number in the view"):
        onboarded(folder, dataset, world)


def test_a_model_for_another_label_is_refused(train, dataset, world, tmp_path):
    import xgboost
    from skops.io import dump

    dump(Ridge().fit(np.nan_to_num(train.X), train.y), tmp_path / "m.skops")
    with pytest.raises(ModelError, match="Ridge is made for regression, but the label of service 'fraud' is classes"):
        onboarded(tmp_path / "m.skops", dataset, world)
    rows = xgboost.DMatrix(train.X, label=train.y)
    xgboost.train({"objective": "reg:squarederror"}, rows, num_boost_round=2).save_model(tmp_path / "m.json")
    with pytest.raises(ModelError, match=r"answers through 'identity' for 1 class\(es\), but the label .* is a class"):
        onboarded(tmp_path / "m.json", dataset, world)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("m.skops", b"PK", r"m\.skops is not a skops file \(BadZipFile\)"),
        ("m.onnx", b"\x01\x02nonsense", r"m\.onnx is not an ONNX model"),
        ("m.json", b"{}", r"m\.json is not a model file of XGBoost"),
        ("m.txt", b"hello", r"m\.txt is not a model file of LightGBM"),
        ("m.h5", b"", r"'m\.h5' is no kind of model that windrow reads.*Read are '\.joblib', '\.json'"),
    ],
)
def test_a_file_that_is_no_model_is_refused(name, data, told, dataset, world, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=told):
        onboarded(tmp_path / name, dataset, world)


class Harmful:
    """What an attacker would store: reading it runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def harmful_file(folder: Path) -> Path:
    import joblib  # noqa: TID251 - an attacker's file

    joblib.dump(Harmful(folder / "ran"), folder / "m.joblib")
    return folder / "m.joblib"


def test_a_pickle_is_not_read_without_the_flag(dataset, world, tmp_path):
    path = harmful_file(tmp_path)
    with pytest.raises(ModelError, match=r"whoever wrote it decides what runs.*add --allow-code-execution"):
        onboarded(path, dataset, world)
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: m.pkl\n")
    (folder / "m.pkl").write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"m\.pkl is a joblib or pickle file"):
        onboarded(folder, dataset, world)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_is_allowed_is_read_in_another_process_and_still_checked(dataset, world, tmp_path, monkeypatch):
    monkeypatch.setenv("WINDROW_METADATA", "postgresql://user:secret@db/x")
    path = tmp_path / "m.joblib"
    path.write_bytes(
        b"cos\nsystem\n(S'printenv WINDROW_METADATA > %s; echo $$ > %s'\ntR."
        % (bytes(tmp_path / "secrets"), bytes(tmp_path / "ran"))
    )
    with pytest.raises(ModelError, match=r"m\.joblib holds a int, which is no estimator"):
        onboarded(path, dataset, world, allow_code_execution=True)
    assert (tmp_path / "ran").exists()
    assert (tmp_path / "secrets").read_text() == ""


def test_an_mlflow_folder_that_names_a_file_outside_of_itself_is_refused(train, dataset, world, tmp_path):
    skops_file(train, tmp_path)
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: ../model.skops\n")
    with pytest.raises(ModelError, match=r"MLmodel names '\.\./model\.skops', which is no file inside of 'mlflow'"):
        onboarded(folder, dataset, world)


@pytest.mark.parametrize(
    ("described", "told"),
    [
        (b"\xff\xfe", r"MLmodel cannot be read \(UnicodeDecodeError\)"),
        (b"flavors: [onnx]", "has flavours none"),
        (b"flavors:\n  onnx: here", "MLmodel names '', which is no file inside of"),
        (b'flavors:\n  onnx:\n    data: "a\\0b"', "which is no file inside of"),
        (b"flavors:\n  sklearn:\n    pickled_model: inner", "MLmodel names 'inner', which is no file inside of"),
        (b"flavors:\n  onnx:\n    data: linked", "MLmodel names 'linked', which is no file inside of"),
        (
            b"flavors:\n  onnx:\n    data: m.onnx\nsignature:\n  inputs: '[1]'",
            "the signature in MLmodel cannot be read",
        ),
    ],
)
def test_an_mlflow_folder_that_is_written_wrong_or_to_harm_is_refused(described, told, train, dataset, world, tmp_path):
    folder = tmp_path / "mlflow"
    for name in ("linked", "inner"):
        (folder / name).mkdir(parents=True)
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(train, zipmap=False))
    (folder / "m.onnx").write_bytes(onnx_bytes(train, zipmap=False))
    (folder / "linked" / "m.onnx").symlink_to(tmp_path / "model.onnx")
    (folder / "MLmodel").write_bytes(described)
    with pytest.raises(ModelError, match=told):
        onboarded(folder, dataset, world)


def test_an_onnx_graph_that_reads_other_files_or_takes_one_row_only_is_refused(
    train, dataset, world, tmp_path, monkeypatch
):
    import onnx

    monkeypatch.chdir(tmp_path)
    file, whole = tmp_path / "m.onnx", onnx.load_from_string(onnx_bytes(train, zipmap=False))
    # Not among the graph's weights, but in a node: ONNX's own check finds the file and says nothing.
    (tmp_path / "w.bin").write_bytes(bytes(16))
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=1)
    for key, value in {"location": "w.bin", "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    outside = onnx.ModelProto()
    outside.CopyFrom(whole)
    outside.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))
    file.write_bytes(outside.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx keeps weights in other files"):
        onboarded(file, dataset, world)
    one = onnx.ModelProto()
    one.CopyFrom(whole)
    one.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    file.write_bytes(one.SerializeToString())
    with pytest.raises(ModelError, match=r"takes exactly 1 row\(s\) at a time. Next: export it with a free first"):
        onboarded(file, dataset, world)
    del whole.graph.output[:]
    file.write_bytes(whole.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx has no input or no output"):
        onboarded(file, dataset, world)


def test_a_model_that_answers_nothing_for_some_rows_is_refused_and_not_judged_by_the_others(dataset, world, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    weights = onnx.numpy_helper.from_array(np.float32([[0.0], [1.0]]), "w")
    middle = onnx.numpy_helper.from_array(np.float32([50.0]), "m")
    nodes = [("MatMul", ["x", "w"], "a"), ("Sub", ["a", "m"], "b"), ("Sqrt", ["b"], "c"), ("Sigmoid", ["c"], "y")]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])], [weights, middle],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    before = len(world.registry.list("fraud"))
    with pytest.raises(ModelError, match=r"the model answers [\d,]+ of [\d,]+ rows of the test split with NaN or inf"):
        onboarded(tmp_path / "m.onnx", dataset, world)
    assert len(world.registry.list("fraud")) == before


@pytest.mark.parametrize("ending", ["ubj", "JSON"])
def test_the_names_in_an_xgboost_file_are_read_whatever_its_form(ending, train, dataset, world, tmp_path):
    import xgboost

    swapped = train.X[["amount", "limit"]]
    rows = xgboost.DMatrix(swapped, label=train.y)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, rows, num_boost_round=3)
    booster.save_model(tmp_path / f"m.{ending.lower()}")
    file = (tmp_path / f"m.{ending.lower()}").rename(tmp_path / f"m.{ending}")
    release = onboarded(file, dataset, world)
    frame = {"limit": np.float32([100.0]), "amount": np.float32([5.0])}
    expected = booster.predict(xgboost.DMatrix(np.array([[5.0, 100.0]]), feature_names=["amount", "limit"]))
    found = world.registry.load(release.id).predict(frame)
    assert found == pytest.approx(expected, abs=1e-6)


def test_an_mlflow_folder_of_another_flavour_names_those_that_are_read(dataset, world, tmp_path):
    (tmp_path / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n")
    with pytest.raises(ModelError, match=r"has flavours 'pytorch'.*Read are 'lightgbm', 'onnx', 'sklearn', 'xgboost'"):
        onboarded(tmp_path, dataset, world)


def test_a_scikit_learn_model_of_lightgbm_is_read_as_its_trees_and_nothing_of_it_is_constructed(
    train, dataset, world, tmp_path
):
    import joblib  # noqa: TID251 - written here to be onboarded
    import lightgbm
    from skops.io import dump

    model = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=2, n_jobs=1, verbose=-1).fit(train.X, train.y)
    dump(model, tmp_path / "m.skops")
    joblib.dump(model, tmp_path / "m.joblib")
    for name in ("m.skops", "m.joblib"):
        release = onboarded(tmp_path / name, dataset, world, allow_code_execution=name.endswith("joblib"))
        assert (release.backend, release.evidence["onboarded"]) == ("treelite", "LightGBM")
        found = world.registry.load(release.id).predict(train.frame)
        np.testing.assert_allclose(found, model.predict_proba(train.X)[:, 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("described", "told"),
    [
        (
            {"__module__": "lightgbm.sklearn", "__class__": "LGBMRanker"},
            r"holds a LGBMRanker of LightGBM, and its trees",
        ),
        ([1], r"m\.skops is not a skops file"),
        (None, r"m\.skops is not a skops file"),
    ],
)
def test_a_skops_file_that_is_laid_out_otherwise_is_refused(described, told, dataset, world, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.skops", "w") as file:
        file.writestr("schema.json" if described else "other", json.dumps(described))
    with pytest.raises(ModelError, match=told):
        onboarded(tmp_path / "m.skops", dataset, world)
