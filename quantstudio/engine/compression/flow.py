"""What rules of operators work on: labels along the axes of every tensor, and what hangs on them.

A rule says, for one family of operators, which places of its operands and results are one channel. It takes
labels of constants (`Flow.claim`), joins labels (`Flow.match`), and leaves behind what a graph with fewer
channels needs besides shorter constants: edits of attributes and of constants that hold sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from quantstudio.engine.compression.labels import Axes, Axis, Labels, LabelSet
from quantstudio.engine.graph.protos import FLOAT_TYPES, Array, reads
from quantstudio.engine.graph.view import GraphView

LONE = "there is no second one"
FIXED = "joined with a tensor that nothing can be taken from"


class Unprunable(Exception):  # noqa: N818  no fault: it says that nothing can be taken from what a node touches
    """A node whose operands and results keep all their channels; the text says why."""


class Shrink(Protocol):
    """What an edit is given: how many, and which places are left of an axis, and new constants."""

    def mask(self, labels: Labels) -> NDArray[np.bool_]:
        """Which places are left."""

    def replace_constant(self, node: NodeProto, slot: int, values: Array) -> None:
        """Give a node a constant of its own at an input."""


Edit = Callable[[Shrink, NodeProto], None]


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Multiply-accumulates that shrink with channels: a factor times what is left of every axis.

    Attributes:
        node: Whose they are.
        factor: Everything that does not shrink, for one sample.
        axes: Labels of what does.
    """

    node: str
    factor: float
    axes: tuple[Labels, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Where channels end: a node sums over them.

    Attributes:
        node: Which node.
        slot: Which of its inputs.
        axis: Axis of that input.
        labels: Of its places.
    """

    node: str
    slot: int
    axis: int
    labels: Labels


@dataclass(frozen=True, slots=True)
class Claim:
    """An axis of a constant that has labels.

    Attributes:
        constant: Its name.
        axis: Which axis.
        makes: Whether the channels begin here, and are not only read or scaled.
        node: Who uses it so.
        is_inner: Whether it holds the places within one group of a convolution.
    """

    constant: str
    axis: int
    makes: bool
    node: str
    is_inner: bool = False


@dataclass(eq=False)
class Flow:
    """Labels of a graph while its nodes are gone through in order.

    Attributes:
        view: The graph.
        shapes: Shape of every tensor, all in numbers, for one choice of sizes.
        samples: Size of the sample axis in those shapes.
        choices: Which factor of an axis that a node splits is taken away from, by node; 0 is the outermost.
    """

    view: GraphView
    shapes: Mapping[str, tuple[int, ...]]
    samples: int = 1
    choices: Mapping[str, int] = field(default_factory=dict)

    labels: LabelSet = field(default_factory=LabelSet)
    axes: dict[str, Axes] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    edits: list[tuple[str, Edit]] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    claims: dict[Claim, Labels] = field(default_factory=dict)
    split: dict[str, tuple[int, Labels]] = field(default_factory=dict)

    _constants: dict[str, list[Axis]] = field(default_factory=dict)
    _pinned: set[tuple[str, int]] = field(default_factory=set)
    _claimed_here: set[tuple[str, int]] = field(default_factory=set)

    # -- what rules ask --------------------------------------------------------------------------------

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a tensor.

        Raises:
            Unprunable: they are not known.
        """
        found = self.shapes.get(name)
        if found is None:
            raise Unprunable(f"the shape of {name!r} is not known")
        return found

    def of(self, name: str) -> Axes:
        """Labels of an activation, or of a constant as far as they are claimed: those of a constant stay."""
        if name in self.axes:
            return self.axes[name]
        return (None,) * len(self.shape(name))

    def is_constant(self, name: str) -> bool:
        """Whether a name is a constant."""
        return self.view.is_constant(name)

    def numbers(self, name: str) -> list[int] | None:
        """Values of a constant of whole numbers, or None for anything else."""
        array = self.view.array(name) if name else None
        return None if array is None or array.dtype.kind not in "iu" else [int(v) for v in array.reshape(-1)]

    # -- what rules say --------------------------------------------------------------------------------

    def claim(
        self, node: NodeProto, name: str, axis: int, *, makes: bool = False, is_inner: bool = False
    ) -> Labels:
        """Labels along an axis of a constant, the same for all who ask."""
        tensor = self.view.main.constants[name]
        sizes = tuple(tensor.dims)
        axis %= len(sizes)
        held = self._constants.setdefault(name, [None] * len(sizes))
        found = held[axis]
        if found is None:
            found = held[axis] = self.labels.fresh(sizes[axis])
            if sizes[axis] == 1:
                self.labels.keep(found, LONE)
            if tensor.data_type not in FLOAT_TYPES:
                self.labels.keep(found, f"{name!r} is not stored as float numbers")
            if (name, axis) in self._pinned:
                self.labels.keep(found, f"{name!r} is used whole elsewhere")
            if name in self.view.captured or name in self.view.outputs:
                self.labels.keep(found, f"{name!r} is used inside a branch or loop")
        self._claimed_here.add((name, axis))
        self.claims[Claim(name, axis, makes, node.name, is_inner)] = found
        return found

    def joined(self, node: NodeProto, places: Sequence[tuple[str, int]]) -> Axis:
        """One index that several operands share: their labels joined, or all kept where one has none.

        Args:
            node: Whose operands they are.
            places: Name of an operand and its axis. Constants alone begin new channels.
        """
        constants = [place for place in places if self.is_constant(place[0])]
        others = [(name, self.of(name)[axis]) for name, axis in places if not self.is_constant(name)]
        live = [axis for _name, axis in others if axis is not None]
        fixed = [name for name, axis in others if axis is None]
        if fixed:
            self.keep(live, self.fixed_reason(fixed[0]))
            return None
        live += [self.claim(node, name, axis, makes=not others) for name, axis in constants]
        for axis in live[1:]:
            self.labels.join(live[0], axis)
        return live[0] if live else None

    def keep(self, axes: Iterable[Axis], reason: str) -> None:
        """Take nothing from these axes."""
        for axis in axes:
            self.labels.keep(axis, reason)

    def fixed_reason(self, name: str) -> str:
        """Why a tensor has no labels, to tell of those it is joined with."""
        return self.why.get(name, FIXED)

    def edit(self, node: NodeProto, change: Edit) -> None:
        """What has to be done to a node of the smaller graph."""
        self.edits.append((node.name, change))

    def ends(self, node: NodeProto, slot: int, axis: int) -> None:
        """A node sums over an axis of one of its inputs."""
        labels = self.of(node.input[slot])[axis]
        if labels is not None:
            self.reads.append(Read(node.name, slot, axis % len(self.of(node.input[slot])), labels))

    def count(self, node: NodeProto, factor: float, *axes: tuple[Axis, int]) -> None:
        """Multiply-accumulates of a node: a factor times sizes, of axes with labels or without."""
        live = tuple(axis for axis, _size in axes if axis is not None)
        rest = prod(size for axis, size in axes if axis is None)
        self.work.append(Work(node.name, factor * rest / self.samples, live))

    # -- what the walk does ----------------------------------------------------------------------------

    def begin(self) -> None:
        """A rule starts: nothing of its constants is claimed yet."""
        self._claimed_here.clear()

    def give_up(self, node: NodeProto, reason: str) -> None:
        """Nothing is known of a node: all that it touches stays, also what its rule claimed by then."""
        for name in reads(node):
            self.keep(self.axes.get(name, ()), reason)
        for claim, labels in self.claims.items():
            if claim.node == node.name:
                self.labels.keep(labels, reason)
        self.edits = [edit for edit in self.edits if edit[0] != node.name]
        for name in node.output:
            self.why[name] = reason

    def finish(self, node: NodeProto, names: Iterable[str]) -> None:
        """A rule is done: axes of its constants it did not ask for stay as they are."""
        for name in names:
            tensor = self.view.main.constants.get(name)
            if tensor is None:
                continue
            for axis in range(len(tensor.dims)):
                if (name, axis) not in self._claimed_here:
                    self._pin(name, axis)

    def _pin(self, name: str, axis: int) -> None:
        self._pinned.add((name, axis))
        held = self._constants.get(name)
        if held is not None:
            self.labels.keep(held[axis], f"{name!r} is used whole elsewhere")

    def constant_axes(self, tensor: TensorProto) -> Axes:
        """Labels along the axes of a constant."""
        return tuple(self._constants.get(tensor.name, [None] * len(tensor.dims)))


Rule = Callable[[Flow, NodeProto], Sequence[Axes]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these operators; other domains stand before the name."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register
