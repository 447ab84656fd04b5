"""Boxes: decoded from a detector's outputs, overlaps removed, matched between two models.

A box counts from a confidence of 0.25 on, as in the detectors' own scripts, in both models alike and with no
margin: a box at 0.251 that falls to 0.249 is one that is no longer found. On pictures where many scores lie
near it, F1 is therefore lower than mean average precision would let expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.engine.evaluation.heads import cell_grid, strides_of, table_rows
from quantstudio.engine.evaluation.reading import BoxForm, Head
from quantstudio.engine.evaluation.sample_axis import Array

# As the usual detectors' own scripts have them.
CONFIDENCE = 0.25
SAME_OBJECT = 0.45
MATCHED = 0.5
MAX_BOXES = 300

Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Objects found in one sample.

    Attributes:
        corners: x1, y1, x2, y2 of each, [B, 4].
        scores: Confidence, best first, [B].
        classes: Class, [B].
    """

    corners: Numbers
    scores: Numbers
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        """Objects."""
        return len(self.scores)


def decoded(outputs: Mapping[str, Array], head: Head, confidence: float = CONFIDENCE) -> Boxes:
    """The boxes of one sample: those above the confidence, one for each object.

    Args:
        outputs: Of one sample, without their sample axis.
        head: How they are read.
        confidence: Smallest score of a box.
    """
    numbers, scores, classes = _candidates(outputs, head)
    # A score that is no number is no object.
    kept = np.flatnonzero((scores >= confidence) & np.isfinite(numbers).all(axis=1))
    kept = kept[np.argsort(-scores[kept], kind="stable")][: 10 * MAX_BOXES]
    corners = _corners(numbers, head)[kept]
    found = Boxes(corners, scores[kept], classes[kept])
    return found if head.is_final else _without_overlaps(found)


def matched(base: Boxes, other: Boxes) -> int:
    """How many boxes of two models are the same object: same class, half of their union in common.

    The surest of the other's boxes chooses first, each the free box of the base it covers best.
    """
    if not len(base) or not len(other):
        return 0
    overlap = iou(other.corners, base.corners)
    overlap[other.classes[:, None] != base.classes[None, :]] = 0
    count = 0
    for row in overlap:
        best = int(row.argmax())
        if row[best] >= MATCHED:
            count += 1
            overlap[:, best] = 0
    return count


def iou(a: Numbers, b: Numbers) -> Numbers:
    """Intersection over union of every pair, [A, B]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(c[:, 2:] - c[:, :2], 0, None), axis=1) for c in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(common / np.maximum(union, np.finfo(np.float32).tiny), dtype=np.float32)


def _candidates(outputs: Mapping[str, Array], head: Head) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
    """Four numbers, score and class of each candidate."""
    if head.is_final:
        rows = np.asarray(outputs[head.boxes], dtype=np.float32).reshape(-1, 6)
        return rows[:, :4], rows[:, 4], np.rint(np.nan_to_num(rows[:, 5])).astype(np.int64)
    if head.scores != head.boxes:
        numbers = np.asarray(outputs[head.boxes], dtype=np.float32).reshape(-1, 4)
        scores = np.asarray(outputs[head.scores], dtype=np.float32)
        if head.labels:
            labels = np.rint(np.nan_to_num(np.asarray(outputs[head.labels], np.float64))).astype(np.int64)
            return numbers, scores.reshape(-1), labels.reshape(-1)
        table = scores.reshape(len(numbers), -1)
    else:
        whole = table_rows(outputs[head.boxes], head.channels_first)
        start = 5 if head.objectness else 4
        numbers, table = whole[:, :4], whole[:, start : start + head.classes]
    if head.logits:
        table = _sigmoid(table)
    if head.background >= 0:
        table = table.copy()
        table[:, head.background] = 0
    classes = np.asarray(table.argmax(axis=1), dtype=np.int64)
    best = table[np.arange(len(table)), classes]
    if head.objectness and head.scores == head.boxes:
        sure = whole[:, 4]
        best = best * (_sigmoid(sure) if head.logits else sure)
    return numbers, best, classes


def _corners(numbers: Numbers, head: Head) -> Numbers:
    if head.form is BoxForm.CORNERS:
        return numbers
    centre, size = numbers[:, :2], numbers[:, 2:]
    strides = strides_of(*head.size, len(numbers)) if head.form is BoxForm.CELLS else None
    if strides is not None:
        cells = np.concatenate([cell_grid(head.size, s) for s in strides])
        steps = np.concatenate([np.full(len(cell_grid(head.size, s)), s, np.float32) for s in strides])[
            :, None
        ]
        centre, size = (centre + cells) * steps, np.exp(np.clip(size, -20, 20)) * steps
    return np.asarray(np.concatenate([centre - size / 2, centre + size / 2], axis=1), dtype=np.float32)


def _without_overlaps(boxes: Boxes) -> Boxes:
    """The surest of boxes of one class that overlap; they come best first."""
    kept: list[int] = []
    # Classes lie apart once each is moved by more than the picture.
    reach = float(np.abs(boxes.corners).max(initial=0)) * 2 + 1
    apart = boxes.corners + (boxes.classes * reach)[:, None].astype(np.float32)
    free = np.ones(len(boxes), dtype=np.bool_)
    for index in range(len(boxes)):
        if not free[index]:
            continue
        kept.append(index)
        if len(kept) == MAX_BOXES:
            break
        free &= iou(apart[index : index + 1], apart)[0] <= SAME_OBJECT
    chosen = np.array(kept, dtype=np.int64)
    return Boxes(boxes.corners[chosen], boxes.scores[chosen], boxes.classes[chosen])


def _sigmoid(values: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), dtype=np.float32)
