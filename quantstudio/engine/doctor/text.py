"""What a language model does on a text: its windows, and how well it foretells them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantstudio.core.data_spec import DataSpec, Transform
from quantstudio.core.diagnosis import DataFigure, Diagnosis, Ground, InputFacts, ShownSample, Trial
from quantstudio.core.events import CancelToken
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.data.text import text_network
from quantstudio.engine.data.transform import shape_text
from quantstudio.engine.doctor.store import key_of, recall, remember
from quantstudio.engine.evaluation.judging import reading_of
from quantstudio.engine.evaluation.language import NextTokenTally
from quantstudio.engine.evaluation.reading import Reading
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import fitted_feed, open_session, run

if TYPE_CHECKING:
    import onnxruntime as ort

# Tokens looked at: enough for an interval of a few percent, few enough for an answer while a dialog waits.
_TOKENS = 2048
_SHOWN = 4
_SHOWN_LETTERS = 200


def examine_text(graph: Graph, spec: DataSpec, *, is_asked: bool, cancel: CancelToken) -> Diagnosis:
    """The windows of a text, and the perplexity of the network on the first of them.

    Args:
        graph: The network.
        spec: The text.
        is_asked: Whether the transform of `spec` is asked about; else the usual windows are proposed.
        cancel: Ends it at the next run of the network.

    Raises:
        DataError: it cannot be read, there is no tokenizer, or they do not fit the network.
        MeasureError: the network does not run on it.
        JobCancelled: `cancel` was set.
    """
    summary = graph.summary

    text = replace(spec, transform=spec.transform if is_asked else Transform())
    dataset = open_dataset(text, summary.inputs, network=text_network(summary))
    key = key_of("text", graph=graph.digest, data=dataset.digest, path=spec.path, asked=is_asked)
    known = recall(Diagnosis, key)
    if known is not None:
        return known
    found = _diagnosis(graph, spec, dataset, is_asked=is_asked, cancel=cancel)
    remember(key, found)
    return found


def _diagnosis(
    graph: Graph, spec: DataSpec, dataset: Dataset, *, is_asked: bool, cancel: CancelToken
) -> Diagnosis:
    session = open_session(Path(graph.summary.graph_path), cancel=cancel)
    reading = reading_of(graph.proto, session, dataset, cancel)
    length = dataset.next_tokens.shape[1] if dataset.next_tokens is not None else 0
    trial = Trial(Transform(context=length), f"windows of {length} tokens")
    figure = None
    if reading.foretells:
        figure = _figure(spec, dataset, _tally(session, reading, dataset, cancel))
    return Diagnosis(
        path=spec.path,
        samples=len(dataset),
        ground=Ground.NOTHING_TO_CHOOSE,
        reason=f"Text is read in windows of {length} tokens that follow each other",
        proposed=trial,
        asked=Trial(spec.transform, "as typed") if is_asked else None,
        figure=figure,
        inputs=_inputs(dataset),
        shown=tuple(
            ShownSample(index, text=_line(dataset.text(index))) for index in range(min(_SHOWN, len(dataset)))
        ),
        digest=dataset.digest,
        judgement=reading.judgement,
    )


def _tally(
    session: ort.InferenceSession, reading: Reading, dataset: Dataset, cancel: CancelToken
) -> NextTokenTally:
    """Likelihoods of the first windows."""
    assert dataset.next_tokens is not None
    count = min(len(dataset), max(1, _TOKENS // dataset.next_tokens.shape[1]))
    tally = NextTokenTally(reading, dataset.next_tokens[:count])
    for batch in dataset.batches(1, stop=count):
        (found,) = run(session, fitted_feed(session, batch.feed), [reading.output], cancel=cancel)
        rows = {reading.output: reading.axes[reading.output].rows(found, batch.held, batch.count)}
        tally.add(batch.start, rows, rows)
    return tally


def _figure(spec: DataSpec, dataset: Dataset, tally: NextTokenTally) -> DataFigure:
    figures = tally.figures()
    found = figures.perplexity
    return DataFigure(
        "Perplexity",
        found.value,
        found.low,
        found.high,
        is_share=False,
        samples=figures.tokens // figures.context,
        total=len(dataset),
        source=spec.path,
        is_calibration=True,
    )


def _inputs(dataset: Dataset) -> tuple[InputFacts, ...]:
    """What the input of the tokens gets, of the first window."""
    name, (dtype, shape) = next(iter(dataset.stored.items()))
    tokens = dataset.raw(0)
    text = f"{dtype} {shape_text(shape)}"
    low, high = float(tokens.min()), float(tokens.max())
    return (InputFacts(name, text, text, low, high, low, high, float(tokens.mean()), float(tokens.std())),)


def _line(text: str) -> str:
    return " ".join(text.split())[:_SHOWN_LETTERS]
