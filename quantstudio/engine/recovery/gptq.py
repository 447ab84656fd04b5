"""GPTQ with the targets of GPTAQ: weights chosen together, so that errors cancel at a layer's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from quantstudio.core.codec import to_json
from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.statistics import Statistics
from quantstudio.core.statistics_file import statistics_digest
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_tensor
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import setting, step
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.bias_targets import set_bias
from quantstudio.engine.recovery.gptq_layers import GptqLayer, gptq_layers
from quantstudio.engine.recovery.gptq_run import GptqOptions, GptqRun
from quantstudio.engine.recovery.gptq_store import LayerStore
from quantstudio.engine.recovery.walk import TwoPathWalk
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings

Tensor = torch.Tensor

# To be raised with every change of what is computed.
VERSION = 2
_CHUNK = 32


@dataclass(frozen=True, slots=True)
class GptqSettings:
    """How weights are chosen."""

    samples: int = setting(
        512, "Samples", "Samples of the calibration data that go through the network.", low=2, unit="samples"
    )
    sweeps: int = setting(
        3,
        "Refits",
        """How often scales and tables are fitted to the weights chosen so far and the weights chosen anew; a
        layer that gains nothing more stops earlier.""",
        low=0,
        high=100,
        unit="times",
    )
    asymmetric: bool = setting(
        default=True,
        label="Make up for layers before",
        explanation="""A layer is to give what it gives in the float network although it reads what the
        quantized layers before it made; off, it is to do to these inputs what its float weights would.""",
    )
    bias: bool = setting(
        default=True,
        label="Correct biases",
        explanation="The mean error of every channel goes into the bias of its layer, behind its weights.",
    )


@step(
    name="gptq",
    label="Choose weights together",
    explanation="""Rounds the weights of a layer one column after the other and spreads the error of each over
    those still to come, so that errors cancel over the inputs the layer really gets; scales, and the tables
    of codebooks, are fitted again by least squares in between. Each layer is solved behind the quantized ones
    before it and aims at what the float network gives, so that it makes up for their errors, too. It needs a
    few hundred samples and no labels, and costs about as much as a hundred runs over them. It is what makes 2
    to 4 bits usable.""",
    source="Frantar et al. 2022, GPTQ, arXiv:2210.17323, algorithm 1; "
    "Li et al. 2025, GPTAQ, arXiv:2504.02692",
    needs=(Need.DATA, Need.STATISTICS, Need.PLAN),
    version=VERSION,
    group=StepGroup.ROUND,
)
def choose_weights(
    graph: Graph, context: StepContext, settings: GptqSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights that lie on the grids of the plan already, where errors cancel best."""
    if min(settings.samples, len(context.dataset)) < 2:
        raise CalibrationError(
            "one sample says nothing of what varies", hint=Hint("Choose more data", HintAction.CHOOSE_DATA)
        )
    statistics = context.statistics(graph) if context.plan.is_static else None
    device, count = resolve_device(context.device), min(settings.samples, len(context.dataset))
    fake = FakeQuantized(graph, statistics, context.plan)
    layers = gptq_layers(graph, fake, context.plan)
    if not layers:
        return StepOutcome(graph, "No layer with integer weights to choose: nothing was done.", {"layers": 0})
    options = GptqOptions(settings.asymmetric, settings.sweeps, settings.bias)
    with torch_settings(worker_threads()), torch.no_grad():
        fake = fake.to(device).eval()
        walk = TwoPathWalk(fake, _feeds(context, count, device, cancel), cancel)
        store = LayerStore(_inputs(graph, context, settings, statistics))
        run = GptqRun(walk, fake, layers, count, options, store, reporter, cancel)
        run.go()
    return _outcome(graph, layers, run, count)


def _inputs(
    graph: Graph, context: StepContext, settings: GptqSettings, statistics: Statistics | None
) -> dict[str, Any]:
    """All that decides what comes of the step."""
    return {
        "version": VERSION,
        "graph": graph.digest,
        "data": context.dataset.digest,
        "plan": context.plan.without_steps.digest,
        "statistics": statistics_digest(statistics) if statistics is not None else "",
        "settings": to_json(settings),
    }


def _feeds(
    context: StepContext, samples: int, device: torch.device, cancel: CancelToken
) -> list[Mapping[str, Tensor]]:
    feeds: list[Mapping[str, Tensor]] = []
    for batch in context.dataset.batches(_CHUNK, stop=samples):
        cancel.raise_if_set()
        feeds.append(
            {name: torch.from_numpy(np.array(value)).to(device) for name, value in batch.feed.items()}
        )
    return feeds


def _outcome(graph: Graph, layers: Mapping[str, GptqLayer], run: GptqRun, samples: int) -> StepOutcome:
    model = editable_copy(graph)
    for tensor in model.graph.initializer:
        if tensor.name in run.weights:
            tensor.CopyFrom(as_tensor(tensor.name, run.weights[tensor.name]))
    for name, shift in run.shifts.items():
        bias = layers[name].bias
        if bias is not None:
            set_bias(model, bias, shift)
    before = float(np.mean([gain.before for gain in run.gains.values()]))
    after = float(np.mean([gain.after for gain in run.gains.values() if gain.after is not None]))
    summary = (
        f"Chose the weights of {counted(len(layers), 'layer')}: outputs are off by {percent(after, 1)} of "
        f"their power on average, where weights rounded by themselves left {percent(before, 1)}."
    )
    details = {"layers": len(layers), "samples": samples}
    return StepOutcome(derived_graph(graph, model, summary), summary, details)
