"""What an engine would answer, written down: for tests of the shell, without a worker."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.costs import CostTable, LayerCost
from quantstudio.core.data_spec import Transform, parse_transform
from quantstudio.core.diagnosis import (
    ClassCount,
    DataFigure,
    Diagnosis,
    Ground,
    InputFacts,
    ShownSample,
    Trial,
)
from quantstudio.core.events import Event, JobEnded, JobState, PartFound, Progress
from quantstudio.core.judgement import Judgement, Task
from quantstudio.core.levels import ChannelLevels
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.results import (
    AccuracyCurve,
    AppliedStep,
    BuildResult,
    BuiltLayer,
    CompareResult,
    SensitivityResult,
)
from quantstudio.core.statistics_file import save_statistics, save_weight_statistics, statistics_digest
from quantstudio.core.steps import Need, SettingInfo, SettingType, StepGroup, StepInfo, StepList
from quantstudio.jobs.backends.backend import EventCallback
from quantstudio.jobs.spec import JobSpec, Lane
from tests.workspace.samples import activations, model_summary, sensitivity, variant_result, weight_statistics

OUTLINE = bytes([0x3A, 0])  # what opening looks at in an ONNX file before the worker does: a graph

LAYERS = 12
Answer = Callable[[dict[str, Any]], list[Event]]


class ReplayRunner:
    """Answers each job by its task's name with canned events; `hold` keeps jobs waiting until `release`."""

    def __init__(self) -> None:
        self.submitted: list[JobSpec] = []
        self.cancelled: list[str] = []
        self.pauses: list[tuple[str, str]] = []
        self.is_holding = False
        self.prepared: list[Lane] = []
        self.answers: dict[str, Answer] = dict(ANSWERS)
        self._held: deque[JobSpec] = deque()
        self._on_event: EventCallback | None = None

    def attach(self, on_event: EventCallback) -> ReplayRunner:
        self._on_event = on_event
        return self

    @property
    def tasks(self) -> list[str]:
        return [spec.task.partition(":")[2] for spec in self.submitted]

    def submit(self, spec: JobSpec) -> None:
        self.submitted.append(spec)
        self._held.append(spec)
        if not self.is_holding:
            self.release()

    def release(self) -> None:
        while self._held:
            spec = self._held.popleft()
            for event in self.answers[spec.task.partition(":")[2]](dict(spec.params)):
                self.emit(spec.id, event)

    def emit(self, job_id: str, event: Event) -> None:
        assert self._on_event is not None
        self._on_event(job_id, event)

    def prepare(self, lane: Lane) -> None:
        self.prepared.append(lane)

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)
        for spec in [s for s in self._held if s.id == job_id]:
            self._held.remove(spec)
            self.emit(spec.id, JobEnded(JobState.CANCELLED))

    def pause(self, job_id: str) -> None:
        self.pauses.append(("pause", job_id))

    def resume(self, job_id: str) -> None:
        self.pauses.append(("resume", job_id))

    def finish(self, job_id: str) -> None:
        self.pauses.append(("finish", job_id))

    def allow_timing(self, job_id: str) -> None:
        self.pauses.append(("allow timing", job_id))

    def close(self) -> None:
        self._held.clear()


def succeeded(result: Any) -> JobEnded:
    return JobEnded(JobState.SUCCEEDED, result=to_json(result))


def _open(params: dict[str, Any]) -> list[Event]:
    path = params["state"] or params["path"]
    model = to_json(model_summary(LAYERS))
    model |= {"source_path": path, "digest": f"digest of {Path(path).name}"}
    return [Progress(1, 2, "steps", "reading"), succeeded(model)]


def _data(params: dict[str, Any]) -> list[Event]:
    return [
        succeeded(
            {
                "samples": 1797,
                "labelled": True,
                "classes": 10,
                "class_names": [],
                "segments": [],
                "digest": "d",
                "shapes": {"x": [3, 32, 32]},
            }
        )
    ]


def diagnosis(path: str = "data.npz", transform: str = "scale=1/255", **more: Any) -> Diagnosis:
    """What a doctor would say of data that needs only to be scaled."""
    proposed = Trial(parse_transform(transform), "0 to 1", 0.92, 512)
    other = Trial(parse_transform("scale=1/255 mean=0.5 std=0.5"), "-1 to 1", 0.61, 512)
    said: dict[str, Any] = {
        "samples": 1797,
        "ground": Ground.LABELS,
        "reason": "Best of 2 tried on labelled samples: 92.0 %; next is -1 to 1 with 61.0 %",
        "proposed": proposed,
        "trials": (proposed, other),
        "figure": DataFigure("Top-1 accuracy", 0.92, 0.89, 0.94, True, 512, 1797, path, True),
        "inputs": (InputFacts("x", "uint8 [3, 32, 32]", "float32 [3, 32, 32]", 0, 255, 0, 1, 0.4, 0.3),),
        "classes": tuple(ClassCount(k, f"class {k}", 180 - k) for k in range(10)),
        "labelled": True,
        "shown": (ShownSample(0, "", "0.1 0.2 0.3", "class 1", "class 2", False),),
    }
    return Diagnosis(path, **(said | more))


def _judge(params: dict[str, Any]) -> list[Any]:
    chosen = params["data"]["judging"]["task"]
    task = Task(chosen) if chosen else Task.CLASSIFY
    return [succeeded(Judgement(task, "labels are classes", ("logits",), (0,), chosen is not None))]


def _examine(params: dict[str, Any]) -> list[Event]:
    asked = params["data"]["transform"] if params["is_asked"] else None
    found = diagnosis(params["data"]["path"])
    if asked is not None:
        transform = from_json(Transform, asked)
        found = replace(found, asked=Trial(transform, "as typed", 0.92, 512))
    first = replace(found, is_final=False, figure=None, inputs=())
    return [PartFound(first), succeeded(found)]


def _statistics_folder() -> Path:
    from quantstudio.core.folders import cache_folder

    folder = cache_folder() / "statistics"
    folder.mkdir(exist_ok=True)
    return folder


def _weights(params: dict[str, Any]) -> list[Event]:
    model = model_summary(LAYERS)
    rows = [weight_statistics(layer, i) for i, layer in enumerate(model.layers)]
    path = _statistics_folder() / "weights.npz"
    save_weight_statistics(path, rows)
    return [succeeded({"path": str(path), "layers": len(rows)})]


def _calibrate(params: dict[str, Any]) -> list[Event]:
    statistics = activations(model_summary(LAYERS))
    path = _statistics_folder() / "activations.npz"
    save_statistics(path, statistics)
    return [
        Progress(4, 8, "batches", "calibrating", 2.0),
        succeeded(
            {
                "path": str(path),
                "digest": statistics_digest(statistics),
                "samples": 512,
                "tensors": len(statistics.tensors),
                "seconds": 0.1,
            }
        ),
    ]


def _sensitivity(params: dict[str, Any]) -> list[Event]:
    names = params.get("layers")
    rows = [
        sensitivity(layer, i)
        for i, layer in enumerate(model_summary(LAYERS).layers)
        if not names or layer.name in names
    ]
    curve = AccuracyCurve((0.0, 0.1), (0.92, 0.88), (0.91, 0.86), (0.93, 0.9), labelled=True)
    found = SensitivityResult(params["method"], 512, 0.2, "int4", tuple(rows), None if names else curve)
    return [*(PartFound(row) for row in rows), succeeded(found)]


def _costs(params: dict[str, Any]) -> list[Event]:
    names = ("fp32", "fp16", "static-int8", "dynamic-int8", "weight-int8", "weight-int4", "static-int4")
    bytes_of = dict(zip(names, (4000, 2000, 1000, 1000, 1000, 600, 1000), strict=True))
    layers = {
        layer.name: LayerCost(bytes_of, 1 / LAYERS, dict.fromkeys(names, 0.5))
        for layer in model_summary(LAYERS).layers
    }
    return [succeeded(CostTable(layers, structure_bytes=500, fp32_ms=2.0, provider="cpu"))]


def _quantize(params: dict[str, Any]) -> list[Event]:
    recipe = from_json(Recipe, params["recipe"])
    if "preset" in params:
        recipe = replace(recipe, rules=uniform_recipe("dynamic-int8").rules)
    output = Path(params["output"])
    output.write_bytes(b"onnx")
    layers = tuple(
        BuiltLayer(layer.name, "int8", "int8", "QLinearConv", is_integer_kernel=True, weight_bytes=1000)
        for layer in model_summary(LAYERS).layers
    )
    build = BuildResult(
        str(output),
        hashlib.sha256(output.read_bytes()).hexdigest(),
        f"variant {recipe.digest[:8]} {params['statistics']}",
        recipe.digest,
        4,
        0.1,
        layers,
        steps=tuple(
            AppliedStep(step.name, step.name, dict(step.settings), f"Did {step.name}.", 0.1, "g")
            for step in recipe.steps
            if step.is_on
        ),
    )
    return [succeeded({"build": to_json(build), "recipe": to_json(recipe)})]


def _compare(params: dict[str, Any]) -> list[Event]:
    paths = [params["base"], *params["variants"]]
    results = tuple(
        variant_result(name, path, 0.924 - 0.002 * i, 4000 - 1000 * i, 10.0 / (i + 1), is_base=i == 0)
        for i, (path, name) in enumerate(zip(paths, params["names"], strict=True))
    )
    return [succeeded(CompareResult(results, 600, 1.0, labelled=True))]


def _devices(params: dict[str, Any]) -> list[Event]:
    return [succeeded({"providers": ["CPUExecutionProvider"], "torch_devices": ["cpu"]})]


STEPS = StepList(
    (
        StepInfo(
            "equalize",
            "Equalize layers",
            "Moves a factor per channel from one layer into the next.",
            "Nagel et al. 2019, eq. 11",
            settings=(
                SettingInfo(
                    "rounds", "Rounds", SettingType.INT, 100, 1, 1000, "rounds", (), "Ends earlier by itself."
                ),
                SettingInfo("tolerance", "Tolerance", SettingType.FLOAT, 0.001, 1e-6, 1.0),
                SettingInfo("exact_limits", "Exact limits", SettingType.BOOL, default=False),
            ),
            keeps_outputs=True,
        ),
        StepInfo(
            "bias",
            "Correct biases",
            "Takes the shift out of every layer.",
            "Nagel et al. 2019, section 4.2",
            (Need.DATA, Need.STATISTICS, Need.PLAN),
            settings=(
                SettingInfo("samples", "Samples", SettingType.INT, 512, 1, None, "samples"),
                SettingInfo(
                    "inputs", "Inputs", SettingType.CHOICE, "quantized", choices=("quantized", "float")
                ),
            ),
            group=StepGroup.CORRECT,
        ),
    )
)


def _steps(params: dict[str, Any]) -> list[Event]:
    return [succeeded(STEPS)]


def _levels(params: dict[str, Any]) -> list[Event]:
    levels = ChannelLevels(
        params["layer"],
        int(params["channel"]),
        8,
        counts=(1, 2, 1),
        low=-1.0,
        high=1.0,
        levels=(-0.5, 0.0, 0.5),
        codes=(-1, 0, 1),
        taken=(1, 2, 1),
        sqnr_db=9.5,
    )
    return [succeeded(levels)]


ANSWERS: dict[str, Answer] = {
    "steps": _steps,
    "devices": _devices,
    "open_model": _open,
    "data_summary": _data,
    "examine_data": _examine,
    "judge_outputs": _judge,
    "weight_statistics": _weights,
    "calibrate": _calibrate,
    "sensitivity": _sensitivity,
    "costs": _costs,
    "quantize": _quantize,
    "compare": _compare,
    "channel_levels": _levels,
}
