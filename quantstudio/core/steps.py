"""Steps of a recipe: what happens to the graph before it is quantized, and what there is to know of each.

A step is data: a name, settings and whether it is on. What a name means is a `StepInfo`, which the engine
makes from the code of the step and everybody else reads: forms, options and reports come from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from quantstudio.core.errors import RecipeError

SettingValue = bool | int | float | str


class Need(StrEnum):
    """What a step has to be given besides the graph."""

    STATISTICS = "statistics"
    DATA = "data"
    DATA_IF_ANY = "data, if there is any"  # it does its work without, too
    GRADIENTS = "gradients"
    LABELS = "labels"
    PLAN = "plan"
    SEED = "seed"
    FLOAT = "float"  # the network as it was before steps that round


class StepGroup(StrEnum):
    """What a step is for, in the order of the work."""

    COMPRESS = "compress"
    PREPARE = "prepare"
    ROUND = "round"
    CORRECT = "correct"
    TUNE = "tune"
    TRAIN = "train"

    @property
    def keeps_floats(self) -> bool:
        """Whether steps of this kind round nothing: what they leave is a float network."""
        return self in (StepGroup.COMPRESS, StepGroup.PREPARE)

    @property
    def recovers(self) -> bool:
        """Whether steps of this kind win back what rounding costs, in seconds to minutes."""
        return self not in (StepGroup.COMPRESS, StepGroup.TRAIN)


class SettingType(StrEnum):
    """What a setting holds."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    TEXT = "text"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of a recipe.

    Attributes:
        name: Which step, as the registry knows it.
        settings: What differs from the defaults, or all of it; values are JSON scalars.
        is_on: A step that is off stays in the recipe and does nothing.
    """

    name: str
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    is_on: bool = True

    def __post_init__(self) -> None:
        settings = {key: _plain(key, self.settings[key]) for key in sorted(self.settings)}
        object.__setattr__(self, "settings", MappingProxyType(settings))

    @property
    def text(self) -> str:
        """Canonical JSON of name and settings; equal steps have equal texts, whether they are on or off."""
        return json.dumps([self.name, dict(self.settings)], sort_keys=True, separators=(",", ":"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Step):
            return NotImplemented
        return self.is_on == other.is_on and self.text == other.text

    def __hash__(self) -> int:
        return hash((self.text, self.is_on))


def _plain(key: str, value: object) -> SettingValue:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"setting {key!r} is not a finite number")
        # 2 and 2.0 are equal but differ in JSON: the digest must not tell them apart.
        return int(value) if value == int(value) else float(value)
    raise ValueError(f"setting {key!r} is neither a number, text, nor true or false")


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One setting of a step, as a form or an option shows it.

    Attributes:
        name: Field name.
        label: A few words for a form.
        type: What it holds.
        default: Value where the recipe says nothing.
        low: Smallest value of a number; None where there is no end.
        high: Largest value of a number; None where there is no end.
        unit: Unit of a number; empty where there is none.
        choices: Values of a choice.
        explanation: What it does, in a sentence or two.
    """

    name: str
    label: str
    type: SettingType
    default: SettingValue
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    explanation: str = ""

    @property
    def legal(self) -> str:
        """What may be given, in a few words: "a whole number from 1 to 100"."""
        if self.type is SettingType.CHOICE:
            return f"one of {', '.join(self.choices)}"
        if self.type is SettingType.BOOL:
            return "true or false"
        if self.type is SettingType.TEXT:
            return "a text"
        kind = "a whole number" if self.type is SettingType.INT else "a number"
        low, high = (f"{bound:g}" if bound is not None else "" for bound in (self.low, self.high))
        if low and high:
            return f"{kind} from {low} to {high}"
        return f"{kind} of at least {low}" if low else f"{kind} up to {high}" if high else kind

    def checked(self, value: object) -> SettingValue:
        """The value in the setting's own type.

        Raises:
            ValueError: it does not fit; the message says what would.
        """
        if self.type is SettingType.BOOL:
            if isinstance(value, bool):
                return value
        elif self.type in (SettingType.TEXT, SettingType.CHOICE):
            if isinstance(value, str) and (self.type is SettingType.TEXT or value in self.choices):
                return value
        elif self._is_number(value) and isinstance(value, int | float):
            return int(value) if self.type is SettingType.INT else float(value)
        raise ValueError(f"{value!r} is not {self.legal}")

    def _is_number(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        if self.type is SettingType.INT and value != int(value):
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def parsed(self, text: str) -> SettingValue:
        """The value a text means, as typed on a command line.

        Raises:
            ValueError: it does not fit; the message says what would.
        """
        if self.type in (SettingType.TEXT, SettingType.CHOICE):
            return self.checked(text)
        try:
            value = json.loads(text.lower())
        except ValueError:
            value = text
        return self.checked(value)


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What there is to know of a step without running it.

    Attributes:
        name: As recipes and the command line spell it.
        label: A few words for a menu.
        explanation: One paragraph: what it does, when it helps, what it costs.
        source: Paper and equation.
        needs: What it has to be given.
        version: Raised with every change of what it computes.
        settings: In the order a form shows them.
        keeps_outputs: Whether the float network computes the same afterwards; of others, predictions say that
            they do not know what the step itself costs.
        group: What it is for.
    """

    name: str
    label: str
    explanation: str
    source: str = ""
    needs: tuple[Need, ...] = ()
    version: int = 1
    settings: tuple[SettingInfo, ...] = ()
    keeps_outputs: bool = False
    group: StepGroup = StepGroup.PREPARE

    @property
    def uses_seed(self) -> bool:
        """Whether it draws random numbers."""
        return Need.SEED in self.needs

    @property
    def is_quick(self) -> bool:
        """Whether it neither trains nor needs labels, so that trying it costs little."""
        return Need.GRADIENTS not in self.needs and Need.LABELS not in self.needs

    @property
    def needs_data(self) -> bool:
        """Whether it cannot run without samples."""
        return any(need in self.needs for need in (Need.DATA, Need.STATISTICS, Need.GRADIENTS, Need.LABELS))

    @property
    def uses_data(self) -> bool:
        """Whether what it computes hangs on the samples, where there are any."""
        return self.needs_data or Need.DATA_IF_ANY in self.needs

    def setting(self, name: str) -> SettingInfo:
        """A setting by name.

        Raises:
            RecipeError: the step has no such setting.
        """
        for setting in self.settings:
            if setting.name == name:
                return setting
        names = ", ".join(setting.name for setting in self.settings)
        raise RecipeError(
            f"the step has no setting {name!r}",
            where=f"step {self.name}",
            hint=f"Its settings: {names}" if names else "It has no settings",
        )

    def completed(self, step: Step) -> Step:
        """The step with every setting written out, each in its own type.

        Raises:
            RecipeError: a setting is unknown or does not fit; the message says what would.
        """
        given: dict[str, SettingValue] = {setting.name: setting.default for setting in self.settings}
        for name, value in step.settings.items():
            setting = self.setting(name)
            try:
                given[name] = setting.checked(value)
            except ValueError as error:
                raise RecipeError(
                    f"setting {name!r}: {error}", where=f"step {self.name}", hint=f"Give {setting.legal}"
                ) from error
        return replace(step, settings=given)


@dataclass(frozen=True, slots=True)
class StepList:
    """Every step there is, in the order menus show them."""

    steps: tuple[StepInfo, ...]


def steps_before(steps: Iterable[Step], infos: Iterable[StepInfo]) -> tuple[Step, ...]:
    """The leading steps that change the graph whatever its layers become; those that are off left out.

    They end at the first that looks at the precisions (`Need.PLAN`), or that nobody knows: what comes of the
    steps before it can be analyzed and searched, what comes after hangs on the plan.

    Args:
        steps: Of a recipe, in order.
        infos: What is known of steps.
    """
    known = {info.name: info for info in infos}
    found: list[Step] = []
    for step in (one for one in steps if one.is_on):
        info = known.get(step.name)
        if info is None or Need.PLAN in info.needs:
            break
        found.append(step)
    return tuple(found)


def changing_steps(steps: Iterable[Step], infos: Iterable[StepInfo]) -> tuple[str, ...]:
    """Names of those steps behind which the float network computes something else, or may."""
    keeping = {info.name for info in infos if info.keeps_outputs}
    return tuple(step.name for step in steps if step.name not in keeping)


def completed_steps(steps: Sequence[Step], infos: Iterable[StepInfo]) -> tuple[Step, ...]:
    """Steps with every setting written out; off ones too, so that switching one on cannot fail.

    Raises:
        RecipeError: a step is unknown or a setting does not fit; the message names both.
    """
    known = {info.name: info for info in infos}
    return tuple(info_of(step.name, known).completed(step) for step in steps)


def with_outcomes(
    steps: Iterable[Step], applied: Iterable[Mapping[str, SettingValue]], infos: Iterable[StepInfo]
) -> tuple[Step, ...]:
    """Steps with the settings that give what came of them, where they ended otherwise than was asked.

    Args:
        steps: Of a recipe; those that are off stay as they are.
        applied: All settings of those that were run, in their order.
        infos: What is known of steps.
    """
    known, given = {info.name: info for info in infos}, iter(applied)
    found = []
    for step in steps:
        if step.is_on and step.name in known:
            asked = known[step.name].completed(step).settings
            other = {key: value for key, value in next(given, asked).items() if asked.get(key) != value}
            step = replace(step, settings={**step.settings, **other}) if other else step
        found.append(step)
    return tuple(found)


def filled_in(steps: Iterable[Step], infos: Iterable[StepInfo]) -> tuple[Step, ...]:
    """Steps with their settings written out as far as these are known and fit."""
    known = {info.name: info for info in infos}
    found = []
    for step in steps:
        try:
            found.append(info_of(step.name, known).completed(step))
        except RecipeError:  # the build says what is wrong with it
            found.append(step)
    return tuple(found)


def info_of(name: str, known: Mapping[str, StepInfo]) -> StepInfo:
    """What is known of a step.

    Raises:
        RecipeError: there is no step of that name.
    """
    if name in known:
        return known[name]
    raise RecipeError(
        f"there is no step {name!r}",
        hint=f"Known steps: {', '.join(known)}"
        if known
        else "Install the package that provides it, or take it out of the recipe",
    )
