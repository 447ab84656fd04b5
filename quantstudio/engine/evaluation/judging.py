"""From a model and its data to how its outputs are read and what is added up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantstudio.core.events import CancelToken
from quantstudio.core.judgement import Task
from quantstudio.engine.evaluation.inference import infer_reading
from quantstudio.engine.evaluation.language import NextTokenTally
from quantstudio.engine.evaluation.network_facts import network_facts
from quantstudio.engine.evaluation.outputs import Meaning
from quantstudio.engine.evaluation.own_metric import OwnTally, own_metric
from quantstudio.engine.evaluation.probe import DatasetLike, Probe
from quantstudio.engine.evaluation.reading import Kind, Reading
from quantstudio.engine.evaluation.scene import Scene
from quantstudio.engine.evaluation.signals import SignalTally
from quantstudio.engine.evaluation.tallies import (
    BoxTally,
    DecisionTally,
    MaskTally,
    NumberTally,
    PositionTally,
    Tally,
    VectorTally,
)
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import Optimization, open_session

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort


def reading_of(
    model: onnx.ModelProto, session: ort.InferenceSession, dataset: DatasetLike, cancel: CancelToken
) -> Reading:
    """How the outputs of a model are read, from what it says of itself and its first outputs on the data.

    Raises:
        MeasureError: the model does not run on the data, there is nothing to compare, or what the user said
            of the outputs does not fit.
    """
    facts = network_facts(model)
    probe = Probe(session, dataset, facts, cancel)
    reads_text = dataset.next_tokens is not None
    names = tuple(dataset.class_names)
    return infer_reading(Scene(facts, probe, dataset.labels, names, dataset.judging, reads_text))


def graph_reading(graph: Graph, dataset: DatasetLike, cancel: CancelToken) -> Reading:
    """How the outputs of an opened model are read, on the CPU.

    Raises:
        MeasureError: see `reading_of`.
        ModelLoadError: the runtime refuses the model.
        JobCancelled: `cancel` was set.
    """
    # A graph behind steps may not be written anywhere: its path is that of the model as it was opened, whose
    # outputs mean the same.
    path = Path(graph.summary.graph_path)
    session = open_session(path, optimization=Optimization.BASIC, cancel=cancel)
    return reading_of(graph.proto, session, dataset, cancel)


def task_tally(reading: Reading, dataset: DatasetLike) -> Tally | None:
    """What is added up for the task; None where classes or targets tell it all.

    Raises:
        TrustRequiredError: the data names a metric of the user's own, which was not agreed to.
        DataError: that metric cannot be imported.
    """
    samples = len(dataset)
    if dataset.judging.metric:
        name = dataset.judging.metric
        return OwnTally(own_metric(name, trusted=dataset.trusted), name, samples, dataset.labels)
    if reading.foretells and dataset.next_tokens is not None:
        return NextTokenTally(reading, dataset.next_tokens[:samples])
    if reading.kind is Kind.DECISIONS:
        labels = np.asarray(dataset.labels, np.float32) if reading.uses_labels else None
        return DecisionTally(reading, samples, labels)
    if reading.kind is Kind.CLASSES and reading.form is not None:
        return PositionTally(reading, samples) if reading.form.meaning is Meaning.TOKENS else None
    if reading.judgement.task is Task.SIGNAL:
        return SignalTally(reading, samples)
    if reading.kind is Kind.BOXES:
        return BoxTally(reading, samples)
    if reading.kind is Kind.MASKS:
        return MaskTally(reading, samples)
    if reading.kind is Kind.VECTORS:
        return VectorTally(reading, samples)
    return NumberTally(reading, samples) if reading.kind is Kind.NUMBERS else None
