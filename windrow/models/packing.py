"""From a compiled model to the files of a release."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, distributions, version

import msgspec
import numpy as np

from windrow.features.contract import Contract, Frame
from windrow.models.bundle import MODEL_FILES, golden_pairs
from windrow.models.compile import Compiled
from windrow.models.release import sha256

GOLDEN_ROWS = 64
_NAMED = ("windrow", "numpy", "scikit-learn", "onnxruntime", "onnx", "skl2onnx", "treelite", "skops", "pandas")


def pack(compiled: Compiled, contract: Contract, frame: Frame) -> dict[str, bytes]:
    """Return file name -> bytes of a release, without ``release.json``.

    Parameters
    ----------
    compiled
        The model with its proof.
    contract
        What it is given.
    frame
        Held-out rows in canonical form; 64 of them (repeated when there are fewer) become golden pairs.
    """
    golden = golden_frame(frame, compiled)
    outputs = compiled.model(contract).predict(golden)
    return {
        **{MODEL_FILES[backend]: made.payload for backend, made in compiled.models.items()},
        "contract.json": msgspec.json.format(msgspec.json.encode(contract, order="deterministic"), indent=1),
        "golden.json": msgspec.json.encode(golden_pairs(golden, outputs)),
        "environment.txt": environment_text().encode(),
    }


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    """Return file name -> SHA-256."""
    return {name: sha256(data) for name, data in sorted(files.items())}


def golden_frame(frame: Frame, compiled: Compiled) -> Frame:
    """Return 64 rows, evenly spread over `frame`, that the model answers and JSON can hold."""
    refused = compiled.parity["refused_by_the_original"].get("missing", [])
    good = np.ones(len(next(iter(frame.values()))), dtype=bool)
    for name, values in frame.items():
        if values.dtype != object:
            good &= ~(np.isinf(values) | (np.isnan(values) & (name in refused)))
    chosen = np.flatnonzero(good)
    picked = chosen[np.linspace(0, len(chosen) - 1, GOLDEN_ROWS).astype(int)]
    return {name: values[picked] for name, values in frame.items()}


def environment() -> dict[str, str]:
    """Return the versions that decide an answer, such as ``{"numpy": "2.4.6"}``."""
    found = {"python": platform.python_version()}
    for name in _NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an editable checkout has no metadata; the rest still counts
            continue
    return found


def environment_text() -> str:
    """Return every installed package as ``name==version`` lines."""
    # `Distribution.version` would read each file a second time.
    lines = {f"{about['Name']}=={about['Version']}" for about in (d.metadata for d in distributions())}
    return "\n".join(sorted(lines, key=str.lower)) + "\n"
