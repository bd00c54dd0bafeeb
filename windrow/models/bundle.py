"""The bundle: a release's files, checked by hash before anything in them is read.

Loading a compiled model needs NumPy, msgspec and ONNX Runtime (or treelite) only. There is no pickle anywhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, ParityError, StoreError, listed
from windrow.features.contract import Frame, canonical, matrix
from windrow.features.on_demand import load_functions
from windrow.models.forest import TreeliteModel
from windrow.models.release import Backend, Release, check_functions, decode_release, encode_release, sha256
from windrow.models.runtime import Model, OnnxModel, Way, batch_threads, few_threads, open_model
from windrow.models.trusted import check_format

MODEL_FILES: dict[Backend, str] = {"onnx": "model.onnx", "treelite": "model.treelite", "sklearn": "model.skops"}
RELEASE_FILE = "release.json"
RELATIVE = 1e-5
FEW_ROWS = 512
"""Up to so many, the model that serves requests is asked: another one's fixed cost would not pay."""


class Golden(msgspec.Struct, frozen=True):
    """Held-out inputs with the answers they had when the release was made; null is a missing number."""

    inputs: dict[str, list[float | str | None]]
    outputs: list[float | list[float]]


class Bundle:
    """A loaded release that answers; made by `load_bundle`.

    Attributes
    ----------
    release, contract
        What it is, and what it must be given.
    matrix_input
        Whether `predict_matrix` can be used.
    """

    def __init__(
        self,
        release: Release,
        model: Model,
        golden: Golden,
        *,
        read: Callable[[str], bytes] | None = None,
        batch: Callable[[], Model] | None = None,
    ) -> None:
        self.release, self.contract = release, release.contract
        self.golden, self._read = golden, read
        self._model, self._open_batch = model, batch
        self.matrix_input = isinstance(model, OnnxModel | TreeliteModel) and model.layout == "matrix"
        self._refuses = _refusals(release)

    @property
    def id(self) -> str:
        """The release's id."""
        return self.release.id

    @property
    def model(self) -> Model:
        """What answers requests."""
        return self._model

    def file(self, name: str) -> bytes | None:
        """Return another file of the release, read and checked now; None if it has no such file."""
        return self._read(name) if self._read is not None and name in self.release.files else None

    def predict(self, frame: Frame) -> NDArray[np.float64]:
        """Return the probability of class 1, of each class, or the value.

        Parameters
        ----------
        frame
            Canonical arrays of shape (n,), see `windrow.features.contract.canonical`.

        Returns
        -------
        numpy.ndarray
            float64 of shape (n,), or (n, classes) for three classes or more.

        Raises
        ------
        ModelError
            If a value is missing or infinite where the original model refuses that.
        """
        if self.matrix_input:
            return self.predict_matrix(matrix(frame))
        if self._refuses:
            self._check(frame)
        return self._model.predict(frame)

    def predict_batch(self, frame: Frame) -> NDArray[np.float64]:
        """Answer many rows as `predict` does, with the fastest model that was proven to."""
        if self._open_batch is None or len(next(iter(frame.values()))) <= FEW_ROWS:
            return self.predict(frame)
        if self._refuses:
            self._check(frame)
        model = self._batch_model  # loaded first: it may bring native code, whose threads are to be few as well
        with few_threads():
            return model.predict(frame)

    @cached_property
    def _batch_model(self) -> Model:
        return self._open_batch() if self._open_batch else self._model

    def predict_matrix(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Answer a float32 matrix of shape (n, features) in the contract's order; see `matrix_input`."""
        if self._refuses and not np.isfinite(inputs).all():
            self._check(dict(zip(self.contract.feature_names, inputs.T, strict=True)))
        if not isinstance(self._model, OnnxModel | TreeliteModel):
            raise ModelError(f"release {self.id!r} takes no matrix", next_step="use predict(frame)")
        return self._model.predict_matrix(inputs)

    def refused(self, frame: Frame) -> NDArray[np.bool_]:
        """Return which rows hold a missing or infinite value that the model does not take, shape (n,)."""
        rows = len(next(iter(frame.values())))
        found = np.zeros(rows, dtype=bool)
        for test, name in self._refuses:
            found |= test(frame[name])
        return found

    @cached_property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """The on-demand functions of the release, from the text it carries (its hash is checked)."""
        specs = self.contract.on_demand
        if not specs:
            return {}
        check_functions(self.release)
        return load_functions(self.contract.on_demand_source, [s.function for s in specs], where=f"release {self.id}")

    def replay_golden(self) -> float:
        """Answer the golden inputs again and return the largest difference.

        Raises
        ------
        ParityError
            If an answer differs by more than 1e-5 (relative).
        """
        outputs = np.array(self.golden.outputs)
        found = self.predict(canonical(self.contract, self.golden.inputs))
        worst = float(np.max(np.abs(found - outputs)))
        if not np.allclose(found, outputs, rtol=RELATIVE, atol=1e-7):
            raise ParityError(
                f"release {self.id!r} answers its golden inputs differently here, by up to {worst:g}",
                exists=f"It was made with {', '.join(f'{k} {v}' for k, v in list(self.release.environment.items())[:8])}",
                next_step="install the versions in its environment.txt, or train again",
            )
        return worst

    def _check(self, frame: Frame) -> None:
        odd = [name for name in {name for _, name in self._refuses} if not np.isfinite(frame[name]).all()]
        for test, name in self._refuses:
            if name in odd and test(frame[name]).any():
                kind = "missing" if test is np.isnan else "infinite"
                raise ModelError(
                    f"the model of release {self.id!r} does not take a {kind} value of {name!r}",
                    next_step=f"send a number for {name!r}, or train a model that takes missing values",
                )


def golden_pairs(frame: Frame, outputs: NDArray[np.float64]) -> Golden:
    """Keep inputs and answers as plain JSON values."""
    return Golden({name: _plain(values) for name, values in frame.items()}, outputs.tolist())


def write_bundle(folder: Path, release: Release, files: Mapping[str, bytes]) -> Path:
    """Write a release's files beside `folder` and move them there at once.

    Parameters
    ----------
    folder
        Where the bundle will be; nothing is seen there before everything is.
    files
        File name -> bytes; their hashes must be those of ``release.files``.

    Raises
    ------
    ModelError
        If a file is not the one of the release.
    StoreError
        If the files cannot be written.
    """
    _check_files(release, files)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        for name, data in {**files, RELEASE_FILE: encode_release(release)}.items():
            _write(beside / name, data)
        os.rename(beside, folder)
    except OSError as error:
        raise unwritable(release, folder.parent, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def unwritable(release: Release, folder: Path, error: OSError) -> StoreError:
    """Return the error that a release cannot be written into a folder."""
    return StoreError(
        f"release {release.id!r} cannot be written to {folder}: {error.strerror}",
        next_step="free space or set WINDROW_HOME to a writable folder, then train again",
    )


def load_bundle(folder: Path, release: Release | None = None) -> Bundle:
    """Load a release; every file is checked against its hash before it is parsed.

    Parameters
    ----------
    folder
        Where `write_bundle` put it.
    release
        The registry's own copy of the release; default: the folder's.

    Raises
    ------
    ModelError
        If a file is missing or was changed, or holds what windrow does not trust.
    """
    release = release or decode_release(_read(folder / RELEASE_FILE), where=f"{folder.name}/{RELEASE_FILE}")
    files = {name: _read(folder / name) for name in release.files}
    return open_bundle(release, files, again=partial(checked_file, folder, release))


def open_bundle(release: Release, files: Mapping[str, bytes], *, again: Callable[[str], bytes] | None = None) -> Bundle:
    """Return a release that answers, from the bytes of its files; see `load_bundle`.

    `again` reads files that are asked for later, such as the model of batch scoring (default: from `files`).
    """
    _check_files(release, files)
    model = load_model(release, files[MODEL_FILES[release.backend]])
    golden = _golden(files["golden.json"], release)
    faster, read = release.batch_backend, again or files.__getitem__
    other = None if faster in (None, release.backend) else partial(_batch_model, release, read)
    return Bundle(release, model, golden, read=read, batch=other)


def load_model(release: Release, payload: bytes, backend: Backend | None = None) -> Model:
    """Return a model of a release from the bytes of its file; default: the one that serves requests."""
    check_format(release.trusted_types, where=f"release {release.id!r}")
    way = Way(backend or release.backend, release.layout, release.task)
    threads = batch_threads() if backend else 1
    return open_model(way, payload, release.contract, threads=threads, where=f"release {release.id!r}")


def checked_file(folder: Path, release: Release, name: str) -> bytes:
    """Return one file of a release, if it is the one that was released; else raise `ModelError`."""
    if name not in release.files:
        raise ModelError(
            f"release {release.id!r} has no {name}",
            exists=f"It has {listed(release.files)}",
            next_step="train again: a new release has it",
        )
    data = _read(folder / name)
    _check_hash(release, name, data)
    return data


def _batch_model(release: Release, read: Callable[[str], bytes]) -> Model:
    """Load the model of batch scoring when it is first asked: its file is checked again, it may have changed since."""
    backend = release.batch_backend or release.backend
    return load_model(release, read(MODEL_FILES[backend]), backend)


def read_release(folder: Path) -> Release:
    """Return the release of a folder without loading its model."""
    return decode_release(_read(folder / RELEASE_FILE), where=f"{folder.name}/{RELEASE_FILE}")


def _check_files(release: Release, files: Mapping[str, bytes]) -> None:
    models = {MODEL_FILES[backend] for backend in (release.backend, release.batch_backend) if backend}
    needed = {*models, "contract.json", "golden.json", "environment.txt"}
    if not needed <= set(release.files) or set(files) != set(release.files):
        raise ModelError(
            f"release {release.id!r} has files {sorted(files)}, but says {sorted(release.files)}",
            next_step="train again",
        )
    for name, data in files.items():
        _check_hash(release, name, data)


def _check_hash(release: Release, name: str, data: bytes) -> None:
    if sha256(data) != release.files[name]:
        raise ModelError(
            f"release {release.id!r}: {name} is not the file that was released (its SHA-256 differs)",
            next_step="restore the file from a backup, or train again",
        )


def _refusals(release: Release) -> list[tuple[Callable[..., Any], str]]:
    refused: Mapping[str, list[str]] = release.parity.get("refused_by_the_original", {})
    tests = {"missing": np.isnan, "infinite": np.isinf}
    return [(tests[kind], name) for kind in tests for name in refused.get(kind, [])]


def _golden(data: bytes, release: Release) -> Golden:
    try:
        return msgspec.json.decode(data, type=Golden)
    except msgspec.MsgspecError as error:
        raise ModelError(
            f"release {release.id!r}: golden.json cannot be read: {error}", next_step="train again"
        ) from None


def _plain(values: NDArray[Any]) -> list[Any]:
    if values.dtype == object:
        return list(values)
    return [None if np.isnan(v) else float(v) for v in values]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path.parent.name}/{path.name} cannot be read: {error.strerror}",
            next_step="restore the release's folder from a backup, or train again",
        ) from None


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
