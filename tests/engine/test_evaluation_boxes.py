"""Boxes as each of the usual heads writes them: the same two objects, whatever the form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from quantstudio.engine.evaluation.boxes import Boxes, decoded, iou, matched
from quantstudio.engine.evaluation.heads import cell_grid, grid_cells, strides_of
from quantstudio.engine.evaluation.reading import BoxForm, Head

SIZE = (64, 96)
# Two objects: corners, class and score.
CORNERS = np.array([[10, 8, 30, 40], [50, 20, 90, 60]], np.float32)
CLASSES, SCORES = np.array([2, 0]), np.array([0.9, 0.6], np.float32)
CENTRES = np.concatenate(
    [(CORNERS[:, :2] + CORNERS[:, 2:]) / 2, CORNERS[:, 2:] - CORNERS[:, :2]], axis=1
).astype(np.float32)
CELLS = grid_cells(*SIZE, (8, 16, 32))
# Candidates the objects stand at; next to the first one a weaker box of the same object, then of no class.
PLACES = (17, 40)


def logit(share: NDArray[np.float32]) -> NDArray[np.float32]:
    kept = np.clip(share, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(kept / (1 - kept)), dtype=np.float32)


def scores(count: int, share: float = 1.0) -> NDArray[np.float32]:
    table = np.full((count, 3), 0.01, np.float32)
    for place, label, score in zip(PLACES, CLASSES, SCORES, strict=True):
        table[place, label] = score / share
    table[PLACES[0] + 1, CLASSES[0]] = 0.5 / share
    return table


def numbers(count: int, objects: NDArray[np.float32]) -> NDArray[np.float32]:
    table = np.ones((count, 4), np.float32)
    table[list(PLACES)] = objects
    table[PLACES[0] + 1] = objects[0]
    return table


def channels_first() -> tuple[dict[str, NDArray[np.float32]], Head]:
    table = np.concatenate([numbers(CELLS, CENTRES), scores(CELLS)], axis=1).T
    return {"y": table}, Head("y", "y", channels_first=True, classes=3)


def with_objectness() -> tuple[dict[str, NDArray[np.float32]], Head]:
    sure = np.full((CELLS, 1), 0.95, np.float32)
    table = np.concatenate([numbers(CELLS, CENTRES), logit(sure), logit(scores(CELLS, 0.95))], axis=1)
    return {"y": table}, Head("y", "y", objectness=True, classes=3, logits=True)


def in_cells() -> tuple[dict[str, NDArray[np.float32]], Head]:
    strides = np.concatenate([np.full(len(cell_grid(SIZE, s)), s) for s in (8, 16, 32)])
    cells = np.concatenate([cell_grid(SIZE, s) for s in (8, 16, 32)])
    raw = np.zeros((CELLS, 4), np.float32)
    for place, centre in ((PLACES[0], CENTRES[0]), (PLACES[0] + 1, CENTRES[0]), (PLACES[1], CENTRES[1])):
        raw[place, :2] = centre[:2] / strides[place] - cells[place]
        raw[place, 2:] = np.log(centre[2:] / strides[place])
    table = np.concatenate([raw, np.ones((CELLS, 1), np.float32), scores(CELLS)], axis=1)
    return {"y": table}, Head("y", "y", form=BoxForm.CELLS, objectness=True, classes=3, size=SIZE)


def pair_with_background() -> tuple[dict[str, NDArray[np.float32]], Head]:
    # The first class means nothing, and is the surest everywhere else.
    table = np.concatenate([np.full((CELLS, 1), 0.97, np.float32), scores(CELLS)], axis=1)
    outputs = {"boxes": numbers(CELLS, CORNERS), "scores": table}
    return outputs, Head("boxes", "scores", form=BoxForm.CORNERS, background=0)


def pair_with_labels() -> tuple[dict[str, NDArray[np.float32]], Head]:
    best = scores(CELLS)
    outputs = {
        "boxes": numbers(CELLS, CORNERS),
        "scores": best.max(axis=1),
        "labels": best.argmax(axis=1).astype(np.float32),
    }
    return outputs, Head("boxes", "scores", "labels", form=BoxForm.CORNERS)


def final_rows() -> tuple[dict[str, NDArray[np.float32]], Head]:
    rows = np.concatenate([CORNERS, SCORES[:, None], CLASSES[:, None].astype(np.float32)], axis=1)
    nothing = np.array([[0, 0, 5, 5, 0.1, 1], [0, 0, np.nan, 5, 0.9, 1]], np.float32)
    return {"y": np.concatenate([rows, nothing])}, Head("y", "y", form=BoxForm.CORNERS, is_final=True)


@pytest.mark.parametrize(
    ("made", "first_class"),
    [
        (channels_first, 0),
        (with_objectness, 0),
        (in_cells, 0),
        (pair_with_background, 1),
        (pair_with_labels, 0),
        (final_rows, 0),
    ],
)
def test_that_every_head_gives_the_same_objects(made, first_class) -> None:
    outputs, head = made()
    found = decoded(outputs, head)
    assert found.scores == pytest.approx(SCORES, abs=1e-4)
    assert list(found.classes) == list(CLASSES + first_class)
    assert found.corners == pytest.approx(CORNERS, abs=1e-3)


def test_that_a_box_counts_from_its_confidence_on() -> None:
    outputs, head = channels_first()
    assert len(decoded(outputs, head, confidence=0.7)) == 1
    assert len(decoded(outputs, head, confidence=0.95)) == 0


def test_that_boxes_of_other_classes_may_overlap() -> None:
    outputs, head = channels_first()
    outputs["y"][4:, PLACES[0] + 1] = (0.01, 0.5, 0.01)
    assert len(decoded(outputs, head)) == 3


def test_that_grids_are_told_by_their_cells() -> None:
    assert strides_of(*SIZE, CELLS) == (8, 16, 32)
    assert strides_of(*SIZE, CELLS + 1) is None
    # Cells that the picture covers in part count.
    assert grid_cells(65, 96, (32,)) == 9
    assert cell_grid(SIZE, 32).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_that_objects_match_by_class_and_half_their_union_each_once() -> None:
    base = Boxes(CORNERS, SCORES, CLASSES)
    assert matched(base, base) == 2
    assert matched(base, Boxes(CORNERS + 3, SCORES, CLASSES)) == 2
    assert matched(base, Boxes(CORNERS + 30, SCORES, CLASSES)) == 0
    assert matched(base, Boxes(CORNERS, SCORES, CLASSES + 1)) == 0
    twice = Boxes(CORNERS[[0, 0]], SCORES, CLASSES[[0, 0]])
    assert matched(base, twice) == 1
    nothing = Boxes(CORNERS[:0], SCORES[:0], CLASSES[:0])
    assert matched(base, nothing) == matched(nothing, base) == 0


def test_that_union_counts_what_is_common_once() -> None:
    a = np.array([[0, 0, 2, 2]], np.float32)
    b = np.array([[1, 0, 3, 2], [5, 5, 6, 6], [0, 0, 2, 2]], np.float32)
    assert iou(a, b)[0] == pytest.approx([1 / 3, 0, 1])
