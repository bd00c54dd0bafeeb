from __future__ import annotations

from pathlib import Path

import pytest

from windrow.errors import StoreError
from windrow.serving.run import free_port, start
from windrow.settings import Settings


def test_a_free_port_is_free() -> None:
    assert 1024 < free_port() < 65536


def test_a_service_that_cannot_start_is_told_with_what_it_said(tmp_path: Path) -> None:
    settings = Settings.read({"WINDROW_HOME": str(tmp_path / "home"), "WINDROW_PROJECT": str(tmp_path)})
    (tmp_path / "bento").mkdir()
    (tmp_path / "bento" / "service.py").write_text("raise RuntimeError('no such thing')")
    with pytest.raises(StoreError, match=r"ended with exit code \d+. It said: .*Next: read .*service.log"):
        start(settings)


def test_a_project_without_its_service_is_told_before_anything_starts(tmp_path: Path) -> None:
    settings = Settings.read({"WINDROW_HOME": str(tmp_path / "home"), "WINDROW_PROJECT": str(tmp_path)})
    with pytest.raises(StoreError, match="there is no bento/service.py in .*Next: run this from the project's folder"):
        start(settings)
