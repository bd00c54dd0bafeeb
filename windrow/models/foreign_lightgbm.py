"""LightGBM's scikit-learn models as MLflow keeps them: a skops file around the text that LightGBM itself writes."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

from windrow.errors import ModelError
from windrow.models.trusted import check_archive


def wrapped_text(payload: bytes, *, where: str) -> str | None:
    """Return the text of the LightGBM model that a skops file wraps, None if it wraps something else.

    Nothing of the file is constructed: the text is looked up in its description, and read as any other text.

    Raises
    ------
    ModelError
        If it is no skops file, or a model of LightGBM that is laid out otherwise.
    """
    check_archive(payload, where=where)
    found = _described(payload)
    if found.get("__module__") != "lightgbm.sklearn":
        return None
    try:
        booster = found["content"]["content"]["_Booster"]
        # LightGBM itself left out the trees behind the best iteration when training ended.
        return str(json.loads(booster["content"]["content"]["_handle"]["content"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{where} holds a {found.get('__class__')} of LightGBM, and its trees are not where they are known to be",
            next_step="write them with model.booster_.save_model('model.txt'), and onboard that file",
        ) from error


def _described(payload: bytes) -> dict[str, Any]:
    try:
        found = json.loads(zipfile.ZipFile(io.BytesIO(payload)).read("schema.json"))
    except (KeyError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}  # whoever reads it as skops says what is wrong with it
    return found if isinstance(found, dict) else {}
