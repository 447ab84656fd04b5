"""One figure, everywhere: a session is looked at after each step, and no two places contradict each other.

The session is a real one, engine included, on a network of eight layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import onnx
import pytest
from PySide6.QtWidgets import QApplication

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import Footprint
from quantstudio.core.samples import sample
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.search_results import ActivationFamily, SearchBudget
from quantstudio.engine.evaluation import compare as comparing
from quantstudio.engine.evaluation import latency as timing
from quantstudio.engine.model.open import open_model
from quantstudio.engine.search import workbench
from quantstudio.gui.session import Session
from quantstudio.jobs.backends.inline import InlineBackend
from quantstudio.project.store import Project
from quantstudio.workspace.search_terms import SearchTerms
from tests.engine.network_kinds import denoiser, detector, encoder, several_targets, with_integers
from tests.engine.recipe_builds import emit
from tests.gui.conftest import wait_until
from tests.gui.figure_reader import active, read
from tests.gui.readings import Readings
from tests.gui.settling import settled

SAMPLE = sample("digits_resnet")
SAMPLES = 96
QUICK = timing.LatencyBudget(seconds=0.05, min_rounds=7, max_rounds=7)
STEPS = (
    "opened",
    "quantized",
    "analyzed",
    "edited",
    "edited and measured",
    "clipped",
    "clipped and measured",
    "another plan",
    "searched",
    "measured again",
    "taken back",
    "reopened",
)
# Eight layers are looked into where their precisions or ranges are others.
LAYER_STEPS = ("analyzed", "edited and measured", "clipped", "searched", "reopened")


@dataclass
class Looks:
    """What was read after each step, and what else the steps showed."""

    at: dict[str, Readings] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)


def _settle(session: Session) -> None:
    known = session.workspace
    wait_until(lambda: not known.jobs.is_busy and not known.background.is_busy)
    settled(session)


def _footprint(path: Path, *_args: object, **_named: object) -> Footprint:
    size = Path(path).stat().st_size
    return Footprint(size, size, 60_000_000 + size, 12.0, 50_000_000)


@pytest.fixture(scope="module")
def home(qapp: QApplication, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for sessions that time in moments."""
    home = tmp_path_factory.mktemp("consistency")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(home / "cache"))
        patch.setenv("QUANTSTUDIO_CONFIG", str(home / "config"))
        # What is timed is no matter here, only that it is told alike everywhere.
        patch.setattr(timing, "LatencyBudget", partial(replace, QUICK))
        patch.setattr(workbench, "TIMING", QUICK)
        patch.setattr(comparing, "footprint_of", _footprint)
        yield home


@pytest.fixture(scope="module")
def looks(home: Path) -> Looks:
    return _looks_of_a_session(home / "work.qstudio")


def _looks_of_a_session(path: Path) -> Looks:
    looks = Looks()
    session = Session(InlineBackend, project=Project.create(path))
    try:
        _work(session, looks)
    finally:
        session.close()
    before = looks.notes["measured again"]
    session = Session(InlineBackend, project=Project.open(path))
    try:
        session.workspace.documents.resume()
        _settle(session)
        looks.at["reopened"] = read(session)
        looks.notes["reopened"] = (before, _figures(session))
    finally:
        session.close()
    return looks


def _work(session: Session, looks: Looks) -> None:
    known, edits, runs = session.workspace, session.workspace.edits, session.workspace.runs

    def look(step: str) -> None:
        _settle(session)
        looks.at[step] = read(session, with_layers=step in LAYER_STEPS)

    transform = parse_transform(SAMPLE.transform)
    known.documents.open_path(str(SAMPLE.model))
    _settle(session)
    known.opening.set_data(
        DataSpec(str(SAMPLE.train), transform, SAMPLES), DataSpec(str(SAMPLE.test), transform, SAMPLES)
    )
    look("opened")
    runs.measure()
    look("quantized")
    runs.analyze()
    look("analyzed")
    names = [layer.name for layer in known.layers if "static-int4" in layer.schemes]
    looks.notes["labels"] = _labels(session)
    before = _figures(session)
    edits.set_scheme(names[1:3], "static-int2")
    look("edited")
    edits.set_scheme(names[1:3], "static-int8")
    _settle(session)
    looks.notes["flipped and back"] = (before, _figures(session))
    edits.set_scheme(names[1:3], "static-int3")
    runs.measure()
    look("edited and measured")
    before = _figures(session)
    edits.set_weight_range(names[0], -0.15, 0.15)
    look("clipped")
    edits.undo()
    _settle(session)
    looks.notes["clipped and back"] = (before, _figures(session))
    edits.redo()
    runs.measure()
    look("clipped and measured")
    edits.add_plan("Careful")
    edits.set_scheme(names[:1], "static-int6")
    same = replace(known.recipe, rules=(*known.recipe.rules, *_twice(known.recipe)))
    looks.notes["equal plans"] = (known.predicted(known.recipe), known.predicted(same))
    look("another plan")
    known.searches.start(SearchTerms(SearchBudget(max_drop=2.0), ActivationFamily.STATIC))
    look("searched")
    looks.notes["search"] = active(session)
    runs.measure_every()
    look("measured again")
    before = looks.notes["measured again"] = _figures(session)
    edits.undo()
    _settle(session)
    edits.redo()
    look("taken back")
    looks.notes["undone and redone"] = (before, _figures(session))


def _twice(recipe: Recipe) -> tuple[LayerRule, ...]:
    """Rules that say again what the last one says."""
    return recipe.rules[-1:]


def _figures(session: Session) -> dict[tuple[str, str], set[float]]:
    """What is said of the plan on the screen."""
    of, found = active(session), read(session, with_layers=False).by_figure()
    return {("now", figure): {r.value for r in rows} for (what, figure), rows in found.items() if what == of}


def _labels(session: Session) -> dict[str, str]:
    """What the table says of the SQNR of the first layer in every precision it can have."""
    from quantstudio.gui.features.layers.layer_table import LayerColumn, LayerTableModel

    table, found = LayerTableModel(session), {}
    layer = session.workspace.layers[0]
    for name in layer.schemes:
        session.workspace.edits.set_scheme([layer.name], name)
        found[name] = str(table.index(0, LayerColumn.SQNR).data())
        session.workspace.edits.undo()
    return found


@pytest.mark.parametrize("step", STEPS)
def test_that_no_two_places_say_another_figure(looks, step):
    assert list(looks.at[step].disagreements()) == []


@pytest.mark.parametrize("step", STEPS)
def test_that_every_interval_shown_holds_its_value(looks, step):
    assert list(looks.at[step].outside()) == []


@pytest.mark.parametrize("step", STEPS)
def test_that_two_times_have_the_ratio_shown_beside_them(looks, step):
    assert list(looks.at[step].wrong_ratios("FP32")) == []


@pytest.mark.parametrize("note", ["flipped and back", "clipped and back", "undone and redone", "reopened"])
def test_that_a_plan_that_is_back_has_the_figures_it_had(looks, note):
    before, after = looks.notes[note]
    assert after == before


def test_that_equal_plans_have_one_prediction(looks):
    one, other = looks.notes["equal plans"]
    assert one == other


def test_that_every_precision_has_an_sqnr(looks):
    assert {name for name, text in looks.notes["labels"].items() if "dB" not in text} == {"fp32"}
    assert set(looks.notes["labels"]) <= set(NAMED_SCHEMES)


def test_that_the_session_showed_what_it_is_looked_at_for(looks):
    """An oracle that reads nothing agrees with everything."""
    assert set(looks.at) == set(STEPS)
    for step in STEPS[1:]:
        places = {one.where for one in looks.at[step].figures}
        assert {
            "card",
            "table of variants",
            "list of plans",
            "report",
            "variants.csv",
            "report.json",
        } <= places
    assert {"inspector", "layers.csv"} <= {one.where for one in looks.at["analyzed"].figures}
    assert "search plans" in {one.where for one in looks.at["searched"].figures}
    assert "predict()" in {one.where for one in looks.at["edited"].figures}


def test_that_a_packed_file_that_is_opened_has_its_own_size_everywhere(home):
    """What runs of it is a normalised form, which takes other bytes than the file."""
    floats, data = encoder().saved(home / "packed")
    packed = home / "packed" / "two_bits.onnx"
    onnx.save(emit(open_model(floats), None, Recipe((LayerRule(NAMED_SCHEMES["dynamic-int2"]),))), packed)
    session = Session(InlineBackend, project=Project.create(home / "packed.qstudio"))
    try:
        known = session.workspace
        known.documents.open_path(str(packed))
        _settle(session)
        known.opening.set_data(DataSpec(str(data)), None)
        before = read(session, with_layers=False)
        known.runs.measure()
        _settle(session)
        after = read(session, with_layers=False)
        assert known.model is not None
        stored = Path(known.model.graph_path).stat().st_size
    finally:
        session.close()
    own = packed.stat().st_size
    assert stored != own
    for found, places in ((before, 5), (after, 10)):
        sizes = [one for one in found.figures if one.figure == "size"]
        assert len({one.where for one in sizes}) >= places
        assert [one for one in sizes if abs(one.value - own) > one.half + 1e-6] == []
        assert list(found.disagreements()) == []


@pytest.mark.parametrize(
    "kind", [encoder, detector, denoiser, several_targets, with_integers], ids=lambda kind: kind.__name__
)
def test_that_the_figure_of_every_task_is_one_everywhere(home, kind):
    model, data = kind().saved(home / kind.__name__)
    session = Session(InlineBackend, project=Project.create(home / f"{kind.__name__}.qstudio"))
    try:
        session.workspace.documents.open_path(str(model))
        _settle(session)
        session.workspace.opening.set_data(DataSpec(str(data)), None)
        session.workspace.runs.measure()
        _settle(session)
        found = read(session)
    finally:
        session.close()
    assert len(found.words["metric"]) == 4
    assert [*found.disagreements(), *found.outside(), *found.wrong_ratios("FP32")] == []
