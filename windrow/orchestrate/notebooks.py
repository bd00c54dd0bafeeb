"""Notebooks as assets: papermill inside an ordinary asset, results over Dagster Pipes."""

import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from windrow.errors import NotebookError, UnknownNameError
from windrow.orchestrate.factories import Events, Plan, build
from windrow.orchestrate.facts import Metadata, failure
from windrow.orchestrate.notebook_file import NotebookFile, plain_code
from windrow.orchestrate.resources import Stores
from windrow.schema import fingerprint

_TYPES = {bool: dg.Bool, int: dg.Int, float: dg.Float, str: dg.String, list: dg.Array(dg.Any), dict: dict}


class Outcome:
    """What a notebook handed back while it ran.

    Attributes
    ----------
    metrics
        What it gave to ``report(...)``.
    saved
        File that it gave to ``save(...)``, or None.
    trials
        Of the search that it gave to ``save(...)``, as documents.
    copy
        The executed notebook.
    """

    def __init__(self, copy: Path) -> None:
        self.copy = copy
        self.metrics: dict[str, Any] = {}
        self.saved: Path | None = None
        self.trials: list[dict[str, Any]] = []

    def take(self, messages: Sequence[Any]) -> None:
        """Read the notebook's messages, in order; the last word counts."""
        for message in messages:
            if isinstance(message, dict):
                self.metrics |= message.get("metrics", {})
                self.saved = Path(message["saved"]) if "saved" in message else self.saved
                self.trials = message.get("trials", self.trials)

    @property
    def facts(self) -> Metadata:
        """Metadata of the run: the executed copy and what was reported."""
        # The button opens copies below the folder that Dagster runs in; the path is there for the others.
        path = str(self.copy)
        return {**self.metrics, "notebook": dg.MetadataValue.notebook(path), "file": dg.MetadataValue.path(path)}


def notebook_asset(notebook: NotebookFile, *, known: Sequence[str]) -> dg.AssetsDefinition:
    """Return ``notebooks/<stem>``: its inputs are what it loads, its metadata what it reports.

    Parameters
    ----------
    known
        Keys of all assets, to find a misspelt input before anything runs.
    """
    plan = Plan(
        key=f"notebooks/{notebook.stem}",
        deps=inputs(notebook, known),
        group="notebooks",
        code=fingerprint(notebook.code),
        description=f"**{notebook.title}**\n\n{notebook.description}",
        kinds={"jupyter", "python"},
        options={"config_schema": config_schema(notebook)},
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        outcome = run_notebook(notebook, context, stores)
        yield dg.MaterializeResult(metadata=outcome.facts)

    return build(plan, body)


def inputs(notebook: NotebookFile, known: Sequence[str]) -> list[str]:
    """Return the assets that a notebook loads; raise `UnknownNameError` for one that nothing makes."""
    rooms = {key.partition("/")[0] for key in known}
    asked = [name for name in notebook.inputs if name.partition("/")[0] in rooms]
    for name in asked:
        if name not in known:
            raise UnknownNameError("input", name, list(known), where=f"the project of notebook {notebook.path.name!r}")
    return asked


def config_schema(notebook: NotebookFile) -> dict[str, dg.Field]:
    """Return the run configuration of a notebook: its tagged parameters with their defaults."""
    return {
        name: dg.Field(_TYPES[type(value)], default_value=value, is_required=False)
        for name, value in notebook.parameters.items()
    }


def run_notebook(notebook: NotebookFile, context: dg.AssetExecutionContext, stores: Stores) -> Outcome:
    """Run a notebook in a kernel of this Python and return what it handed back.

    The executed copy is kept under ``<home>/notebooks``, also when a cell fails.

    Raises
    ------
    dagster.Failure
        Caused by a `NotebookError`; its metadata has the executed copy and the failing cell.
    """
    folder, parameters = stores.settings.folder("notebooks"), dict(context.op_execution_context.op_config or {})
    outcome = Outcome(folder / f"{notebook.stem}-{context.run.run_id[:8]}.ipynb")
    try:
        with _pipes(context, stores) as session:
            environment = {**stores.settings.environ(), **session.get_bootstrap_env_vars()}
            _execute(notebook, outcome.copy, parameters, environment)
    except NotebookError as error:
        cell = {} if error.cell is None else {"failing cell": error.cell}
        raise failure(error, {**cell, **outcome.facts}) from error
    finally:
        if outcome.copy.exists():
            shutil.copyfile(outcome.copy, folder / f"{notebook.stem}.ipynb")
    outcome.take(session.get_custom_messages())
    return outcome


@contextmanager
def _pipes(context: dg.AssetExecutionContext, stores: Stores) -> Iterator[dg.PipesSession]:
    with warnings.catch_warnings():
        # Dagster warns about its own use of its own preview and deprecated parts.
        warnings.filterwarnings("ignore", module="dagster")
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
            extras={"package": stores.package},
        ) as session:
            yield session


def _execute(notebook: NotebookFile, copy: Path, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    import papermill
    from papermill.exceptions import PapermillException, PapermillExecutionError

    try:
        with TemporaryDirectory(prefix="windrow-") as sockets:
            papermill.execute_notebook(
                notebook.path,
                copy,
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=notebook.path.parent,
                kernel_manager_class=_kernel(environment, sockets),
            )
    except PapermillExecutionError as error:
        raise _failed(notebook, error.source, f"{error.ename}: {error.evalue}") from error
    except (PapermillException, RuntimeError) as error:
        # The kernel died or never answered: there is no failing cell to name.
        raise NotebookError(
            f"notebook {notebook.path.name!r} did not finish: {_short(str(error))}",
            next_step="run it in JupyterLab (make lab); a kernel that dies is often out of memory",
        ) from error


def _failed(notebook: NotebookFile, source: str, reason: str) -> NotebookError:
    cells = [text.strip() for text in notebook.code]
    failing = plain_code(source).strip()
    number = cells.index(failing) + 1 if failing in cells else None
    place = f"code cell {number}" if number else "a cell"
    first = next(iter(failing.splitlines()), "")
    return NotebookError(
        f"notebook {notebook.path.name!r} failed in {place} ({first[:80]!r}): {_short(reason)}",
        cell=number,
        next_step="open the executed copy (notebook, in the metadata) and run that cell in JupyterLab (make lab)",
    )


def _kernel(environment: Mapping[str, str], sockets: str) -> type:
    """Return a kernel manager for exactly this Python: a kernel installed for the user may be another one."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    # A kernel is interrupted before it is asked to end, and would print that as an error.
    quiet = "--IPKernelApp.log_level=CRITICAL"
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", quiet]
    spec = KernelSpec(argv=argv, env=dict(environment), language="python", display_name="windrow")

    class Kernel(AsyncKernelManager):
        def __init__(self, **traits: Any) -> None:
            super().__init__(**traits)
            # Sockets in a private folder: what runs in the kernel is nobody else's to read, and no port is taken.
            self.transport, self.ip = "ipc", f"{sockets}/k"

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return Kernel


def _short(text: str) -> str:
    return " ".join(text.split())[:400]
