"""`quantstudio compress groups`: channels that can only be taken away together."""

from __future__ import annotations

from collections.abc import Mapping

from quantstudio.cli.execution import run_task
from quantstudio.cli.options import (
    FactoryOption,
    JsonOption,
    ModelArgument,
    TrustOption,
    check_json,
    split_model,
)
from quantstudio.cli.output import console_for, print_table, write_json
from quantstudio.core.channel_groups import ChannelGroup

# Layers that are named in a cell of the table; of more, the number is told.
_NAMED = 3


def command(
    model: ModelArgument, trust: TrustOption = False, factory: FactoryOption = "", json: JsonOption = ""
) -> None:
    """List which channels can be taken away, what goes with each, and what has to stay and why."""
    from quantstudio.engine.tasks.compression import channel_groups
    from quantstudio.engine.tasks.models import open_model

    check_json(json, inputs=(model,))
    summary = run_task(open_model, trust=trust, **split_model(model, factory))
    found = run_task(channel_groups, graph_path=summary.graph_path)
    if json:
        write_json("compress groups", {"path": summary.source_path, "groups": found.groups}, json)
    if json == "-":
        return
    rows = [_row(group, summary.titles) for group in found.groups]
    free = sum(group.is_prunable for group in found.groups)
    title = f"{len(found.groups)} groups of channels, of which {free} can be pruned"
    columns = ("group", "units", "channels", "made by", "read by", "why it stays")
    print_table(console_for(""), title, columns, rows, right=(1, 2))


def _row(group: ChannelGroup, titles: Mapping[str, str]) -> tuple[str, ...]:
    return (
        titles.get(group.name, group.name),
        str(group.units),
        f"{group.units} x {group.width}" if group.width > 1 else str(group.channels),
        _names(group.makers, titles),
        _names(group.readers, titles),
        group.reason,
    )


def _names(nodes: tuple[str, ...], titles: Mapping[str, str]) -> str:
    # Nodes that are no layers of their own, such as the sum with a bias, belong to one that is named.
    layers = [titles[name] for name in nodes if name in titles] or list(nodes)
    shown = ", ".join(layers[:_NAMED])
    return shown if len(layers) <= _NAMED else f"{shown} and {len(layers) - _NAMED} more"
