"""An ONNX graph made elsewhere, brought into the form of ours: float32 or text inputs, probabilities last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from windrow.errors import ModelError, listed
from windrow.models.runtime import MATRIX_INPUT, Layout


class Portable(msgspec.Struct, frozen=True, kw_only=True):
    """A graph that `windrow.models.runtime.OnnxModel` can run.

    Attributes
    ----------
    inputs
        Name -> kind where there is one input for each column; empty for one matrix.
    width
        Number of columns, None where the graph leaves it open.
    outputs
        Columns of the last output: 1 for a value or one probability, None where the graph leaves it open.
    """

    payload: bytes
    layout: Layout
    inputs: dict[str, Literal["number", "text"]]
    width: int | None
    outputs: int | None


def read_portable(payload: bytes, *, where: str) -> Portable:
    """Check a graph and bring it into our form.

    Raises
    ------
    ModelError
        If it is no ONNX model, keeps weights outside of itself, takes other tensors than numbers and text, or
        answers with classes only.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_from_string(payload)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(
            f"{where} is not an ONNX model ({type(error).__name__})", next_step="export it again"
        ) from error
    graph = model.graph
    if any(tensor.external_data for tensor in _tensors(graph)):
        raise ModelError(f"{where} keeps weights in other files", next_step="save it as one file, with its weights")
    if not graph.input or not graph.output:
        raise ModelError(f"{where} has no input or no output", next_step="export it again")
    _check_rows(graph, where)
    _without_maps(graph)
    outputs = _outputs(graph, where)
    matrix = len(graph.input) == 1 and _columns(graph.input[0]) != 1
    width = _columns(graph.input[0]) if matrix else len(graph.input)
    kinds = {i.name: _kind(i, where) for i in graph.input}
    for each in list(graph.input):
        _as_float(graph, each, MATRIX_INPUT if matrix else each.name)
    return Portable(
        payload=model.SerializeToString(), layout="matrix" if matrix else "columns",
        inputs={} if matrix else kinds, width=width, outputs=outputs,
    )  # fmt: skip


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield every constant of a graph: its weights, those of its nodes, and of the graphs inside of it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
            yield from _tensors(inner)


def _check_rows(graph: Any, where: str) -> None:
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and dims[0].dim_value:
            raise ModelError(
                f"{where}: input {value.name!r} takes exactly {dims[0].dim_value} row(s) at a time",
                next_step="export it with a free first dimension",
            )


def _without_maps(graph: Any) -> None:
    """Answer with the tensor of probabilities where the graph makes dictionaries of it."""
    from onnx import TensorProto, helper

    answered = {o.name for o in graph.output}
    for node in [n for n in graph.node if n.op_type == "ZipMap" and n.output[0] in answered]:
        place = next(i for i, o in enumerate(graph.output) if o.name == node.output[0])
        graph.output.pop(place)
        graph.output.insert(
            place, helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, _map_keys(node)])
        )
        graph.node.remove(node)


def _map_keys(node: Any) -> int | None:
    for attribute in node.attribute:
        if attribute.name.startswith("classlabels"):
            return len(attribute.ints) or len(attribute.strings) or None
    return None


def _outputs(graph: Any, where: str) -> int | None:
    from onnx import TensorProto

    last = graph.output[-1].type.tensor_type
    if last.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        raise ModelError(
            f"{where} answers with classes and no probabilities (outputs {listed(o.name for o in graph.output)})",
            next_step="export it with its probabilities as the last output",
        )
    dims = last.shape.dim
    return 1 if len(dims) == 1 else _columns(graph.output[-1])


def _columns(value: Any) -> int | None:
    dims = value.type.tensor_type.shape.dim
    return (dims[1].dim_value or None) if len(dims) == 2 else None


def _kind(value: Any, where: str) -> Literal["number", "text"]:
    from onnx import TensorProto

    taken = value.type.tensor_type.elem_type
    if taken == TensorProto.STRING:
        return "text"
    if taken in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32):
        return "number"
    raise ModelError(
        f"{where}: input {value.name!r} is neither numbers nor text", next_step="export it with such inputs"
    )


def _as_float(graph: Any, value: Any, name: str) -> None:
    """Let an input of numbers be called `name` and take float32; the graph itself goes on as it was."""
    from onnx import TensorProto, helper

    taken = value.type.tensor_type.elem_type
    if taken == TensorProto.STRING or (taken == TensorProto.FLOAT and value.name == name):
        return
    inner, place = f"windrow_{value.name}", list(graph.input).index(value)
    shape = [d.dim_value or None for d in value.type.tensor_type.shape.dim]
    for node in graph.node:
        node.input[:] = [inner if each == value.name else each for each in node.input]
    graph.input.pop(place)
    graph.input.insert(place, helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph.node.insert(0, helper.make_node("Cast", [name], [inner], to=taken))
