"""What can be done with plans: add and switch them, edit their rules and ranges, build them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from quantstudio.core.aim import DEFAULT_AIM, Aim
from quantstudio.core.precision import FP32
from quantstudio.core.recipe import ActivationScope, RangeMethod
from quantstudio.core.schemes import AUTO, NAMED_SCHEMES
from quantstudio.core.target import targets
from quantstudio.gui.action import SECTION, Action, Choice, Choices, Command, Context, Submenu, ToolMenu
from quantstudio.gui.facts.needs import needs_build, needs_float_weights_and_data, needs_model
from quantstudio.gui.facts.precision_facts import precision_places
from quantstudio.gui.feature import toggle_action
from quantstudio.gui.session import Session
from quantstudio.workspace.names import contents_text

RANGE_TEXTS = {
    RangeMethod.MSE: "Least squared error",
    RangeMethod.MINMAX: "Full range (min and max)",
    RangeMethod.PERCENTILE: "Percentile 99.999",
    RangeMethod.ENTROPY: "Entropy",
}
SCOPE_TEXTS = {
    ActivationScope.ALL: "Every operator with an integer kernel",
    ActivationScope.WEIGHTED: "Around weights only (transformers)",
}
# Samples asked for; more than a few thousand rarely move a range.
SAMPLE_COUNTS = (64, 128, 256, 512, 1024, 4096, 8192)


def commands() -> tuple[Command, ...]:
    """Everything plans bring."""
    return (*_plans(), *_recipe(), *_builds())


def _plans() -> tuple[Command, ...]:
    return (
        toggle_action("plans", "P&lans", "plan", "Ctrl+4", 320),
        Choices("plan.active", "", _switches, "Plan", "plan", 110, "plan"),
        Action(
            "plan.add",
            "&New plan",
            lambda context: context.session.workspace.edits.add_plan(),
            "plan",
            210,
            "plus",
            "Ctrl+Shift+N",
        ),
        Action(
            "plan.duplicate",
            "&Duplicate plan",
            lambda context: context.session.workspace.edits.duplicate_plan(
                context.session.workspace.active_plan
            ),
            "plan",
            220,
            "copy",
            "Ctrl+Shift+D",
        ),
        Action(
            "plan.delete",
            "D&elete plan",
            lambda context: context.session.workspace.edits.delete_plan(
                context.session.workspace.active_plan
            ),
            "plan",
            230,
            "delete",
            why_not=_needs_two_plans,
        ),
        ToolMenu(
            "plan", "plan", "Plan", "plan", 410, lambda session: session.workspace.active_plan, _plan_tip
        ),
    )


def _recipe() -> tuple[Command, ...]:
    return (
        Action(
            "edit.rules",
            "R&ules…",
            _edit_rules,
            "edit",
            240,
            "rules",
            "Ctrl+Shift+R",
            why_not=needs_model,
        ),
        Choices("model.ranges", "Activation &ranges by", _ranges, "Model", "model", 210, "calibrate"),
        Choices("model.samples", "Calibration &samples", _sample_counts, "Model", "model", 220),
        Choices("model.scope", "&Quantize activations", _scopes, "Model", "model", 230),
        Choices("model.target", "Quantize &for", _targets, "Model", "model", 240),
    )


def _builds() -> tuple[Command, ...]:
    return (
        Action(
            "run.all",
            "Run &everything",
            lambda context: context.session.workspace.runs.run_all(),
            "run",
            110,
            "play",
            "F5",
            "Analyze, quantize, measure",
            why_not=needs_float_weights_and_data,
        ),
        Action(
            "run.quantize",
            "&Quantize",
            lambda context: context.session.workspace.runs.quantize(),
            "run",
            310,
            "quantize",
            "Ctrl+R",
            "Build the model according to the plan",
            tool=310,
            is_primary=True,
            why_not=needs_build,
        ),
        Submenu("run.presets", "Quantize by &preset", "run", 320),
        *_presets(),
    )


def _presets() -> tuple[Command, ...]:
    """One action per scheme, in a menu for every width, below those that measure."""
    places = precision_places(name for name, scheme in NAMED_SCHEMES.items() if scheme != FP32)
    menus = {under: f"run.presets.{under[0]}" for under, _ in places if under}
    return (
        *(_auto(aim, SECTION + index) for index, aim in enumerate(Aim)),
        *(
            Submenu(menu, under[0], "run.presets", 2 * SECTION + 1 + index)
            for index, (under, menu) in enumerate(menus.items())
        ),
        *(
            _preset(name, menus.get(under, "run.presets"), 2 * SECTION + (index if under else 0))
            for index, (under, name) in enumerate(places)
        ),
    )


def _auto(aim: Aim, order: int) -> Action:
    """The preset that measures; the one people mean without saying more has its plain name."""
    return Action(
        f"run.preset.{AUTO}" if aim is DEFAULT_AIM else f"run.preset.{AUTO}-{aim}",
        f"Auto: {aim.text}",
        lambda context: context.session.workspace.runs.quantize_preset(AUTO, aim),
        "run.presets",
        order,
        tip="Measure several recipes, refuse what loses too much or is slower than FP32, and take "
        f"{aim.text}",
        words=f"Quantize: {aim.text}",
        why_not=needs_float_weights_and_data,
    )


def _preset(name: str, menu: str, order: int) -> Action:
    text = NAMED_SCHEMES[name].text
    return Action(
        f"run.preset.{name}",
        text,
        lambda context: context.session.workspace.runs.quantize_preset(name),
        menu,
        order,
        tip=f"Quantize with the preset {name}; its recipe becomes the plan's",
        words=f"Quantize: {text}",  # out of its menu, a preset needs its verb
        why_not=needs_float_weights_and_data,
    )


def _edit_rules(context: Context) -> None:
    from quantstudio.gui.features.plans.rules_dialog import RulesDialog

    RulesDialog(context.session, context.window).open()


def _needs_two_plans(session: Session) -> str:
    return "" if len(session.workspace.plans) > 1 else "The last plan cannot be deleted"


def _plan_tip(session: Session) -> str:
    workspace = session.workspace
    contents = contents_text(workspace.recipe, workspace.layers) if workspace.layers else ""
    holds = f" holds {contents}" if contents else ""
    return f"{workspace.active_plan}{holds}: the plan being edited; you can keep several side by side"


def _switches(context: Context) -> list[Choice]:
    session = context.session
    return [
        Choice(
            plan.name,
            partial(session.workspace.edits.activate_plan, plan.name),
            words="" if plan.name == session.workspace.active_plan else f"Switch to {plan.name}",
            is_chosen=plan.name == session.workspace.active_plan,
        )
        for plan in session.workspace.plans
    ]


def _ranges(context: Context) -> list[Choice]:
    session = context.session
    now = session.workspace.recipe.calibration
    return [
        Choice(
            text,
            partial(session.workspace.edits.set_calibration, replace(now, method=method)),
            words=f"Activation ranges: {text}",
            is_chosen=now.method is method,
        )
        for method, text in RANGE_TEXTS.items()
    ]


def _sample_counts(context: Context) -> list[Choice]:
    session = context.session
    now = session.workspace.recipe.calibration
    return [
        Choice(
            f"{count:,}".replace(",", " "),
            partial(session.workspace.edits.set_calibration, replace(now, samples=count)),
            is_chosen=now.samples == count,
        )
        for count in sorted({*SAMPLE_COUNTS, now.samples})
    ]


def _scopes(context: Context) -> list[Choice]:
    session = context.session
    return [
        Choice(
            text,
            partial(session.workspace.edits.set_activation_scope, scope),
            words=f"Quantize activations: {text}",
            is_chosen=scope is session.workspace.recipe.activation_scope,
        )
        for scope, text in SCOPE_TEXTS.items()
    ]


def _targets(context: Context) -> list[Choice]:
    session = context.session
    return [
        Choice(
            target.label,
            partial(session.workspace.edits.set_target, target.name),
            words=f"Quantize for {target.label}",
            is_chosen=target.name == session.workspace.recipe.target,
            tip=target.text,
        )
        for target in targets()
    ]
