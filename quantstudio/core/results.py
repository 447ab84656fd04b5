"""What came out of calibration, sensitivity, a build, a measurement: plain values with their provenance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from quantstudio.core.intervals import Interval as Interval
from quantstudio.core.judgement import Judgement
from quantstudio.core.language import LanguageFigures
from quantstudio.core.recipe import Recipe
from quantstudio.core.record import Record


class Provenance(StrEnum):
    """How a figure came about; every figure on the screen or in a file wears one."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Headline:
    """The one figure of a task, of a variant against the base on the same samples; higher is better.

    Attributes:
        metric: Its key among the metrics: "top1", "agreement", "f1", "miou", "cosine", ...
        label: For a person: "Top-1 accuracy", "F1 of matched boxes".
        base: Of the base.
        value: Of the variant.
        loss: What the variant loses in `unit`, with its 95 % interval, paired; positive is worse.
        unit: "points" or "%".
        floor: Largest loss that a result may have by default, in `unit`.
        caveat: What it leaves out, in the words of a caption: "raw maps, boxes not decoded"; mostly empty.
    """

    metric: str
    label: str
    base: float
    value: float
    loss: Interval
    unit: str
    floor: float
    caveat: str = ""

    @property
    def is_below_floor(self) -> bool:
        """Whether it loses more than the floor, and more than the samples could do by chance."""
        return self.loss.value > self.floor and self.loss.low > 0


@dataclass(frozen=True, slots=True)
class LayerSensitivity(Record):
    """How much the model suffers when one layer alone is quantized.

    Attributes:
        name: Layer.
        kl: Mean KL divergence (nats) from the FP32 output, at the reference scheme.
        kl_low: Lower end of its 95 % interval.
        kl_high: Upper end.
        sqnr_db: SQNR of the layer's own output, dB (shown, never ranked by).
        accuracy_drop: Points of top-1 lost on the same samples; None where not measured or no labels.
        by_precision: Mean KL by scheme name.
        method: "fisher" (predicted) or "exact" (measured).
        error_by_precision: Standard error of each mean in `by_precision`, nats.
        by_class: Mean KL at the reference precision over the samples of each class, in the order of
            `SensitivityResult.classes`; NaN for a class without samples, empty where not known.
        kl_all_but: Mean KL when every layer but this one is quantized at the reference precision; None where
            not measured. What is missing from the whole network's KL is what keeping this layer FP32 buys.
        accumulated_sqnr_db: SQNR of the layer's own output when every layer up to it is quantized, dB; in
            `sqnr_db` its input is exact. None where not measured.
        measured: Precisions of `by_precision` that were measured, in a row that also holds estimates; empty
            where all are of one `method`.
    """

    name: str
    kl: float
    kl_low: float
    kl_high: float
    sqnr_db: float
    accuracy_drop: float | None = None
    by_precision: dict[str, float] = field(default_factory=dict)
    method: str = "fisher"
    error_by_precision: dict[str, float] = field(default_factory=dict)
    by_class: tuple[float, ...] = ()
    kl_all_but: float | None = None
    accumulated_sqnr_db: float | None = None
    measured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccuracyCurve(Record):
    """Accuracy expected at a given total KL, from logit noise on the FP32 outputs.

    Attributes:
        kl: Ascending mean KL divergences (nats), starting at 0.
        accuracy: Expected top-1 (or agreement with FP32, without labels), same length.
        low: Lower end of the 95 % interval of the accuracy a variant with that KL reaches.
        high: Upper end.
        labelled: Whether accuracy is against labels or agreement with FP32.
        changed: Expected share of answers that are not FP32's, same length; empty in older projects.
        by_class: FP32 accuracy of every class on the same samples, NaN without samples; empty without labels.
        samples: Samples it was made from; 0 in older projects.
    """

    kl: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    labelled: bool
    changed: tuple[float, ...] = ()
    by_class: tuple[float, ...] = ()
    samples: int = 0


@dataclass(frozen=True, slots=True)
class SensitivityResult(Record):
    """Sensitivity of every layer over the same samples.

    Attributes:
        method: "fisher" or "exact"; single layers may differ, see their own.
        samples: Samples used.
        seconds: Time it took.
        reference: Precision of the headline figures.
        layers: In execution order.
        curve: Accuracy against KL; None for outputs that are not one class score per sample.
        provenance: PREDICTED or MEASURED.
        device: torch device of an estimate, execution provider of a measurement.
        classes: Names of the classes of `LayerSensitivity.by_class`; empty where outputs are not scores.
        kl_all: Mean KL with every layer at the reference precision, which `LayerSensitivity.kl_all_but` is
            held against; None where not measured.
        precisions: What the run was asked for and has finished; empty in older projects.
        steps: Steps of the recipe the network had behind it, by name.
        left_out: Steps that look at the precisions, and are not in these figures, by name.
    """

    method: str
    samples: int
    seconds: float
    reference: str
    layers: tuple[LayerSensitivity, ...]
    curve: AccuracyCurve | None = None
    provenance: Provenance = Provenance.PREDICTED
    device: str = "cpu"
    classes: tuple[str, ...] = ()
    kl_all: float | None = None
    precisions: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def _parts(self) -> tuple[LayerSensitivity, ...]:
        return self.layers


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """What became of one layer.

    Attributes:
        name: Layer.
        weights: Precision value of the weights in the file.
        activations: Activation precision value.
        kernel: Kernel of the optimized graph: "QLinearConv", "MatMulNBits", "Conv (float)", ...
        is_integer_kernel: Whether that kernel multiplies integers.
        weight_bytes: Bytes of the layer's parameters with their scales in the file.
        note: Why the layer is not what was asked; empty otherwise.
        is_simulated: Whether no kernel multiplies activations of so few bits: a wider one computes with
            values kept to them, and `kernel` says so.
    """

    name: str
    weights: str
    activations: str
    kernel: str
    is_integer_kernel: bool = False
    weight_bytes: int = 0
    note: str = ""
    is_simulated: bool = False


@dataclass(frozen=True, slots=True)
class AppliedStep:
    """What one step of a recipe did to the graph.

    Attributes:
        name: The step.
        label: Its name for a person.
        settings: All its settings.
        summary: What it did, one line for a person.
        seconds: Time it took when it was run, pauses left out.
        graph_digest: The graph that came of it.
        details: What it did in figures, as JSON values.
        is_stored: Whether it was taken from an earlier run with the same inputs.
    """

    name: str
    label: str
    settings: dict[str, Any]
    summary: str
    seconds: float
    graph_digest: str
    details: dict[str, Any] = field(default_factory=dict)
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class PackedFile:
    """What packing weights of fewer than eight bits saves in a file, and what it costs when that is loaded.

    So does writing float weights as indices into tables. While it runs, memory and time are those of INT8
    weights, and of floats. Figures of loading are of fresh processes that
    load the file and run it once; None where they were not taken.

    Attributes:
        layers: Layers whose weights are packed.
        size_bytes: File size.
        unpacked_bytes: Size of the same file with a byte a weight, or a float.
        load_ms: Time to load.
        unpacked_load_ms: The same of the unpacked file.
        peak_memory_bytes: Most memory of the process.
        unpacked_peak_memory_bytes: The same with the unpacked file.
    """

    layers: int
    size_bytes: int
    unpacked_bytes: int
    load_ms: float | None = None
    unpacked_load_ms: float | None = None
    peak_memory_bytes: int | None = None
    unpacked_peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class BuildResult(Record):
    """A variant that was built, inspected and checked.

    Attributes:
        output: Path of the ONNX file.
        digest: SHA-256 of the file.
        variant: Hash of (graph, statistics, recipe): the variant's name.
        recipe_digest: Digest of the recipe.
        size_bytes: File size.
        seconds: Time for building and checking.
        layers: Every layer.
        unoptimized_difference: Largest difference between the optimized and the unoptimized run, relative to
            the largest output.
        warnings: One sentence each.
        preset: Which candidate `auto` chose and why; empty for other recipes.
        steps: What the steps of the recipe did to the graph before.
        packed: What packing does; None where no weight is packed.
        weights_file: Name of the file of weights beside it, named by its content; empty where all are inside.
    """

    output: str
    digest: str
    variant: str
    recipe_digest: str
    size_bytes: int
    seconds: float
    layers: tuple[BuiltLayer, ...]
    unoptimized_difference: float = 0.0
    warnings: tuple[str, ...] = ()
    preset: str = ""
    steps: tuple[AppliedStep, ...] = ()
    packed: PackedFile | None = None
    weights_file: str = ""

    def _parts(self) -> tuple[BuiltLayer, ...]:
        return self.layers


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """Latency of one model from interleaved runs.

    Attributes:
        p50: Median, milliseconds.
        p90: 90th percentile.
        p99: 99th percentile.
        mean: Mean.
        throughput: Samples per second.
        batch: Batch size.
        threads: Threads of the runtime.
        runs: Timed runs.
        provider: Execution provider it was measured on.
        samples_ms: Every timed run, for the distribution.
        other_load: Share of the machine's processors, 0 to 1, that other programs used meanwhile; None where
            that is not known, as in older projects.
        processor_mhz: Frequency of the processors at the end of it; None where the system does not say.
        scale: What the times as they were taken are multiplied by, see `core.time_scale`.
    """

    p50: float
    p90: float
    p99: float
    mean: float
    throughput: float
    batch: int
    threads: int
    runs: int
    provider: str
    samples_ms: tuple[float, ...] = ()
    other_load: float | None = None
    processor_mhz: float | None = None
    scale: float = 1.0

    @property
    def load_text(self) -> str:
        """What other programs did meanwhile, in words; empty where that is not known."""
        if self.other_load is None:
            return ""
        return f"other programs used {100 * self.other_load:.0f} % of the processors meanwhile"


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """Accuracy of one class or segment in base and variant, with the 95 % interval of the variant's.

    `index` is the number of the class or group; -1 where nobody wrote it down.
    """

    label: str
    support: int
    base: float
    variant: float
    low: float
    high: float
    index: int = -1


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close a variant's outputs are to FP32, no labels needed."""

    top1: float
    kl: float
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far one float output is from the base's.

    Attributes:
        name: Output.
        sqnr_db: Signal to noise, dB; infinite where nothing differs, minus infinity where it holds NaN.
        cosine: Mean over samples of the cosine with the base's; NaN where an output is all zeros.
        is_judged: Whether the task's figure reads it.
    """

    name: str
    sqnr_db: float
    cosine: float
    is_judged: bool = True


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes, each figure from a fresh process that loads and runs it once.

    Attributes:
        size_bytes: File with its external data.
        weight_bytes: All constant tensors.
        peak_memory_bytes: Largest resident memory of the whole process.
        load_ms: Time to open the session, optimization included.
        runtime_memory_bytes: Part of the peak that was there before the model: interpreter and runtime.
    """

    size_bytes: int
    weight_bytes: int
    peak_memory_bytes: int
    load_ms: float
    runtime_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class VariantResult(Record):
    """Everything measured of one model against the base.

    Attributes:
        path: Model file.
        name: Name for the screen.
        size_bytes: File size.
        metrics: top1, top5, ... or rmse, mae, r2 for regression; empty without labels.
        drop: Loss against the base, paired on the same samples: points of top-1, or for regression by how
            many percent the RMSE grew.
        drop_method: How the interval was made: "mcnemar", "bootstrap".
        p_value: Of the paired test; None where there is none.
        per_class: One per class.
        segments: One a value of each extra column, label "column=value".
        agreement: Against the base.
        latency_ms: Latency.
        speedup: Base time / variant time, from paired rounds.
        peak_memory_bytes: Peak memory of a fresh process.
        footprint: The rest of the footprint.
        provider: Execution provider.
        samples: Samples the accuracy was measured on.
        provenance: MEASURED.
        flipped: Samples (by index, the first few hundred) the base gets right and this model wrong; without
            labels, those where the two disagree.
        flipped_to: Class this model chooses for each of them.
        headline: The one figure of the task; None in older projects and where nothing could be judged.
        outputs: Every float output against the base's; empty in older projects.
        language: Of a language model on text; None for everything else.
    """

    path: str
    name: str
    size_bytes: int
    metrics: dict[str, float]
    drop: Interval | None
    drop_method: str
    p_value: float | None
    per_class: tuple[ClassAccuracy, ...]
    segments: tuple[ClassAccuracy, ...]
    agreement: Agreement | None
    latency_ms: LatencyResult | None
    speedup: Interval | None
    peak_memory_bytes: int
    footprint: Footprint | None
    provider: str
    samples: int
    provenance: Provenance = Provenance.MEASURED
    flipped: tuple[int, ...] = ()
    flipped_to: tuple[int, ...] = ()
    headline: Headline | None = None
    outputs: tuple[OutputError, ...] = ()
    language: LanguageFigures | None = None

    def with_size(self, size_bytes: int) -> VariantResult:
        """The same of a file of another size: what ran may be another form of the file a person has."""
        if self.size_bytes == size_bytes:
            return self
        footprint = self.footprint and replace(self.footprint, size_bytes=size_bytes)
        return replace(self, size_bytes=size_bytes, footprint=footprint)


@dataclass(frozen=True, slots=True)
class CompareResult(Record):
    """The base first, then every variant.

    Attributes:
        variants: All models.
        samples: Samples they were compared on.
        seconds: Time it took.
        labelled: Whether the samples had labels.
        task: "classification" or "regression", as before there were tasks.
        judgement: How outputs were read; None in older projects.
    """

    variants: tuple[VariantResult, ...]
    samples: int
    seconds: float
    labelled: bool
    task: str = "classification"
    judgement: Judgement | None = None

    def _parts(self) -> tuple[VariantResult, ...]:
        return self.variants


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What a data set holds, for the dialog that chooses it.

    Attributes:
        samples: Number of them.
        labelled: Whether it has labels.
        classes: Different classes among the labels; 0 where they are none, or targets of a regression.
        class_names: Their names; empty when unknown.
        segments: Names of its other columns.
        digest: Of its content.
        shapes: What one sample gives each input of the model.
    """

    samples: int
    labelled: bool
    classes: int
    class_names: tuple[str, ...]
    segments: tuple[str, ...]
    digest: str
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """A build with the recipe that made it (a preset chooses its own) and the digest of the data used."""

    build: BuildResult
    recipe: Recipe
    data_digest: str = ""
