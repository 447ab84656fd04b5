"""Levels of a channel: asked for once, known from then on, and again after an undo."""

from __future__ import annotations

from typing import Any

from quantstudio.core.events import Event
from quantstudio.core.levels import ChannelLevels
from quantstudio.workspace.recipe_edits import Edit
from tests.workspace.canned import succeeded
from tests.workspace.conftest import Desk


def answer(params: dict[str, Any]) -> list[Event]:
    channel = int(params["channel"])
    return [
        succeeded(
            ChannelLevels(
                params["layer"], channel, 8, (1, 2, 1), -1.0, 1.0, (-0.5, 0.5), (-127, 127), (2, 2), 9.5
            )
        )
    ]


def test_that_levels_are_asked_for_once_and_are_there_again_after_an_undo(desk: Desk) -> None:
    desk.runner.answers["channel_levels"] = answer
    known = desk.known
    layer = next(one for one in known.layers if one.channel_axis is not None and one.schemes)
    known.edits.set_scheme([layer.name], "weight-codebook2")
    assert known.levels.channels(layer) == layer.weight_shape[layer.channel_axis or 0]
    assert known.levels.of(layer, 3) is None
    desk.settle()
    found = known.levels.of(layer, 3)
    assert found is not None
    assert found.channel == 3
    known.edits.set_scheme([layer.name], "fp32")
    assert known.levels.channels(layer) == 0
    assert known.levels.of(layer, 3) is None
    known.edits.undo()
    assert known.levels.of(layer, 3) == found
    desk.settle()
    asked = [one for one in desk.runner.submitted if one.task.endswith(":channel_levels")]
    assert [one.params["channel"] for one in asked] == [3]


def test_that_work_and_messages_name_a_layer_as_the_table_does(desk: Desk) -> None:
    known = desk.known
    desk.runner.answers["channel_levels"] = answer
    told: list[str] = []
    known.notified.connect(lambda notification: told.append(notification.text))
    layer = next(one for one in known.layers if one.schemes)
    known.edits.apply(Edit("", known.recipe, skipped=((layer.name, "it cannot"),)))
    assert told == [f"{layer.title} unchanged"]
    known.edits.set_scheme([layer.name], "static-int4")
    known.levels.of(layer, 0)
    assert f"Levels of {layer.title}, channel 0" in [row.title for row in known.jobs.rows]
