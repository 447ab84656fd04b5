"""How a step is written down: one function, one class of settings; all else is read off them.

    @dataclass(frozen=True, slots=True)
    class Settings:
        rounds: int = setting(20, "Rounds", "More rounds even out more.", low=1, high=100, unit="rounds")

    @step(name="equalize", label="Equalize layers", explanation="...", source="Nagel et al. 2019, eq. 11")
    def equalize(
        graph: Graph, context: StepContext, settings: Settings, *, reporter: Reporter, cancel: CancelToken
    ) -> StepOutcome: ...

A module that does this is a step of QuantStudio as soon as it is imported: those of the engine are found
where they lie, those of other packages through the entry points `quantstudio.steps` (see `discovery`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Protocol, TypeVar, get_type_hints

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, SettingInfo, SettingType, SettingValue, Step, StepGroup, StepInfo
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome

_LABEL, _EXPLANATION, _LOW, _HIGH, _UNIT = "label", "explanation", "low", "high", "unit"
_TYPES = {bool: SettingType.BOOL, int: SettingType.INT, float: SettingType.FLOAT, str: SettingType.TEXT}


class Apply(Protocol):
    """What a step is: a pure function, the same graph for the same arguments."""

    def __call__(
        self,
        graph: Graph,
        context: StepContext,
        settings: Any,  # noqa: ANN401  each step has a class of its own
        *,
        reporter: Reporter,
        cancel: CancelToken,
    ) -> StepOutcome:
        """The graph with the step applied to it."""


F = TypeVar("F", bound=Callable[..., StepOutcome])


@dataclass(frozen=True, slots=True)
class NoSettings:
    """Settings of a step that has none."""


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """A step that can be run.

    Attributes:
        info: What there is to know of it.
        apply: The step itself.
        settings_type: Its class of settings.
        origin: Module and name of the function, to tell two steps of one name apart.
    """

    info: StepInfo
    apply: Apply
    settings_type: type[Any]
    origin: str

    def settings_of(self, step: Step) -> Any:  # noqa: ANN401
        """The settings of a recipe's step, defaults filled in.

        Raises:
            RecipeError: a setting is unknown or does not fit.
        """
        values = self.info.completed(step).settings
        hints = get_type_hints(self.settings_type)
        return self.settings_type(**{name: hints[name](value) for name, value in values.items()})


_definitions: dict[str, StepDefinition] = {}


def setting(
    default: SettingValue,
    label: str,
    explanation: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
) -> Any:  # noqa: ANN401  a field of any type, as dataclasses.field
    """A field of a class of settings; its annotation says the type: bool, int, float, str or a StrEnum.

    Args:
        default: Value where a recipe says nothing.
        label: A few words for a form.
        explanation: What it does, in a sentence or two.
        low: Smallest value of a number.
        high: Largest value of a number.
        unit: Unit of a number.
    """
    metadata = {_LABEL: label, _EXPLANATION: explanation, _LOW: low, _HIGH: high, _UNIT: unit}
    return dataclasses.field(default=default, metadata=metadata)


def step(
    *,
    name: str,
    label: str,
    explanation: str,
    source: str = "",
    needs: Sequence[Need] = (),
    version: int = 1,
    keeps_outputs: bool = False,
    group: StepGroup | None = None,
) -> Callable[[F], F]:
    """Register the decorated function as a step.

    Args:
        name: As recipes and the command line spell it: lower case, no spaces.
        label: A few words for a menu.
        explanation: One paragraph: what it does, when it helps, what it costs.
        source: Paper and equation.
        needs: What it has to be given besides the graph.
        version: To be raised with every change of what it computes: stored graphs are then made again.
        keeps_outputs: Whether the float network computes the same afterwards.
        group: What it is for; by default read off its needs: gradients tune, the plan corrects, all else
            prepares.

    Raises:
        ValueError: another step has the name, or the settings are not written as they should be.
    """

    def register(apply: F) -> F:
        settings_type = _settings_type(apply)
        info = StepInfo(
            name,
            label,
            " ".join(explanation.split()),
            source,
            tuple(needs),
            version,
            _setting_infos(settings_type),
            keeps_outputs,
            group or _group_by(needs),
        )
        definition = StepDefinition(info, apply, settings_type, f"{apply.__module__}.{apply.__qualname__}")
        known = _definitions.get(name)
        if known is not None and known.origin != definition.origin:
            raise ValueError(f"step {name!r} of {definition.origin} is already one of {known.origin}")
        _definitions[name] = definition
        return apply

    return register


def registered() -> dict[str, StepDefinition]:
    """Steps of the modules imported so far, in that order; `discovery.find_steps` imports all."""
    return dict(_definitions)


def _group_by(needs: Sequence[Need]) -> StepGroup:
    if Need.GRADIENTS in needs:
        return StepGroup.TUNE
    return StepGroup.CORRECT if Need.PLAN in needs else StepGroup.PREPARE


def _settings_type(apply: Callable[..., StepOutcome]) -> type[Any]:
    parameters = list(inspect.signature(apply).parameters)
    found = get_type_hints(apply).get(parameters[2]) if len(parameters) > 2 else None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"the third parameter of step {apply.__qualname__} is not a dataclass of settings")
    return found


def _setting_infos(settings_type: type[Any]) -> tuple[SettingInfo, ...]:
    hints = get_type_hints(settings_type)
    infos = []
    for field in dataclasses.fields(settings_type):
        if _LABEL not in field.metadata:
            raise ValueError(
                f"setting {field.name!r} of {settings_type.__qualname__} is not made by setting()"
            )
        kind, data = hints[field.name], field.metadata
        choices: tuple[str, ...] = ()
        if issubclass(kind, StrEnum):
            type_, choices = SettingType.CHOICE, tuple(member.value for member in kind)
        elif kind in _TYPES:
            type_ = _TYPES[kind]
        else:
            raise ValueError(f"setting {field.name!r} is neither bool, int, float, str nor a StrEnum")
        default = field.default.value if isinstance(field.default, Enum) else field.default
        info = SettingInfo(
            name=field.name,
            label=data[_LABEL],
            type=type_,
            default=default,
            low=data[_LOW],
            high=data[_HIGH],
            unit=data[_UNIT],
            choices=choices,
            explanation=" ".join(data[_EXPLANATION].split()),
        )
        infos.append(dataclasses.replace(info, default=info.checked(default)))
    return tuple(infos)
