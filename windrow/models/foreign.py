"""Models that were made elsewhere, read without running code of theirs: what they are and what they ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, listed
from windrow.features.contract import Frame, matrix
from windrow.models.foreign_lightgbm import wrapped_text
from windrow.models.foreign_onnx import Portable, read_portable
from windrow.models.runtime import SklearnModel

Kind = Literal["number", "text", "unknown"]
KINDS = {
    ".skops": "skops",
    ".onnx": "ONNX",
    ".json": "XGBoost",
    ".ubj": "XGBoost",
    ".txt": "LightGBM",
    ".lgb": "LightGBM",
    ".joblib": "joblib",
    ".pkl": "joblib",
    ".pickle": "joblib",
}
MLMODEL = "MLmodel"


class Input(msgspec.Struct, frozen=True):
    """One input that a model asks for."""

    name: str
    kind: Kind = "unknown"


class Foreign(msgspec.Struct, kw_only=True):
    """A model made elsewhere.

    Attributes
    ----------
    source
        What it is, in words.
    inputs
        In the model's order; empty where nothing names them: then only `width` is known.
    estimator
        The scikit-learn estimator, if it is one.
    portable
        The ONNX graph, if it is one.
    trees
        The treelite model, if it is of trees.
    original
        Answers a float32 matrix as the library that made the model does; None where that is not installed.
    """

    source: str
    width: int | None
    inputs: list[Input] = []
    estimator: Any = None
    portable: Portable | None = None
    trees: Any = None
    original: Callable[[NDArray[np.float32]], NDArray[np.float64]] | None = None


class OriginalModel:
    """A model in the library that made it, to be compared with; takes inputs by name."""

    def __init__(self, answer: Callable[[NDArray[np.float32]], NDArray[np.float64]], names: list[str]) -> None:
        self._answer, self._names = answer, names

    def predict(self, frame: Frame) -> NDArray[np.float64]:
        """Return its answers as float64."""
        try:
            return np.asarray(self._answer(matrix({n: frame[n] for n in self._names})), dtype=np.float64)
        except ValueError as error:
            raise ModelError(
                f"the model refuses a row: {str(error).partition(chr(10))[0][:200]}", next_step="fill the value"
            ) from error


def read_foreign(path: Path, *, allow_code_execution: bool = False) -> Foreign:
    """Read a model file or an MLflow folder.

    Parameters
    ----------
    allow_code_execution
        Also read joblib and pickle files, which run code of whoever wrote them: in a process of its own,
        whose answer is a skops file that is checked like any other.

    Raises
    ------
    ModelError
        If there is no such file, its kind is not known, or it holds what windrow does not trust.
    """
    if path.is_dir():
        return _mlflow(path, allow_code_execution=allow_code_execution)
    kind = KINDS.get(path.suffix.lower())
    if not path.is_file() or kind is None:
        raise ModelError(
            f"{path.name!r} {'is no kind of model that windrow reads' if path.exists() else 'does not exist'}",
            exists=f"Read are {listed(KINDS, shown=20)} and the folder of an MLflow model",
            next_step="give the file of a model",
        )
    if kind == "joblib":
        return _joblib(path, allowed=allow_code_execution)
    return _READERS[kind](path)


def _skops(path: Path) -> Foreign:
    return _stored(path.read_bytes(), path, source="skops")


def _stored(payload: bytes, path: Path, *, source: str) -> Foreign:
    text = wrapped_text(payload, where=path.name)
    if text is None:
        return _estimator(payload, where=path.name, source=source)
    with TemporaryDirectory(prefix="windrow-") as folder:  # treelite reads files only
        plain = Path(folder) / f"{path.stem}.txt"
        plain.write_text(text, encoding="utf-8")
        return _lightgbm(plain)


def _estimator(payload: bytes, *, where: str, source: str) -> Foreign:
    estimator = SklearnModel.load(payload, task="regression", where=where).estimator
    if not hasattr(estimator, "predict"):
        raise ModelError(
            f"{where} holds a {type(estimator).__name__}, which is no estimator",
            next_step="save the fitted estimator or pipeline itself",
        )
    names = list(getattr(estimator, "feature_names_in_", ()))
    width = getattr(estimator, "n_features_in_", None)
    return Foreign(source=source, width=width, inputs=[Input(name) for name in names], estimator=estimator)


def _onnx(path: Path) -> Foreign:
    made = read_portable(path.read_bytes(), where=path.name)
    inputs = [Input(name, kind) for name, kind in made.inputs.items()]
    return Foreign(source="ONNX", width=made.width, inputs=inputs, portable=made)


def _xgboost(path: Path) -> Foreign:
    import treelite

    plain = path.suffix.lower() == ".json"
    try:
        found = json.loads(path.read_bytes())["learner"].get("feature_names", ()) if plain else ()
        trees = treelite.frontend.load_xgboost_model(path, format_choice="json" if plain else "ubjson")
        booster = _booster(path)
    except (ValueError, KeyError, TypeError, AttributeError, treelite.TreeliteError) as error:
        raise _unreadable(path, "XGBoost", "booster.save_model('model.json')", error) from error
    # Of UBJSON only XGBoost itself reads the names.
    names = [str(name) for name in found or getattr(booster, "feature_names", None) or ()]
    inputs = [Input(name, "number") for name in names]
    original = booster and _xgboost_original(booster, names)
    return Foreign(source="XGBoost", width=trees.num_feature, inputs=inputs, trees=trees, original=original)


def _booster(path: Path) -> Any:
    """Return the model in XGBoost itself, None where that is not installed; a broken file is a `ValueError`."""
    try:
        import xgboost
    except ImportError:
        return None
    # As bytes: by a path, XGBoost goes by its ending, in small letters only.
    booster = xgboost.Booster(model_file=bytearray(path.read_bytes()))
    booster.set_param({"nthread": 1})
    return booster


def _xgboost_original(booster: Any, names: list[str]) -> Any:
    import xgboost

    return lambda rows: booster.predict(xgboost.DMatrix(rows, missing=np.nan, feature_names=names or None))


def _lightgbm(path: Path) -> Foreign:
    import treelite

    text = path.read_text(encoding="utf-8", errors="replace")
    named = [line for line in text.splitlines() if line.startswith("feature_names=")]
    try:
        if not named:
            raise ValueError("it has no line feature_names=")
        trees = treelite.frontend.load_lightgbm_model(path)
    except (ValueError, treelite.TreeliteError) as error:
        raise _unreadable(path, "LightGBM", "booster.save_model('model.txt')", error) from error
    names = named[0].partition("=")[2].split()
    inputs = [Input(name, "number") for name in names]
    # What LightGBM calls columns that had no names.
    inputs = [] if names == [f"Column_{i}" for i in range(len(names))] else inputs
    return Foreign(
        source="LightGBM", width=len(names), inputs=inputs, trees=trees, original=_lightgbm_original(text)
    )  # fmt: skip


def _lightgbm_original(text: str) -> Any:
    try:
        import lightgbm
    except ImportError:
        return None
    booster = lightgbm.Booster(model_str=text)
    return lambda rows: booster.predict(rows.astype(np.float64), num_threads=1)


_READERS: dict[str, Callable[[Path], Foreign]] = {
    "skops": _skops,
    "ONNX": _onnx,
    "XGBoost": _xgboost,
    "LightGBM": _lightgbm,
}


def _joblib(path: Path, *, allowed: bool) -> Foreign:
    if not allowed:
        raise ModelError(
            f"{path.name} is a joblib or pickle file: whoever wrote it decides what runs when it is read",
            next_step="save the model with skops.io.dump; or, if you trust who wrote it, add --allow-code-execution",
        )
    from windrow.models.unpickle import converted

    return _stored(converted(path), path, source="joblib, converted to skops in another process")


def _mlflow(folder: Path, *, allow_code_execution: bool) -> Foreign:
    """Read what ``MLmodel`` names; of several flavours the first in this list."""
    described = _mlmodel(folder)
    flavors = _mapping(described.get("flavors"))
    for name, (key, suffix) in _FLAVORS.items():
        if name in flavors:
            file = _inside(folder, str(_mapping(flavors[name]).get(key, "")))
            found = _flavor(file, suffix, allow_code_execution=allow_code_execution)
            found.source = f"MLflow ({name}), {found.source}"
            found.inputs = found.inputs or _signature(described)
            return found
    raise ModelError(
        f"the MLflow model {folder.name!r} has flavours {listed(flavors)}",
        exists=f"Read are {listed(_FLAVORS)}",
        next_step="log it with one of these flavours",
    )


# flavour -> the key that names its file, and how that is read where its own ending says nothing
_FLAVORS = {
    "sklearn": ("pickled_model", ""),
    "onnx": ("data", ".onnx"),
    "xgboost": ("data", ".json"),
    "lightgbm": ("data", ".txt"),
}


def _mlmodel(folder: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        described = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(
            f"{folder.name}/{MLMODEL} cannot be read ({type(error).__name__})",
            next_step="give the folder of an MLflow model, the one that holds MLmodel",
        ) from error
    return _mapping(described)


def _mapping(found: Any) -> dict[Any, Any]:
    return found if isinstance(found, dict) else {}


def _inside(folder: Path, name: str) -> Path:
    """Return the file that `MLmodel` names; links are followed first, so that none leads out of the folder."""
    path = (folder / name.replace("\0", "?")).resolve()
    if path.is_dir():  # the ONNX flavour of some versions is a folder of its own
        path = next(path.glob("*.onnx"), path).resolve()
    if not (name and path.is_file() and path.is_relative_to(folder.resolve())):
        raise ModelError(
            f"{MLMODEL} names {name!r}, which is no file inside of {folder.name!r}", next_step="do not load it"
        )
    return path


def _flavor(file: Path, suffix: str, *, allow_code_execution: bool) -> Foreign:
    if file.suffix.lower() in KINDS or not suffix:
        return read_foreign(file, allow_code_execution=allow_code_execution)
    return _READERS[KINDS[suffix]](file)


def _signature(described: dict[str, Any]) -> list[Input]:
    """Return the named inputs of a signature; its types say numbers and strings apart."""
    try:
        columns = json.loads(_mapping(described.get("signature")).get("inputs") or "[]")
        return [Input(c["name"], "text" if c.get("type") == "string" else "number") for c in columns if "name" in c]
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the signature in {MLMODEL} cannot be read ({type(error).__name__})",
            next_step="log the model again, with mlflow.models.infer_signature",
        ) from error


def _unreadable(path: Path, library: str, how: str, error: Exception) -> ModelError:
    return ModelError(
        f"{path.name} is not a model file of {library}: {' '.join(str(error).split())[:160]}",
        next_step=f"write it with {how}",
    )
