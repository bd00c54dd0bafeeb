"""A prediction service of one's own for a test or a notebook: trained, released and answering over HTTP.

It is the real one, only small: the same stores, the same release, the same BentoML process, in a temporary home.
"""

from __future__ import annotations

import atexit
import http.client
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from windrow.errors import ModelError, StoreError
from windrow.models.service import PredictionService
from windrow.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.models.dataset import TrainingDataset
    from windrow.models.experiments import Experiments
    from windrow.models.registry import Registry
    from windrow.models.release import Release
    from windrow.serving.run import Running
    from windrow.stores.lake import Lake
    from windrow.stores.metadata import Metadata

_TIMEOUT = 30.0  # seconds
_BAD = 400  # the first status that is no answer

Row = Mapping[str, Any]


def service(declared: PredictionService | None = None) -> Served:
    """Return a running service: its sources simulated, its groups published, its model trained and released.

    Parameters
    ----------
    declared
        Any declaration whose sources have simulators; default: `windrow.testing.tiny.tiny`.

    Returns
    -------
    Served
        A context manager; without ``with`` it ends by its `close`, or with this process.

    Raises
    ------
    ModelError
        If its model does not clear the gates.
    WindrowError
        If anything else about it is wrong.

    Examples
    --------
    A test of a project::

        with service(bakery) as served:
            assert served.predict({"shop_id": 3})["predictions"][0]["value"] > 0
    """
    served = Served(declared or _tiny())
    try:
        served.make()
        served.start()
    except BaseException:
        served.close()
        raise
    return served


def _tiny() -> PredictionService:
    from windrow.testing.tiny import tiny

    return tiny


class Served:
    """A service in a temporary home, made by `service`.

    Attributes
    ----------
    declared
        What it was made from.
    settings
        Where everything is; all of it is gone after `close`.
    dataset, release
        What it was trained on, and what answers first.
    running
        The process, with its address in `url`.
    """

    dataset: TrainingDataset
    release: Release
    running: Running

    def __init__(self, declared: PredictionService) -> None:
        self.declared, self._home = declared, Path(mkdtemp(prefix="windrow-served-"))
        atexit.register(self.close)
        given = {"HOME": self._home / "home", "DATA": self._home / "no-data", "PROJECT": self._home}
        self.settings = Settings.read({f"WINDROW_{name}": str(path) for name, path in given.items()})

    def __repr__(self) -> str:
        return f"service {self.declared.name!r}, {self._state}"

    def _repr_html_(self) -> str:
        from windrow.html import facts_card

        made = self.release
        facts = {"release": made.id, "backend": made.backend, "trained on rows": made.dataset.rows, "is": self._state}
        return facts_card(f"Service {self.declared.name}", facts)

    @property
    def _state(self) -> str:
        return f"answering at {self.running.url}" if "running" in vars(self) else "stopped"

    def make(self) -> None:
        """Read the sources, materialise and publish the groups, train and release; see `service` for errors."""
        from windrow.models.dataset import build_dataset
        from windrow.models.training import train

        self._materialise()
        home = self.settings.home
        self.dataset = build_dataset(self.declared, self.lake, self.metadata, now=self.now, home=home)
        self.release = train(self.declared, self.dataset, registry=self.registry, metadata=self.metadata)
        if not self.release.passed:
            failed = "; ".join(gate.why for gate in self.release.gates if not gate.passed)
            raise ModelError(
                f"the model of service {self.declared.name!r} does not clear its gates: {failed}",
                next_step="declare another model, or a gate that it can clear",
            )

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        from windrow.serving.local_key import local_key
        from windrow.serving.run import start

        self._key = local_key(self.settings)  # before the process reads which keys there are
        shell = self._home / "bento" / "service.py"
        shell.parent.mkdir(exist_ok=True)
        shell.write_text(files("windrow").joinpath("templates/project/bento/service.py").read_text(encoding="utf-8"))
        self.running = start(self.settings)

    def stop(self) -> None:
        """End the process; everything stored stays, and `start` goes on with it."""
        if "running" in vars(self):
            self.running.stop()
            del self.running
        if "_connection" in vars(self):
            self._connection.close()
            del self._connection

    def close(self) -> None:
        """End the process and remove the home; a second time there is nothing to do."""
        self.stop()
        if "metadata" in vars(self):
            self.metadata.close()
            del self.metadata
        shutil.rmtree(self._home, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def lake(self) -> Lake:
        """Its tables."""
        from windrow.stores.lake import Lake

        return Lake(self.settings.lake)

    @cached_property
    def metadata(self) -> Metadata:
        """Its metadata store."""
        from windrow.stores.metadata import Metadata

        return Metadata(self.settings.metadata)

    @property
    def registry(self) -> Registry:
        """Its releases."""
        from windrow.models.registry import Registry

        return Registry(self.metadata, self.settings.folder("releases"), clock=self.settings.clock)

    @property
    def experiments(self) -> Experiments:
        """Its experiments: start, weigh and stop them here, and the process follows."""
        from windrow.models.experiments import Experiments

        return Experiments(self.metadata, self.registry)

    @property
    def now(self) -> int:
        """The clock's now: the latest time that its data know, UTC microseconds."""
        spans = self.metadata.spans()
        return self.settings.clock.now(lambda: max(spans[source.name].known for source in self.declared.sources))

    def challenger(self, estimator: Any) -> Release:
        """Fit an estimator on the training split and return its release: judged, and not promoted."""
        import skops.io

        from windrow.models.dataset import load_split
        from windrow.models.onboard import onboard

        learn = load_split(self.dataset, self.declared.view.contract, "train")
        path = self._home / "challenger.skops"
        skops.io.dump(estimator.fit(learn.X, learn.y), path)
        return onboard(path, self.declared, self.dataset, registry=self.registry, metadata=self.metadata)

    def log(self, kind: str = "prediction") -> pa.Table:
        """Return what was logged: of kind ``prediction``, ``shadow``, ``outcome`` or ``error``, oldest first."""
        from windrow.stores.log import PredictionLog

        return PredictionLog(self.settings.folder("log"), self.lake).table(self.declared.name, kind=kind)

    def predict(self, rows: Row | Sequence[Row], *, explain: str = "") -> Any:
        """Return the answer to one row or several, as it comes over HTTP.

        Parameters
        ----------
        explain
            ``shap``, ``anchor`` or ``counterfactual``, or several with commas between them.

        Raises
        ------
        StoreError
            If it was refused; the message has the status and the problem.
        """
        query = f"?explain={explain}" if explain else ""
        body = rows if isinstance(rows, Mapping) else {"rows": list(rows)}
        return self._posted(f"/v1/{self.declared.name}/predict{query}", body)

    def outcomes(self, values: Mapping[str, float]) -> None:
        """Tell what came of requests: id -> value, each of the request's first row."""
        told = [{"request_id": id, "value": value} for id, value in values.items()]
        self._posted(f"/v1/{self.declared.name}/outcomes", {"outcomes": told})

    def ask(self, method: str, address: str, body: Any = None) -> tuple[int, bytes]:
        """Return status and body of any request, signed with this machine's key, on one kept-alive connection."""
        data = None if body is None else json.dumps(body).encode()
        for last in (False, True):
            try:
                self._connection.request(method, address, data, self._headers)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
                # The process closes connections on which nobody asked for some seconds: ask on a new one.
                self._connection.close()
                if last:
                    raise
        raise AssertionError("unreachable")

    def _posted(self, address: str, body: Any) -> Any:
        status, data = self.ask("POST", address, body)
        if status >= _BAD:
            told = data.decode(errors="replace")[:500]
            raise StoreError(f"{address} was answered with {status}", exists=told, next_step="see what it says")
        return json.loads(data)

    @cached_property
    def _connection(self) -> http.client.HTTPConnection:
        from windrow.serving.run import connection

        return connection(self.running.url, timeout=_TIMEOUT)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}

    def _materialise(self) -> None:
        from windrow.discover import groups
        from windrow.features.aggregate import AggregateGroup
        from windrow.stores.materialize import materialize_group, materialize_source
        from windrow.stores.online.store import open_online
        from windrow.stores.publish import publish_online
        from windrow.stores.states import publish_aggregates

        for source in self.declared.sources:
            materialize_source(source, self.lake, self.metadata, self.settings.data)
        with open_online(self.settings.online, write=True) as online:
            for group in groups([self.declared]):
                if isinstance(group, AggregateGroup):
                    publish_aggregates(group, self.lake, online, self.now)
                    continue
                materialize_group(group, self.lake, self.metadata)
                if group.online:
                    publish_online(group, self.lake, online, self.now)
