"""What can be known: typed kinds of findings, and the digest of its inputs that names each one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from quantstudio.core.codec import to_json
from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.judgement import INFERRED, Judging
from quantstudio.core.levels import ChannelLevels
from quantstudio.core.recipe import Recipe
from quantstudio.core.record import Record
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult, VariantResult
from quantstudio.core.search_results import SearchResult
from quantstudio.core.session_summary import SessionSummary
from quantstudio.core.steps import Need, Step, StepInfo, StepList
from quantstudio.core.variants import Variant

T = TypeVar("T")

# Stands where a project of the first format never knew what was in its data.
PATH_INSTEAD = "path:"


@dataclass(frozen=True, slots=True)
class FindingKind(Generic[T]):
    """One sort of finding.

    Attributes:
        name: In the project file.
        form: Type of the values.
        version: Raised when the same inputs give something else than before; part of every key.
        rows: What the values under one key are told apart by ("layer"); empty where there is one value.
    """

    name: str
    form: type[T]
    version: int = 1
    rows: str = ""

    def key(self, **inputs: Any) -> str:  # noqa: ANN401  JSON values, or frozen ones of core
        """SHA-256 over the canonical JSON of everything a finding of this kind was made from."""
        return digest_of({"kind": self.name, "version": self.version, **inputs})


@dataclass(frozen=True, slots=True)
class StatisticsFile(Record):
    """Statistics that lie in a file of the cache.

    Attributes:
        path: The npz file.
        digest: Of the statistics; empty for those of weights, which the graph determines.
        samples: Samples that were asked for; 0 for weights.
    """

    path: str
    digest: str = ""
    samples: int = 0


# All 2^b levels below 8 bits: 3 of weights, 2 of sensitivity and of what is made of it.
WEIGHTS = FindingKind("weights", StatisticsFile, version=4)  # 4: weights alone in blocks of 128
CALIBRATION = FindingKind("calibration", StatisticsFile, rows="samples asked for")
SENSITIVITY = FindingKind("sensitivity", LayerSensitivity, version=2, rows="layer")
SENSITIVITY_RUN = FindingKind("sensitivity-run", SensitivityResult, version=2)
CURVE = FindingKind("curve", AccuracyCurve, version=2)
# 2: one scale a tensor has a price; 3: packed weights; 4: blocks of 128.
COSTS = FindingKind("costs", CostTable, version=4)
SEARCH = FindingKind("search", SearchResult, version=2, rows="terms")
VARIANT = FindingKind("variant", Variant)
MEASUREMENT = FindingKind("measurement", VariantResult, rows="how it was measured")
# From the digest of a data set to what stands for it in the keys of a project of the first format.
KNOWN_DATA = FindingKind("known-data", str)
# What the engine said of steps, for whoever reads a project without one.
STEPS = FindingKind("steps", StepList)
# Values the weights of one output channel take; every channel has a key of its own.
LEVELS = FindingKind("levels", ChannelLevels)
# What a list of sessions shows; one a project.
SUMMARY = FindingKind("summary", SessionSummary)

KINDS: tuple[FindingKind[Any], ...] = (
    WEIGHTS,
    CALIBRATION,
    SENSITIVITY,
    SENSITIVITY_RUN,
    CURVE,
    COSTS,
    SEARCH,
    VARIANT,
    MEASUREMENT,
    KNOWN_DATA,
    STEPS,
    LEVELS,
    SUMMARY,
)


def digest_of(inputs: Any) -> str:  # noqa: ANN401  JSON values, or frozen ones of core
    """SHA-256 over canonical JSON; equal inputs give equal digests."""
    text = json.dumps(to_json(inputs), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def data_identity(spec: DataSpec, content: str = "") -> str:
    """What a data set is, wherever it lies: its content, how it is read and transformed, how much is used.

    Args:
        spec: The data set.
        content: Digest of the file or folder; where there is none, its path stands for it.
    """
    inputs: dict[str, Any] = {
        "content": content or f"{PATH_INSTEAD}{spec.path}",
        "transform": spec.transform.text,
        "samples": spec.samples,
    }
    if spec.batch_axes:
        inputs["axes"] = sorted(spec.batch_axes)
    return digest_of(inputs)


def weights_key(graph: str) -> str:
    """Of weight statistics, which the graph (its digest) determines."""
    return WEIGHTS.key(graph=graph)


def calibration_key(graph: str, data: str) -> str:
    """Of activation statistics; a row for each number of samples that was asked for."""
    return CALIBRATION.key(graph=graph, data=data)


def graph_key(
    graph: str, steps: Sequence[Step], infos: Sequence[StepInfo], *, data: str, samples: int, seed: int
) -> str:
    """Stands for the graph after some steps in keys: a digest of the graph and of all the steps use.

    Args:
        graph: Digest of the graph before; what comes back where there are no steps.
        steps: Steps that are run, in order.
        infos: What is known of them: each must be there.
        data: Identity of the calibration data.
        samples: Samples that statistics are collected over.
        seed: Of the random numbers.
    """
    known = {info.name: info for info in infos}
    for step in steps:
        info = known[step.name]
        inputs: dict[str, Any] = {
            "graph": graph,
            "step": step.name,
            "settings": {one.name: step.settings.get(one.name, one.default) for one in info.settings},
            "version": info.version,
        }
        if info.uses_data:
            inputs["data"] = data
        if Need.STATISTICS in info.needs:
            inputs["samples"] = samples
        if info.uses_seed:
            inputs["seed"] = seed
        graph = digest_of(inputs)
    return graph


@lru_cache(maxsize=64)  # asked for on every edit; the same inputs give the same key
def sensitivity_key(
    kind: FindingKind[Any], graph: str, data: str, samples: int, judging: Judging = INFERRED
) -> str:
    """Of sensitivity by layer, of the run it came from, and of the curve of accuracy.

    Args:
        kind: Which of them.
        graph: Digest of the graph, or its `graph_key` after steps.
        data: Identity of the calibration data.
        samples: Samples of it; activation ranges are calibrated over the same ones, so they add nothing.
        judging: What the user said of the outputs.
    """
    return _sensitivity_key(kind, graph, data, samples, judging)


@lru_cache(maxsize=64)
def _sensitivity_key(kind: FindingKind[Any], graph: str, data: str, samples: int, judging: Judging) -> str:
    return kind.key(graph=graph, data=data, samples=samples, **_said(judging))


@lru_cache(maxsize=64)  # asked for on every edit; the same inputs give the same key
def costs_key(graph: str, *, has_data: bool = True) -> str:
    """Of bytes and times.

    Args:
        graph: Digest of the graph, or its `graph_key` after steps.
        has_data: Whether there were samples: without, nothing is calibrated and static schemes have no price.
            Which samples there were moves the times less than the noise of timing them.
    """
    return COSTS.key(graph=graph) if has_data else COSTS.key(graph=graph, has_data=False)


def search_key(
    graph: str,
    data: str,
    test: str,
    steps: Sequence[Step] = (),
    kept: Recipe | None = None,
    judging: Judging = INFERRED,
) -> str:
    """Of what searches found; a row for each set of terms.

    Args:
        graph: Digest of the graph.
        data: Identity of the calibration data.
        test: Identity of the test data that judged the plans; empty if none did.
        steps: Steps that all plans have.
        kept: Recipe of which all plans have the target and the range settings; None as older projects, whose
            keys held neither.
        judging: What the user said of the outputs.
    """
    return _search_key(graph, data, test, tuple(steps), kept, judging)


@lru_cache(maxsize=64)  # asked for on every edit; the same inputs give the same key
def _search_key(
    graph: str, data: str, test: str, steps: tuple[Step, ...], kept: Recipe | None, judging: Judging
) -> str:
    inputs: dict[str, Any] = {"steps": [step.text for step in steps]} if steps else {}
    if kept is not None:
        inputs |= {"target": kept.target, "calibration": to_json(kept.calibration)}
    return SEARCH.key(graph=graph, data=data, test=test, **inputs, **_said(judging))


def variant_key(graph: str, recipe: Recipe, plan: EffectivePlan | None, statistics: str) -> str:
    """Of the variant a recipe gives: the same for all recipes that come to the same.

    Args:
        graph: Digest of the graph.
        recipe: The recipe.
        plan: What it comes to; None where it does not fit the model.
        statistics: Digest of the activation statistics; left out where neither a layer nor a step reads them.
    """
    if plan is None:  # nothing can be built of it: its key is nobody else's
        return VARIANT.key(graph=graph, plan=recipe.digest, statistics=statistics)
    reads = plan.is_static or bool(plan.steps)
    return VARIANT.key(graph=graph, plan=plan.digest, statistics=statistics if reads else "")


def measurement_key(variant: str, data: str, judging: Judging = INFERRED) -> str:
    """Of what was measured of a variant (its key, or the graph's digest) on data; a row for each way to."""
    return MEASUREMENT.key(variant=variant, data=data, **_said(judging))


def _said(judging: Judging) -> dict[str, Any]:
    """What the user said of the outputs, as part of a key; nothing where he said nothing, as in old keys."""
    return {} if judging == INFERRED else {"judging": judging}
