"""A graph made from another one: listed, named by its content and stored like an opened model."""

from __future__ import annotations

from dataclasses import replace

from onnx import ModelProto

from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.mapped import weight_bytes
from quantstudio.engine.graph.names import unique_node_names
from quantstudio.engine.graph.protos import all_graphs
from quantstudio.engine.graph.shapes import infer, write_value_info
from quantstudio.engine.model.cache import load_stored, store_graph, write_summary
from quantstudio.engine.model.layers import list_layers
from quantstudio.engine.model.patterns import remove_dead


def editable_copy(graph: Graph) -> ModelProto:
    """A copy of a graph's model to edit; give it to `derived_graph`."""
    copy = ModelProto()
    copy.CopyFrom(graph.proto)
    return copy


def derived_graph(parent: Graph, model: ModelProto, note: str) -> Graph:
    """The graph an edited model is.

    Nodes without a name get one, nodes and constants nobody needs are dropped, shapes are inferred again. It
    is not compared with its parent: whoever edits knows what must stay the same.

    Args:
        parent: What it was made from.
        model: Edited copy of the parent's model; it is finished in place.
        note: What was done, one sentence for a person.

    Returns:
        The graph; its file and summary lie in the cache. An edit that changes nothing gives the parent.

    Raises:
        OutputError: the cache folder cannot be written.
    """
    remove_dead(model.graph)
    unique_node_names(model.graph)
    write_value_info(model, infer(model))
    if model.SerializeToString(deterministic=True) == parent.proto.SerializeToString(deterministic=True):
        return parent
    path = store_graph(model, sum(weight_bytes(body) for _scope, body in all_graphs(model.graph)))
    if path.stem == parent.digest:
        return parent
    stored = load_stored(path)
    table = list_layers(stored)
    summary = replace(
        parent.summary,
        graph_path=str(path),
        digest=path.stem,
        layers=table.layers,
        edges=table.edges,
        parameters=table.parameters,
        weight_bytes=table.weight_bytes,
        notes=(*parent.summary.notes, note),
    )
    write_summary(summary)
    return Graph(stored, summary)
