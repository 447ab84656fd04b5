"""Builds a variant: write it, read off the kernels it runs on, compare it with its unoptimized self."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx

from quantstudio.core.effective_plan import EffectivePlan, is_fp32
from quantstudio.core.errors import BuildError, MeasureError, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.figures import counted
from quantstudio.core.files import written_beside
from quantstudio.core.folders import cache_folder
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.packing import packs
from quantstudio.core.precision import Precision
from quantstudio.core.recipe import PACKED_FILES
from quantstudio.core.results import BuildResult, BuiltLayer, PackedFile
from quantstudio.core.schemes import NAMED_SCHEMES, listed_schemes
from quantstudio.core.statistics import Statistics
from quantstudio.core.target import Target, target_named
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.mapped import constants_in_file, holds_mapped
from quantstudio.engine.graph.runtime import Feed, Optimization, open_session, run
from quantstudio.engine.graph.writing import model_size, write_model
from quantstudio.engine.model.difference import relative_difference
from quantstudio.engine.quantization.emit import Emission, emit_with_plan
from quantstudio.engine.quantization.kernels import built_layers, map_kernels
from quantstudio.engine.quantization.packed_check import (
    check_folded,
    check_same_outputs,
    measured,
)
from quantstudio.engine.quantization.probe import probe_feeds
from quantstudio.engine.quantization.quantized_weights import KnownWeights

# Integer kernels round differently from dequantized float arithmetic, by a few steps of a 255-step grid a
# layer; the reference networks differ by 0.003 to 0.012 of the largest output. A wrong fusion is off by about
# the whole output.
LARGEST_DIFFERENCE = 0.1
_STAGES = 4


def build_variant(
    graph: Graph,
    statistics: Statistics | None,
    plan: EffectivePlan,
    output: Path,
    *,
    measures_load: bool = False,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> BuildResult:
    """Write the variant a plan describes and prove what it is.

    A file with packed weights is proven to be unpacked when it is loaded, and to answer bit for bit as its
    unpacked form does. Of a model larger than one file can be, one layer at a time is in memory: what is
    written of it goes into a file at once.

    Args:
        graph: Normalised model, after the steps of the plan.
        statistics: Activation statistics of that graph; only static layers need them.
        plan: What every layer becomes.
        output: Where the ONNX file goes; an existing file is replaced only when all checks pass.
        measures_load: Also measure what packing costs at load, in processes of its own.
        reporter: Told of every stage, and of every layer (kind "built").
        cancel: Looked at before every stage and node; ends a run in progress, too.

    Raises:
        RecipeError: the plan does not fit the model, or changes nothing of it.
        CalibrationError: a static layer has no statistics.
        BuildError: the runtime runs a layer on integers that was asked to be float, or does not unpack
            weights when it loads the file.
        ModelLoadError: the runtime refuses the variant.
        OutputError: the file cannot be written.
        JobCancelled: `cancel` was set.
    """
    started = perf_counter()
    token = cancel or never_cancelled()
    output = Path(output)

    def stage(done: int, label: str) -> None:
        token.raise_if_set()
        reporter.progress(done, _STAGES, "stages", label)

    stage(0, "Writing the variant")
    check_float_weights(graph, plan)
    _check_something_changes(graph, plan)
    is_large = holds_mapped(graph.proto)
    known: KnownWeights | None = None if is_large else {}
    with constants_in_file(cache_folder("graphs"), if_any=is_large), written_beside(output) as temporary:
        emission = emit_with_plan(graph, statistics, plan, token, known)
        written = write_model(emission.model, temporary)
        stage(1, "Reading off the kernels")
        layers = _inspected(graph, emission, target_named(plan.target), temporary, token)
        stage(2, "Comparing with the unoptimized run")
        checked = _compared(graph, statistics, temporary, token)
        packed = None
        may_unpack = plan.emission >= PACKED_FILES and not plan.unpacked and _holds_packed(emission)
        if may_unpack and (not is_large or _unpacks_otherwise(emission)):
            other = emit_with_plan(graph, statistics, replace(plan, unpacked=True), token, known)
            feed = checked.feed if measures_load else None
            packed = _packed(emission, other.model, temporary, checked.feed, feed, token)
        stage(3, "Saving")
    warnings = (*_warnings(graph, plan, emission, layers), *checked.warnings)
    for text in warnings:
        reporter.message(text, Severity.WARNING)
    reporter.progress(_STAGES, _STAGES, "stages", "Built")
    return BuildResult(
        output=str(output),
        digest=written.digest,
        variant=emission.variant,
        recipe_digest=plan.recipe_digest,
        size_bytes=written.size_bytes,
        seconds=perf_counter() - started,
        layers=layers,
        unoptimized_difference=checked.difference,
        warnings=warnings,
        packed=packed,
        weights_file=written.weights.name if written.weights is not None else "",
    )


def _unpacks_otherwise(emission: Emission) -> bool:
    """Whether weights are packed in a form that is not that of the unpacked file, too."""
    schemes = filter(packs, emission.plan.schemes.values())
    return bool(emission.shared) or any(
        not scheme.is_weight_only or scheme.weights.bits < 4 for scheme in schemes
    )


def _packed(
    emission: Emission,
    unpacked: onnx.ModelProto,
    path: Path,
    feed: Feed | None,
    timed: Feed | None,
    cancel: CancelToken,
) -> PackedFile | None:
    """The proof that a file is what its unpacked form is, and what it saves; None where that is nothing."""
    if model_size(unpacked) <= model_size(emission.model):
        return None
    with tempfile.TemporaryDirectory(prefix="quantstudio-") as folder:
        other = Path(folder) / "unpacked.onnx"
        write_model(unpacked, other)
        if feed is not None:
            check_same_outputs(path, other, feed, cancel)
        layers = sum(map(packs, emission.plan.schemes.values())) + len(emission.shared)
        return measured(path, other, timed, layers, cancel)


def _holds_packed(emission: Emission) -> bool:
    """Whether any layer has weights of fewer than eight bits, or floats that are looked up in a table."""
    return bool(emission.shared) or any(map(packs, emission.plan.schemes.values()))


def check_float_weights(graph: Graph, plan: EffectivePlan | None = None) -> None:
    """A file that was quantized before has no float weights to quantize from; a copy is not a result.

    Args:
        graph: Normalised model.
        plan: What is asked; None for whatever can be. A plan that keeps all as it is passes.

    Raises:
        RecipeError: every weight that could be quantized already is.
    """
    stored = [layer for layer in graph.layers if layer.stored_as]
    if not stored or any(layer.quantizable and layer.weight_name for layer in graph.layers):
        return
    if plan is not None and all(is_fp32(scheme) for scheme in plan.asked.values()):
        return
    names = ", ".join(sorted({layer.stored_as for layer in stored}))
    raise RecipeError(
        f"the model is already quantized ({len(stored)} of {len(graph.layers)} layers, {names})",
        where=graph.summary.source_path,
        hint=Hint("Give the float model it was made from", HintAction.OPEN_MODEL),
    )


def _check_something_changes(graph: Graph, plan: EffectivePlan) -> None:
    """A plan that asks for less precision and gets none anywhere is refused: a copy is no result.

    Raises:
        RecipeError: no layer can be what is asked; the message says why and what there is.
    """
    refused = [layer for layer in graph.layers if not is_fp32(plan.asked[layer.name])]
    asked = {plan.asked[layer.name].label for layer in refused}
    if not graph.layers:
        asked = {scheme.label for scheme in plan.rule_schemes if not is_fp32(scheme)}
    if not asked or not plan.is_float:
        return
    reasons = list(dict.fromkeys(layer.reason for layer in refused if layer.reason))[:2]
    target = target_named(plan.target)
    can = [
        name
        for name, scheme in NAMED_SCHEMES.items()
        if not is_fp32(scheme) and any(target.support(layer, scheme).is_legal for layer in refused)
    ]
    raise RecipeError(
        f"no layer of this model can be {', '.join(sorted(asked))}"
        + (f" ({'; '.join(reasons)})" if reasons else ""),
        hint=f"Its layers can be: {listed_schemes(can)}" if can else "It has nothing to quantize",
    )


def _inspected(
    graph: Graph, emission: Emission, target: Target, path: Path, cancel: CancelToken
) -> tuple[BuiltLayer, ...]:
    """Every layer with its kernel, as a runtime with its default optimizers runs the file."""
    with tempfile.TemporaryDirectory(prefix="quantstudio-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        # Default optimizers on purpose: whoever gets the file runs it with them.
        open_session(
            path,
            threads=1,
            optimized_path=optimized,
            keep_float_layers=False,
            is_large=holds_mapped(graph.proto),
            cancel=cancel,
        )
        cancel.raise_if_set()
        written = onnx.load(optimized, load_external_data=False).graph
        kernels = map_kernels(graph.layers, emission, written)
    if _holds_packed(emission):
        check_folded(written, {name for parts in emission.parts.values() for name in parts})
    for layer in graph.layers:
        scheme, kernel = emission.plan.schemes[layer.name], kernels[layer.name]
        if scheme.is_float and kernel.is_integer and not layer.stored_as:
            raise BuildError(
                f"the layer is to stay {scheme.label}, but the runtime runs it as {kernel.label}",
                where=layer.name,
                hint="Keep its neighbours float too, or give it an integer precision",
            )
    return built_layers(graph.layers, emission, kernels, target)


@dataclass(frozen=True, slots=True)
class _Comparison:
    difference: float
    warnings: tuple[str, ...] = ()
    feed: Feed | None = None


def _compared(graph: Graph, statistics: Statistics | None, path: Path, cancel: CancelToken) -> _Comparison:
    """Largest relative difference between the optimized and the unoptimized run of a file."""
    failure, is_large = "no input was found that it accepts", holds_mapped(graph.proto)
    for feed in probe_feeds(graph.proto, statistics):
        try:
            difference = _optimized_difference(path, feed, cancel, is_large=is_large)
        except MeasureError as error:
            failure = error.what
            continue
        if difference <= LARGEST_DIFFERENCE:
            return _Comparison(difference, feed=feed)
        # Some fusions of the runtime are wrong whatever the precision (Pad in front of MaxPool in 1.31).
        blame = ""
        own = Path(graph.summary.graph_path)
        if _optimized_difference(own, feed, cancel, is_large=is_large) > LARGEST_DIFFERENCE:
            blame = " So does that of the FP32 model: the runtime's optimizers are at fault."
        return _Comparison(
            difference,
            (
                f"The optimized run differs from the unoptimized one by {_size_of(difference)} (up to "
                f"{LARGEST_DIFFERENCE:.0%} is usual); measure before you trust this variant.{blame}",
            ),
            feed,
        )
    return _Comparison(0.0, (f"The variant was not compared with its unoptimized run: {failure}.",))


def _optimized_difference(path: Path, feed: Feed, cancel: CancelToken, *, is_large: bool) -> float:
    plain = open_session(path, threads=1, optimization=Optimization.NONE, is_large=is_large, cancel=cancel)
    expected = run(plain, feed, cancel=cancel)
    del plain  # one at a time: each may hold all weights
    found = run(open_session(path, threads=1, cancel=cancel), feed, cancel=cancel)
    return max(
        (
            relative_difference(a, b)
            for a, b in zip(expected, found, strict=True)
            # An output may be a sequence.
            if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype.kind == "f"
        ),
        default=0.0,
    )


def _size_of(difference: float) -> str:
    return f"{difference:.1%} of the largest output" if math.isfinite(difference) else "NaN or infinity"


def _warnings(
    graph: Graph, plan: EffectivePlan, emission: Emission, layers: tuple[BuiltLayer, ...]
) -> tuple[str, ...]:
    warnings = []
    stored = sum(bool(layer.stored_as) for layer in graph.layers)
    if stored:
        warnings.append(
            f"{stored} of {len(layers)} layers were quantized before and stay as they are; "
            "give the float model to quantize all."
        )
    able = {
        layer.name for layer in graph.layers if layer.quantizable and not _is_better_whole(layer.name, plan)
    }
    missed = [layer for layer in layers if layer.note and layer.name in able]
    if missed:
        titles = graph.summary.titles
        names = ", ".join(titles[layer.name] for layer in missed[:3]) + (", ..." if len(missed) > 3 else "")
        stays = all(emission.plan.schemes[layer.name].is_float for layer in missed)
        what = (
            "stay float, as the precision asked has no form for them" if stays else "are not what was asked"
        )
        warnings.append(f"{len(missed)} of {len(layers)} layers {what} ({names}).")
    if emission.unlimited:
        warnings.append(
            f"{counted(len(emission.unlimited), 'layer')} run without the limits per channel that "
            "equalization left them: the integers of a tensor share one range."
        )
    integer = sum(layer.kernel.startswith("QLinearConv") for layer in layers)
    float_convolutions = [layer for layer in layers if layer.kernel.startswith("Conv (")]
    if integer and float_convolutions:
        warnings.append(
            f"{len(float_convolutions)} of {len(float_convolutions) + integer} convolutions run in float "
            "among integer ones; each costs two conversions."
        )
    return tuple(warnings)


def _is_better_whole(name: str, plan: EffectivePlan) -> bool:
    """Whether a layer keeps eight bits because tables would make the file larger: a note, no warning."""
    return plan.asked[name].weights.has_codebook and plan.schemes[name].weights == Precision.INT8
