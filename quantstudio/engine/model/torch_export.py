"""A torch network written as ONNX once, and proven to compute the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from quantstudio.core.errors import ModelLoadError, VerificationError
from quantstudio.engine.graph.runtime import Optimization, first_line, open_session, run
from quantstudio.engine.model.difference import relative_difference
from quantstudio.engine.model.torch_source import TorchSource, input_names, quiet_torch

# Two libraries sum a convolution in another order and use other exponentials: 1e-6 to 1e-5 on real networks.
EXPORT_TOLERANCE = 1e-3

_LEGACY_OPSET = 17


def export_to_onnx(source: TorchSource, target: Path, where: str) -> tuple[str, ...]:
    """Write the network as ONNX with a dynamic batch where the network allows one.

    Args:
        source: Network and example inputs.
        target: File to write.
        where: Name of the source for messages.

    Returns:
        Notes for the user.

    Raises:
        ModelLoadError: torch cannot export it.
        VerificationError: the exported graph computes something else.
    """
    import torch

    is_script = isinstance(source.network, torch.jit.ScriptModule)
    try:
        with quiet_torch():
            if is_script:
                _export_script(source, target)
            else:
                _name_axes(_export_program(source), target)
    except Exception as error:  # the exporter wraps user code and raises anything
        raise ModelLoadError(
            f"torch cannot export it to ONNX ({type(error).__name__}: {first_line(error)})",
            where=where,
            hint="Export it yourself with torch.onnx.export and open the .onnx file",
        ) from error
    kind = "TorchScript" if is_script else "torch"
    notes = (*source.notes, f"Exported from {kind} to ONNX.")
    if not source.args and not source.kwargs:
        return (*notes, "The program carries no example input: the export was not compared with torch.")
    _prove(source, target, where)
    return notes


def _export_program(source: TorchSource) -> ModelProto:
    import torch

    if isinstance(source.network, torch.export.ExportedProgram):
        program = torch.onnx.export(source.network, dynamo=True, verbose=False)
        return _proto(program)
    attempts = [_dynamic_shapes(source), None]
    for position, shapes in enumerate(attempts):
        try:
            program = torch.onnx.export(
                source.network,
                source.args,
                kwargs=dict(source.kwargs) or None,
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
        except Exception:  # a network that fixes its batch can still be exported as it is
            if position == len(attempts) - 1:
                raise
        else:
            return _proto(program)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _proto(program: Any) -> ModelProto:  # noqa: ANN401
    model = program.model_proto
    if not isinstance(model, ModelProto):
        raise TypeError("the exporter returned no model")
    return model


def _dynamic_shapes(source: TorchSource) -> Any:  # noqa: ANN401
    """The dynamic axes of every tensor, by position or by name, as the exporter wants them."""
    import torch

    auto = torch.export.Dim.AUTO

    def spec(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, torch.Tensor) or not value.dim():
            return None
        return {axis: auto for axis in source.dynamic_axes if axis < value.dim()}

    args = tuple(spec(value) for value in source.args)
    if not source.kwargs:
        return args
    names = dict(zip(input_names(source.network), args, strict=False))
    return names | {name: spec(value) for name, value in source.kwargs.items()}


def _export_script(source: TorchSource, target: Path) -> None:
    import torch

    tensors = [value for value in source.args if isinstance(value, torch.Tensor)]
    names = ["input"] if len(tensors) == 1 else [f"input{i}" for i in range(len(tensors))]
    torch.onnx.export(
        source.network,
        source.args,
        target,
        dynamo=False,
        opset_version=_LEGACY_OPSET,
        input_names=names,
        output_names=["output"],
        dynamic_axes={
            name: {axis: "batch" if axis == 0 else f"axis{axis}" for axis in source.dynamic_axes}
            for name, value in zip(names, tensors, strict=True)
            if value.dim()
        },
    )


def _name_axes(model: ModelProto, target: Path) -> None:
    """Call the first axis `batch` and others `axis2` instead of the exporter's s77."""
    names: dict[str, str] = {}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if re.fullmatch(r"s\d+", dim.dim_param):
                wanted = f"axis{axis}" if axis else "batch"
                taken = wanted in names.values()
                names.setdefault(dim.dim_param, f"{wanted}_{dim.dim_param}" if taken else wanted)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    onnx.save(model, target)


def _prove(source: TorchSource, target: Path, where: str) -> None:
    import torch

    network = source.network
    if isinstance(network, torch.export.ExportedProgram):
        network = network.module()
    with torch.no_grad():
        expected = _flat(network(*source.args, **source.kwargs))
    session = open_session(target, optimization=Optimization.NONE)
    inputs = [value.name for value in session.get_inputs()]
    given = _flat((*source.args, *source.kwargs.values()))
    found = run(session, dict(zip(inputs, given, strict=False)))
    for number, (wanted, got) in enumerate(zip(expected, found, strict=False)):
        difference = relative_difference(wanted, got)
        if difference > EXPORT_TOLERANCE:
            raise VerificationError(
                f"output {number} of the exported graph differs from torch by {difference:.1e} of its "
                f"largest value (at most {EXPORT_TOLERANCE:.0e} is accepted)",
                where=where,
                hint="Export it yourself with torch.onnx.export and open the .onnx file",
            )


def _flat(values: Any) -> list[np.ndarray[Any, Any]]:  # noqa: ANN401
    import torch
    from torch.utils._pytree import tree_leaves

    return [value.numpy() for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
