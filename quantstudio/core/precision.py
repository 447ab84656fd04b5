"""The catalogue of number formats, and the scheme a layer runs in.

A format is one row, and `register` adds one. Everything that lists formats reads the catalogue: menus, keys,
the command line and its help, sensitivity, costs, the search. Rows of others come from installed packages by
the entry-point group "quantstudio.formats".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeVar

from quantstudio.core.plugins import load_plugins

PLUGINS = "quantstudio.formats"
# Grids of so many bits are symmetric and leave out their lowest integer, where it is one of many.
NARROW_BITS = 7
# Channels that share a codebook where groups of them do, at least.
GROUP_CHANNELS = 8

_Row = TypeVar("_Row", "WeightFormat", "ActivationFormat")


class Container(StrEnum):
    """How a file holds the weights of a format."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    INT4 = "int4"


class Grid(StrEnum):
    """How weights are rounded.

    FLOAT not at all; UNIFORM to equal steps about zero; SIGN to their sign; TERNARY to a step either side of
    zero, or to zero; CODEBOOK to one of 2^b INT8 codes, which every output channel has of its own; GROUP to
    one of 2^b codes that some channels have in common, TABLE to one that the whole layer has, both times a
    scale a channel.
    """

    FLOAT = "float"
    UNIFORM = "uniform"
    SIGN = "sign"
    TERNARY = "ternary"
    CODEBOOK = "codebook"
    GROUP = "group"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A number format of weights; equal where the names are.

    Attributes:
        name: As recipes and the command line spell it: "int4".
        bits: Bits a weight takes.
        label: As a chip shows it: "INT4".
        text: What it is, in a few plain words.
        short: Behind the W of a layer's label: "4" of "W4A8".
        key: Key that sets the selected layers to it; empty for none.
        role: Colour role of its chip.
        grid: How weights are rounded.
        container: How the file holds them where a kernel reads them as 8-bit integers or floats.
        packed: How the file holds them where they are stored alone; INT4 has two weights per byte.
    """

    name: str
    bits: int = field(compare=False)
    label: str = field(compare=False)
    text: str = field(compare=False)
    short: str = field(default="", compare=False)
    key: str = field(default="", compare=False)
    role: str = field(default="q", compare=False)
    grid: Grid = field(default=Grid.UNIFORM, compare=False)
    container: Container = field(default=Container.INT8, compare=False)
    packed: Container = field(default=Container.INT8, compare=False)

    @property
    def is_integer(self) -> bool:
        """Whether weights live on an integer grid."""
        return self.grid is not Grid.FLOAT

    @property
    def has_codebook(self) -> bool:
        """Whether there are tables of the codes weights take."""
        return self.grid in (Grid.CODEBOOK, Grid.GROUP, Grid.TABLE)

    @property
    def shares_table(self) -> bool:
        """Whether channels have a table in common, and a scale each."""
        return self.grid in (Grid.GROUP, Grid.TABLE)

    def tables_of(self, channels: int) -> int:
        """How many tables so many channels have; a group is of eight, or of the next number that divides."""
        if self.grid is Grid.GROUP:
            sizes = range(GROUP_CHANNELS, channels // 2 + 1)
            return next((channels // size for size in sizes if channels % size == 0), 1)
        return {Grid.CODEBOOK: channels, Grid.TABLE: 1}.get(self.grid, 0)

    @property
    def has_range_rule(self) -> bool:
        """Whether `LayerScheme.weight_range` makes a difference; other grids have one best scale."""
        return self.grid is Grid.UNIFORM

    def to_text(self) -> str:
        """The name, as JSON holds it."""
        return self.name

    @staticmethod
    def from_text(name: str) -> WeightFormat:
        """The row of a name.

        Raises:
            ValueError: there is none.
        """
        return weight_format(name)


@dataclass(frozen=True, slots=True)
class ActivationFormat:
    """A number format of the tensors a layer reads; equal where the names are.

    Attributes:
        name: As recipes spell it: "int8".
        bits: Bits a value takes.
        label: As text shows it: "INT8".
        text: What it is, in a few plain words.
        is_static: Whether ranges are fixed by calibration.
        is_dynamic: Whether ranges are measured on every run.
        is_simulated: Whether no kernel multiplies in it: values are kept to it and computed in a wider one.
    """

    name: str
    bits: int = field(compare=False)
    label: str = field(compare=False)
    text: str = field(compare=False)
    is_static: bool = field(default=False, compare=False)
    is_dynamic: bool = field(default=False, compare=False)
    is_simulated: bool = field(default=False, compare=False)

    @property
    def sensitivity_name(self) -> str:
        """What sensitivity calls its cost; where ranges come from makes no difference to it."""
        return f"{self.label.lower()}-activations"

    def to_text(self) -> str:
        """The name, as JSON holds it."""
        return self.name

    @staticmethod
    def from_text(name: str) -> ActivationFormat:
        """The row of a name.

        Raises:
            ValueError: there is none.
        """
        return activation_format(name)


class Precision:
    """The weight formats QuantStudio brings, as constants; `weight_formats` lists those of others too."""

    FP32: Final = WeightFormat(
        "fp32", 32, "FP32", "as trained", "32", "3", "faint", Grid.FLOAT, Container.FLOAT32, Container.FLOAT32
    )
    FP16: Final = WeightFormat(
        "fp16", 16, "FP16", "half the bytes, computed as FP32", "16", "F", "ok", Grid.FLOAT,
        Container.FLOAT16, Container.FLOAT16,
    )  # fmt: skip
    INT8: Final = WeightFormat("int8", 8, "INT8", "255 levels", "8", "8", "fp")
    INT6: Final = WeightFormat("int6", 6, "INT6", "64 levels", "6")
    INT5: Final = WeightFormat("int5", 5, "INT5", "32 levels", "5")
    INT4: Final = WeightFormat("int4", 4, "INT4", "16 levels", "4", "4", packed=Container.INT4)
    CODEBOOK4: Final = WeightFormat("codebook4", 4, "CB4", "16 own levels a channel", "4", grid=Grid.CODEBOOK)
    GROUP4: Final = WeightFormat("group4", 4, "GB4", "16 own levels 8 channels", "4", grid=Grid.GROUP)
    TABLE4: Final = WeightFormat("table4", 4, "TB4", "16 own levels a layer", "4", grid=Grid.TABLE)
    INT3: Final = WeightFormat("int3", 3, "INT3", "8 levels", "3", packed=Container.INT4)
    CODEBOOK3: Final = WeightFormat("codebook3", 3, "CB3", "8 own levels a channel", "3", grid=Grid.CODEBOOK)
    GROUP3: Final = WeightFormat("group3", 3, "GB3", "8 own levels 8 channels", "3", grid=Grid.GROUP)
    TABLE3: Final = WeightFormat("table3", 3, "TB3", "8 own levels a layer", "3", grid=Grid.TABLE)
    INT2: Final = WeightFormat("int2", 2, "INT2", "4 levels", "2", packed=Container.INT4)
    TERNARY: Final = WeightFormat(
        "ternary", 2, "Ternary", "one step down, none, or one up", "T", grid=Grid.TERNARY,
        packed=Container.INT4,
    )  # fmt: skip
    CODEBOOK2: Final = WeightFormat("codebook2", 2, "CB2", "4 own levels a channel", "2", grid=Grid.CODEBOOK)
    GROUP2: Final = WeightFormat("group2", 2, "GB2", "4 own levels 8 channels", "2", grid=Grid.GROUP)
    TABLE2: Final = WeightFormat("table2", 2, "TB2", "4 own levels a layer", "2", grid=Grid.TABLE)
    BINARY: Final = WeightFormat(
        "binary", 1, "Binary", "its sign times one scale", "B1", grid=Grid.SIGN, packed=Container.INT4
    )
    CODEBOOK1: Final = WeightFormat("codebook1", 1, "CB1", "2 own levels a channel", "1", grid=Grid.CODEBOOK)
    GROUP1: Final = WeightFormat("group1", 1, "GB1", "2 own levels 8 channels", "1", grid=Grid.GROUP)
    TABLE1: Final = WeightFormat("table1", 1, "TB1", "2 own levels a layer", "1", grid=Grid.TABLE)


class ActivationPrecision:
    """The activation formats QuantStudio brings, as constants."""

    FP32: Final = ActivationFormat("fp32", 32, "FP32", "float activations")
    INT8: Final = ActivationFormat("int8", 8, "INT8", "ranges from calibration", is_static=True)
    INT8_DYNAMIC: Final = ActivationFormat(
        "int8-dynamic", 8, "INT8", "ranges measured on every run", is_dynamic=True
    )
    INT4: Final = ActivationFormat(
        "int4", 4, "INT4", "16 steps, computed on 8-bit kernels", is_static=True, is_simulated=True
    )


class Granularity(StrEnum):
    """How many weights share one scale."""

    PER_TENSOR = "per-tensor"
    PER_CHANNEL = "per-channel"
    PER_GROUP = "per-group"


class WeightRange(StrEnum):
    """How a weight scale is chosen: the full range, or the one with the least squared error."""

    MINMAX = "minmax"
    MSE = "mse"


@dataclass(frozen=True, slots=True)
class LayerScheme:
    """How one layer is stored and run.

    Attributes:
        weights: Number format of the weights.
        activations: Number format of the layer's inputs.
        granularity: Which weights share a scale.
        group_size: Weights a scale covers with PER_GROUP, along the reduced axis.
        weight_range: Rule that picks the weight scale.
        symmetric: Whether zero is the middle of the grid; else each group has a zero point of its own. Of
            PER_GROUP alone.
    """

    weights: WeightFormat = Precision.FP32
    activations: ActivationFormat = ActivationPrecision.FP32
    granularity: Granularity = Granularity.PER_CHANNEL
    group_size: int = 32
    weight_range: WeightRange = WeightRange.MINMAX
    symmetric: bool = True

    @property
    def is_float(self) -> bool:
        """Whether nothing of the layer is on an integer grid."""
        return not self.weights.is_integer and not (self.is_static or self.is_dynamic)

    @property
    def is_static(self) -> bool:
        """Whether activation ranges come from calibration."""
        return self.activations.is_static

    @property
    def is_dynamic(self) -> bool:
        """Whether activation ranges are measured on every run."""
        return self.activations.is_dynamic

    @property
    def is_weight_only(self) -> bool:
        """Whether only the weights are on an integer grid."""
        return self.weights.is_integer and not (self.is_static or self.is_dynamic)

    @property
    def is_simulated(self) -> bool:
        """Whether no kernel multiplies in its activation format."""
        return self.activations.is_simulated

    @property
    def is_packed(self) -> bool:
        """Whether the file holds two weights per byte, with one scale per group."""
        return (
            self.is_weight_only
            and self.granularity is Granularity.PER_GROUP
            and self.weights.packed is Container.INT4
        )

    @property
    def sensitivity_names(self) -> tuple[str, ...]:
        """Names sensitivity may know the weights under, the closest first: "int4/group32", "int4".

        Groups lose no more than channels do; one scale for a tensor may lose a hundred times as much, and
        what channels lose is no answer for it.
        """
        own = self.weights.name
        if self.granularity is Granularity.PER_GROUP:
            return (f"{own}/group{self.group_size}", own)
        return (f"{own}/tensor",) if self.granularity is Granularity.PER_TENSOR else (own,)

    @property
    def label(self) -> str:
        """Short name for a table cell: INT8, W4, W4A8, "W2A8 codebook", "W4A4, simulated", INT8 dyn, FP32."""
        if self.is_float:
            return self.weights.label
        table = f" {self.weights.grid}" if self.weights.has_codebook else ""
        weights, bits = f"W{self.weights.short or self.weights.bits}", self.activations.bits
        if self.is_weight_only:
            return f"{weights}{table}"
        is_plain = self.weights == Precision.INT8 and bits == self.weights.bits
        if self.is_dynamic:
            return "INT8 dyn" if is_plain else f"{weights} dyn{table}"
        label = "INT8" if is_plain else f"{weights}A{bits}{table}"
        return f"{label}, simulated" if self.is_simulated else label

    @property
    def short_label(self) -> str:
        """The label where there is little room: "CB2A8", "GB2A8", "TB2A8" of tables, "W4A4 sim"; or it."""
        label = self.label.replace(", simulated", " sim")
        if not self.weights.has_codebook:
            return label
        grid = self.weights.grid
        return f"{grid[0].upper()}B{label.removeprefix('W').replace(f' {grid}', '')}"

    @property
    def text(self) -> str:
        """What it is, for a menu: "INT4 weights, INT8 activations"."""
        if self == FP32:
            return self.weights.label
        weights = f"{self.weights.label} weights"
        if self.is_float:
            return weights
        if self.is_weight_only:
            return f"{weights} only"
        if self.is_dynamic:
            return f"{weights}, {self.activations.label} ranges at run time"
        simulated = ", simulated" if self.is_simulated else ""
        return f"{weights}, {self.activations.label} activations{simulated}"

    def with_weight_range(self, weight_range: WeightRange) -> LayerScheme:
        """The same scheme with another rule for the weight scale."""
        return replace(self, weight_range=weight_range)


FP32 = LayerScheme()
FP16 = LayerScheme(Precision.FP16)
STATIC_INT8 = LayerScheme(Precision.INT8, ActivationPrecision.INT8)
DYNAMIC_INT8 = LayerScheme(Precision.INT8, ActivationPrecision.INT8_DYNAMIC)
WEIGHT_INT8 = LayerScheme(Precision.INT8)
BLOCK_SIZE = 128  # weights that share a scale where they are stored alone
WEIGHT_INT4 = LayerScheme(
    Precision.INT4, granularity=Granularity.PER_GROUP, group_size=BLOCK_SIZE, weight_range=WeightRange.MSE
)
STATIC_INT4 = LayerScheme(Precision.INT4, ActivationPrecision.INT8, weight_range=WeightRange.MSE)


def integer_levels(weights: WeightFormat, max_bits: int = 8) -> tuple[int, int]:
    """The smallest and the largest integer that weights of a format take.

    INT8 is symmetric; fewer bits use all 2^b integers, as what unpacks or multiplies them takes them.

    Args:
        weights: The format; codes of a codebook are those of INT8.
        max_bits: Bits the kernel may take: wider grids are narrowed to these (see `Target.weight_bits`).
    """
    if weights.grid in (Grid.SIGN, Grid.TERNARY):
        return -1, 1
    bits = min(Precision.INT8.bits if weights.has_codebook else weights.bits, max_bits)
    high = max((1 << bits - 1) - 1, 1)
    return (-high if bits >= NARROW_BITS else -high - 1), high


def weight_range_of(weights: WeightFormat) -> WeightRange:
    """The rule a format's scales are chosen by: full range at 8 bits, least squared error below."""
    return WeightRange.MINMAX if weights.bits >= Precision.INT8.bits else WeightRange.MSE


def at_weights(scheme: LayerScheme, weights: WeightFormat) -> LayerScheme:
    """The scheme with weights of another format and the rule that fits it."""
    return replace(scheme, weights=weights, weight_range=weight_range_of(weights))


def scheme_of(weights: WeightFormat, activations: ActivationFormat) -> LayerScheme:
    """The scheme people mean by a pair of formats.

    One scale per channel; where weights of at most four bits are stored alone, one per block of 128.
    """
    if not weights.is_integer:
        return LayerScheme(weights)
    scheme = LayerScheme(weights, activations, weight_range=weight_range_of(weights))
    if scheme.is_weight_only and weights.packed is Container.INT4:
        return replace(scheme, granularity=Granularity.PER_GROUP, group_size=BLOCK_SIZE)
    return scheme


class _Catalogue:
    """All rows by name."""

    def __init__(self) -> None:
        self._weights: dict[str, WeightFormat] = {}
        self._activations: dict[str, ActivationFormat] = {}
        self._ordered: tuple[WeightFormat, ...] = ()

    def register(self, row: WeightFormat | ActivationFormat) -> None:
        if row.name in (self._weights if isinstance(row, WeightFormat) else self._activations):
            raise ValueError(f"there is a format {row.name!r} already")
        if isinstance(row, WeightFormat):
            self._weights[row.name] = row
        else:
            self._activations[row.name] = row
        self._ordered = ()

    def weights(self) -> dict[str, WeightFormat]:
        load_plugins(PLUGINS)
        return self._weights

    def ordered(self) -> tuple[WeightFormat, ...]:
        rows = self.weights()
        self._ordered = self._ordered or tuple(sorted(rows.values(), key=lambda row: -row.bits))
        return self._ordered

    def activations(self) -> dict[str, ActivationFormat]:
        load_plugins(PLUGINS)
        return self._activations


# What sensitivity is looked at for unless somebody asks, and which of it layers are ranked by.
DEFAULT_PRECISIONS = ("int8", "int4", "int8-activations")
DEFAULT_REFERENCE = "int4"

_CATALOGUE = _Catalogue()


def register(row: WeightFormat | ActivationFormat) -> None:
    """Add a format to the catalogue.

    Raises:
        ValueError: the name is taken.
    """
    _CATALOGUE.register(row)


def catalogue_version() -> int:
    """Counts the rows that were registered: what is made from the catalogue is made again when it changes."""
    return len(_CATALOGUE.weights()) + len(_CATALOGUE.activations())


def weight_formats() -> tuple[WeightFormat, ...]:
    """Every weight format, most bits first."""
    return _CATALOGUE.ordered()


def integer_formats() -> tuple[WeightFormat, ...]:
    """Every weight format on an integer grid, most bits first."""
    return _integer_formats(catalogue_version())


@lru_cache(maxsize=1)
def _integer_formats(_version: int) -> tuple[WeightFormat, ...]:
    return tuple(row for row in weight_formats() if row.is_integer)


def keyed_formats() -> tuple[WeightFormat, ...]:
    """The formats a key sets, in the order menus show them: integers first, what is nearest to them next."""
    keyed = [row for row in weight_formats() if row.key]
    return (*(r for r in keyed if r.is_integer), *reversed([r for r in keyed if not r.is_integer]))


def searched_formats() -> tuple[WeightFormat, ...]:
    """The formats a search tries for every layer, most bits first: each more makes it dearer."""
    tried = (Grid.UNIFORM, Grid.CODEBOOK, Grid.TABLE)
    return tuple(row for row in integer_formats() if row.grid in tried and row != Precision.TABLE1)


def activation_formats() -> tuple[ActivationFormat, ...]:
    """Every activation format, in the order they were registered."""
    return tuple(_CATALOGUE.activations().values())


def weight_format(name: str) -> WeightFormat:
    """The weight format of a name.

    Raises:
        ValueError: there is none; the message lists what there is.
    """
    return _row(_CATALOGUE.weights(), name)


def activation_format(name: str) -> ActivationFormat:
    """The activation format of a name; there being none is an error as for `weight_format`."""
    return _row(_CATALOGUE.activations(), name)


def _row(table: Mapping[str, _Row], name: str) -> _Row:
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{name!r} is not one of {', '.join(table)}")
    return table[name]


for _bundled in (*vars(Precision).values(), *vars(ActivationPrecision).values()):
    if isinstance(_bundled, WeightFormat | ActivationFormat):
        register(_bundled)
