"""What assets work on: the stores that Settings name, opened when first used."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from windrow.environment import is_there
from windrow.errors import NotFoundError, listed
from windrow.features.source import Source
from windrow.settings import Settings

if TYPE_CHECKING:
    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog
    from windrow.stores.metadata import Metadata, Span

OnStep = Callable[[str, str], None]
"""Called with an asset's key and ``started``, ``done`` or ``failed``."""

_INSTANCE = """\
# Written by windrow: a Dagster instance of this project only. SQLite files lie beside this file.
telemetry:
  enabled: false
nux:  # no "join us" window in front of the asset graph
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 1
"""


def _silent(key: str, state: str) -> None:
    """Report nothing."""


class Stores:
    """The stores of one `Settings`; the Dagster resource ``stores``.

    Nothing is opened or written before it is asked for, so that definitions load on an empty machine.

    Examples
    --------
    >>> Stores(Settings.read({"WINDROW_HOME": "/tmp/none"})).spans()
    {}
    """

    def __init__(self, settings: Settings, *, package: str = "assets", on_step: OnStep | None = None) -> None:
        self.settings, self.package = settings, package
        self._on_step = on_step or _silent

    @cached_property
    def lake(self) -> "Lake":
        """The tables."""
        from windrow.stores.lake import Lake

        return Lake(self.settings.lake)

    @cached_property
    def metadata(self) -> "Metadata":
        """Spans, definitions, datasets, releases."""
        from windrow.stores.metadata import Metadata

        return Metadata(self.settings.metadata)

    @cached_property
    def log(self) -> "PredictionLog":
        """The prediction log: committed rows and open segments."""
        from windrow.stores.log import PredictionLog

        return PredictionLog(self.settings.folder("log"), self.lake)

    @property
    def started(self) -> bool:
        """Whether anything was ever recorded; asking does not create a file."""
        return is_there(self.settings.metadata)

    def spans(self) -> "dict[str, Span]":
        """Return the times of every source that was read; none on an empty machine."""
        return self.metadata.spans() if self.started else {}

    def now(self, sources: Sequence[Source]) -> int:
        """Return the clock's now for `sources` in UTC microseconds; raise `NotFoundError` before they are read."""
        return self.settings.clock.now(lambda: _latest(sources, self.spans()))

    @contextmanager
    def step(self, key: str) -> Iterator[None]:
        """Report that an asset starts, and how it ended."""
        self._on_step(key, "started")
        try:
            yield
        except BaseException:  # reported and raised again, whatever ends the step
            self._on_step(key, "failed")
            raise
        self._on_step(key, "done")


def dagster_home(settings: Settings) -> Path:
    """Return the folder of the project's Dagster instance, with telemetry switched off in its ``dagster.yaml``."""
    folder = settings.folder("dagster")
    path = folder / "dagster.yaml"
    if not path.exists():
        path.write_text(_INSTANCE, encoding="utf-8")
    return folder


def _latest(sources: Sequence[Source], spans: "dict[str, Span]") -> int:
    known = [spans[source.name].known for source in sources if source.name in spans]
    if not known:
        raise NotFoundError(
            f"there is no time yet: none of the sources {listed(s.name for s in sources)} was read",
            next_step="materialize them (windrow run SERVICE), or set WINDROW_CLOCK=real",
        )
    return max(known)
