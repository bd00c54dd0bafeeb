"""On-demand features: one plain NumPy function, computed over history and in a request."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.contract import OnDemand, canonical_column
from windrow.features.reference import stopped
from windrow.features.source import Column
from windrow.schema import check_dtype

_ALLOWED = {"numpy", *sys.stdlib_module_names}


@dataclass(frozen=True, eq=False)
class OnDemandFeature:
    """A declared function with its inputs; made by `on_demand`."""

    name: str
    function: Callable[..., NDArray[Any]]
    dtype: str
    inputs: dict[str, Column]

    @property
    def source(self) -> str:
        """The text of the module that holds the function: what a release keeps."""
        return inspect.getsource(inspect.getmodule(self.function) or self.function)


def on_demand(
    function: Callable[..., NDArray[Any]], dtype: str = "float32", /, *, name: str | None = None, **inputs: Column
) -> OnDemandFeature:
    """Declare a feature computed from the request (and from stored values) when it is asked for.

    Parameters
    ----------
    function
        Takes one array of shape (n,) per input: float64 (NaN is missing), str objects, or
        datetime64[us] (UTC); returns an array of shape (n,). Its module may import NumPy and the
        standard library only.
    dtype
        Of the result.
    name
        Of the feature (default: the function's).
    **inputs
        Parameter -> a column of the spine or of a group, or the spine's ``event_time``.

    Examples
    --------
    >>> from windrow.features.source import Every
    >>> from windrow.schema import Entity
    >>> hourly = Every("1h", Entity("area", area="string"))
    >>> def hour(at):
    ...     return (at.astype("datetime64[h]").astype(int)) % 24
    >>> on_demand(hour, at=hourly.event_time).inputs
    {'at': every_1h.event_time}
    """
    check_dtype(dtype, where=f"on-demand feature {function.__name__!r}")
    parameters = inspect.signature(function).parameters
    for given in inputs:
        if given not in parameters:
            raise UnknownNameError(
                "parameter", given, list(parameters), where=f"on-demand function {function.__name__!r}"
            )
    missing = [p for p, spec in parameters.items() if p not in inputs and spec.default is spec.empty]
    if missing:
        raise DeclarationError(
            f"on-demand feature {function.__name__!r} is given no {missing[0]!r}",
            next_step=f"add {missing[0]}=<a column>",
        )
    for parameter, column in inputs.items():
        if not isinstance(column, Column):
            raise DeclarationError(
                f"on-demand feature {function.__name__!r}: {parameter}={column!r} is not a column",
                next_step="give a column of the spine or a group, such as payments.lat",
            )
    return OnDemandFeature(name or function.__name__, function, dtype, inputs)


def check_imports(source: str, *, where: str) -> None:
    """Refuse a module that imports more than NumPy and the standard library.

    Examples
    --------
    >>> check_imports("import pandas", where="on_demand.py")
    Traceback (most recent call last):
    windrow.errors.DeclarationError: on_demand.py imports 'pandas'. Next: use NumPy and the standard library only: the file runs inside the online service.
    """
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [("." * node.level) + (node.module or "")]
        for name in names:
            if name.partition(".")[0] not in _ALLOWED:
                raise DeclarationError(
                    f"{where} imports {name!r}",
                    next_step="use NumPy and the standard library only: the file runs inside the online service",
                )


def load_functions(source: str, names: list[str], *, where: str) -> dict[str, Callable[..., Any]]:
    """Run a kept module under a private name and return the functions `names`.

    The text comes from a release whose hash was checked; releases run side by side.
    """
    check_imports(source, where=where)
    space: dict[str, Any] = {"__name__": f"_windrow_on_demand_{abs(hash(where))}"}
    exec(compile(source, where, "exec"), space)  # noqa: S102 - the project's own code, hash-checked by the release
    for name in names:
        if name not in space:
            raise UnknownNameError("function", name, [n for n in space if not n.startswith("_")], where=where)
    return {name: space[name] for name in names}


def compute(spec: OnDemand, function: Callable[..., Any], inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the feature for n rows, in the canonical form (float32 or str objects), shape (n,).

    Raises
    ------
    DeclarationError
        If the function raises, or does not return one value per row.
    """
    try:
        made = np.asarray(function(**inputs))
    except Exception as error:
        # The project's own code may raise anything; it is told where.
        raise stopped(f"on-demand function {spec.function!r} fails", error) from error
    rows = len(next(iter(inputs.values())))
    if made.shape != (rows,):
        raise DeclarationError(
            f"on-demand function {spec.function!r} returned shape {made.shape} for {rows} rows",
            next_step="return one value per row",
        )
    return canonical_column(spec.dtype, made)
