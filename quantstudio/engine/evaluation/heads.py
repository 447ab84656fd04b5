"""Finds the boxes among a network's outputs: the heads that exporters of detectors write."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.figures import counted
from quantstudio.engine.evaluation.network_facts import OutputFacts
from quantstudio.engine.evaluation.reading import BoxForm, Head
from quantstudio.engine.evaluation.sample_axis import Array
from quantstudio.engine.evaluation.scene import Scene

# Cells of the grids a one-stage detector looks at, by their sizes in pixels.
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32), (4, 8, 16, 32))
_ANCHORS = 3
# A box and how sure it is come before the scores of classes; fewer sizes of grids are no pyramid.
_BOX_NUMBERS, _FEWEST_MAPS = 5, 2
_SMALLEST_PICTURE = 32
_MOST_FINAL_ROWS = 1000

Found = tuple[Head, str, tuple[str, ...]]


def find_head(scene: Scene, *, is_certain: bool) -> Found | None:
    """How boxes are read, why, and from which outputs.

    Args:
        scene: The network with its first outputs.
        is_certain: Whether the user says that this is a detector: then weaker signs are enough.
    """
    return _pair(scene) or _final(scene, is_certain) or _grid(scene, is_certain)


def raw_map_channels(scene: Scene) -> int | None:
    """Numbers a cell of maps over grids of a picture, [A * (5 + C), H, W] or [H, W, A, 5 + C].

    None where the outputs are no such maps: there are two or more, each with half the cells a side of the
    one before, alike in all else.
    """
    found: list[tuple[tuple[int, int], int, int]] = []
    for output in scene.floats:
        shape = scene.shape(output)
        if len(shape) == 4 and shape[2] == _ANCHORS and shape[3] > _BOX_NUMBERS:
            found.append(((shape[0], shape[1]), shape[2] * shape[3], 4))
        elif len(shape) == 4 and shape[0] == _ANCHORS and shape[3] > _BOX_NUMBERS:
            found.append(((shape[1], shape[2]), shape[0] * shape[3], 4))
        elif len(shape) == 3 and shape[0] % _ANCHORS == 0 and shape[0] // _ANCHORS > _BOX_NUMBERS:
            found.append(((shape[1], shape[2]), shape[0], 3))
        else:
            return None
    sizes = sorted((size for size, _, _ in found), reverse=True)
    alike = len({(channels, rank) for _, channels, rank in found}) == 1
    halved = all(a[i] == 2 * b[i] for a, b in pairwise(sizes) for i in (0, 1))
    over = any(
        height % size[0] == 0 and width % size[1] == 0 and height // size[0] == width // size[1] >= 4
        for height, width, _ in scene.pictures()
        for size in sizes[:1]
    )
    return found[0][1] if len(found) >= _FEWEST_MAPS and alike and halved and over else None


def grid_cells(height: int, width: int, strides: tuple[int, ...]) -> int:
    """Cells of all grids over a picture, partly covered ones counted."""
    return sum(-(-height // s) * -(-width // s) for s in strides)


def strides_of(height: int, width: int, cells: int) -> tuple[int, ...] | None:
    """Sizes of the cells of grids that have so many together; None where none fits."""
    return next((s for s in _STRIDES if grid_cells(height, width, s) == cells), None)


def _grid(scene: Scene, is_certain: bool) -> Found | None:
    """[channels, candidates] or [candidates, channels] with a candidate for each cell of three grids."""
    for output, channels_first, channels, candidates in _tables(scene):
        for size, has_anchors in _gridded(scene, candidates):
            objectness = has_anchors or not channels_first
            head = _grid_head(scene, output, channels_first, channels, objectness, size)
            if head is not None:
                why = (
                    f"output {output.name!r} holds {channels} numbers for each of {candidates} cells of the "
                    f"grids over a {size[0]}x{size[1]} picture: a box and {counted(head.classes, 'score')}"
                )
                return head, why, (output.name,)
    for output, channels_first, channels, _ in _tables(scene) if is_certain else ():
        head = _grid_head(scene, output, channels_first, channels, not channels_first, (0, 0))
        if head is not None:
            why = f"output {output.name!r} is read as boxes with {counted(head.classes, 'score')}"
            return head, why, (output.name,)
    return None


def _gridded(scene: Scene, candidates: int) -> Iterator[tuple[tuple[int, int], bool]]:
    """Sizes of pictures whose grids have so many cells, and whether each cell has several boxes."""
    for height, width, _ in scene.pictures():
        if min(height, width) < _SMALLEST_PICTURE:
            continue
        if strides_of(height, width, candidates) is not None:
            yield (height, width), False
        elif candidates % _ANCHORS == 0 and strides_of(height, width, candidates // _ANCHORS) is not None:
            yield (height, width), True


def _tables(scene: Scene) -> Iterator[tuple[OutputFacts, bool, int, int]]:
    """Float outputs that are a table a sample: whether channels come first, channels, candidates."""
    for output in scene.floats:
        shape = scene.shape(output)
        if len(shape) == 3 and shape[0] == 1:
            shape = shape[1:]
        if output.last not in ("Softmax", "LogSoftmax") and len(shape) == 2 and min(shape) >= 5:
            first = shape[0] < shape[1]
            yield output, first, min(shape), max(shape)


def _grid_head(
    scene: Scene,
    output: OutputFacts,
    channels_first: bool,
    channels: int,
    objectness: bool,
    size: tuple[int, int],
) -> Head | None:
    table = table_rows(scene.rows[output.name][0], channels_first)
    start = 5 if objectness else 4
    scores = table[:, start:]
    # Coefficients of masks and points of a pose come behind the classes, and are not between 0 and 1.
    is_share = (scores >= 0).all(axis=0) & (scores <= 1).all(axis=0)
    logits = not is_share.any()
    classes = channels - start if logits or is_share.all() else int(np.argmin(is_share))
    if classes < 1:
        return None
    form = BoxForm.CENTRE
    if size != (0, 0) and not channels_first and not _follows_cells(table, size):
        form = BoxForm.CELLS
    return Head(
        boxes=output.name,
        scores=output.name,
        channels_first=channels_first,
        form=form,
        objectness=objectness,
        classes=classes,
        logits=logits,
        size=size,
    )


def table_rows(sample: Array, channels_first: bool) -> NDArray[np.float32]:
    """One sample of a table as [candidates, channels]."""
    table: NDArray[np.float32] = np.asarray(sample, dtype=np.float32).reshape(sample.shape[-2:])
    return table.T if channels_first else table


def _follows_cells(table: NDArray[np.float32], size: tuple[int, int]) -> bool:
    """Whether centres lie where their cells do: boxes are decoded already."""
    strides = strides_of(*size, len(table))
    if strides is None:  # several boxes a cell, which only ever are exported decoded
        return True
    columns = np.concatenate([cell_grid(size, s)[:, 0] * s for s in strides])
    centres = table[:, 0]
    if not np.std(centres):
        return False
    return bool(np.corrcoef(columns, centres)[0, 1] > 0.8)


def cell_grid(size: tuple[int, int], stride: int) -> NDArray[np.float32]:
    """Column and row of each cell of one grid, [cells, 2]."""
    rows, columns = -(-size[0] // stride), -(-size[1] // stride)
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def _final(scene: Scene, is_certain: bool) -> Found | None:
    """Rows [x, y, x, y, score, class]: overlaps are removed inside the network."""
    removes = bool(scene.facts.operators & {"NonMaxSuppression", "TopK"})
    for output in scene.floats:
        shape = scene.shape(output)
        if len(shape) != 2 or shape[1] != 6 or shape[0] > _MOST_FINAL_ROWS:
            continue
        rows = np.asarray(scene.rows[output.name], dtype=np.float64).reshape(-1, 6)
        is_final = (
            ((rows[:, 4] >= 0) & (rows[:, 4] <= 1)).all()
            and (rows[:, 5] == np.rint(rows[:, 5])).all()
            and ((rows[:, 2] >= rows[:, 0]) & (rows[:, 3] >= rows[:, 1])).mean() > 0.95
        )
        if len(rows) and is_final and (removes or is_certain):
            head = Head(output.name, output.name, form=BoxForm.CORNERS, is_final=True)
            return head, f"rows of output {output.name!r} are a box, a score and a class", (output.name,)
    return None


def _pair(scene: Scene) -> Found | None:
    """Boxes [candidates, 4] in one output, scores in another, classes perhaps in a third."""
    for output in scene.floats:
        shape = scene.shape(output)
        if len(shape) != 2 or shape[1] != 4 or shape[0] < 1:
            continue
        others = [one for one in scene.outputs if one is not output and scene.shape(one)[:1] == shape[:1]]
        scores = [one for one in others if one in scene.floats and len(scene.shape(one)) <= 2]
        labels = [one for one in scores if _are_whole(scene, one)] + [
            one for one in others if one not in scene.floats
        ]
        scores = [one for one in scores if one not in labels]
        if not scores or (len(scene.shape(scores[0])) == 1 and not labels):
            continue
        score = scores[0]
        is_single = len(scene.shape(score)) == 1
        label = labels[0].name if is_single else ""
        background = -1
        logits = not scene.is_inside_one(score)
        if not is_single and not logits and scene.sums_to_one(score, -1):
            background = 0
        boxes = np.asarray(scene.rows[output.name], dtype=np.float64).reshape(-1, 4)
        is_corner = ((boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])).mean() > 0.95
        form = BoxForm.CORNERS if is_corner else BoxForm.CENTRE
        head = Head(output.name, score.name, label, form=form, logits=logits, background=background)
        why = f"output {output.name!r} holds four numbers, output {score.name!r} scores for each candidate"
        names = (output.name, score.name, *([label] if label else []))
        return head, why, names
    return None


def _are_whole(scene: Scene, output: OutputFacts) -> bool:
    """Whether an output of floats holds whole numbers: class numbers, as some exporters write them."""
    values = np.asarray(scene.rows[output.name], dtype=np.float64)
    return values.ndim == 2 and bool(values.size and (values == np.rint(values)).all() and (values > 1).any())
