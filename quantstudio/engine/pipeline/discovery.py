"""Every step there is: those of the engine, and those installed packages bring."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.abc import InspectLoader
from importlib.metadata import entry_points
from importlib.util import find_spec

from quantstudio.core.steps import Need, StepGroup, StepInfo
from quantstudio.engine.pipeline.registry import StepDefinition, registered

logger = logging.getLogger(__name__)

# Rooms of the engine whose modules are steps. Named by text: they lie above this one and are only found.
STEP_PACKAGES = (
    "quantstudio.engine.recovery",
    "quantstudio.engine.training",
    "quantstudio.engine.compression",
)
# Group of entry points: each names a module (or an object in one) that registers a step.
ENTRY_POINTS = "quantstudio.steps"
# What a module that registers a step has in its text.
_MARK = "@step("


def find_steps() -> Mapping[str, StepDefinition]:
    """Every step by name: those of the engine first, in the order of their modules.

    A package whose step cannot be imported is left out and named in the log: one broken plug-in must not take
    away the others.
    """
    _import_own()
    _import_installed()
    return registered()


def step_infos() -> tuple[StepInfo, ...]:
    """What there is to know of every step, in the order they are best run in: by what they are for."""
    infos = [definition.info for definition in find_steps().values()]
    order = list(StepGroup)
    return tuple(sorted(infos, key=lambda info: (order.index(info.group), Need.PLAN in info.needs)))


@cache
def _import_own() -> None:
    for package in STEP_PACKAGES:
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            for module in pkgutil.iter_modules([location]):
                name = f"{package}.{module.name}"
                if _may_register(name):
                    importlib.import_module(name)


def _may_register(module: str) -> bool:
    """Whether a module registers a step; what others are made of may load torch, which a list does without.

    Where a module's text is not at hand, as in a frozen application, it has to be imported to know.
    """
    spec = find_spec(module)
    source = spec.loader.get_source(module) if spec and isinstance(spec.loader, InspectLoader) else None
    return source is None or _MARK in source


@cache
def _import_installed() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception:
            logger.warning("the steps of %s (%s) cannot be loaded", entry.name, entry.value, exc_info=True)
