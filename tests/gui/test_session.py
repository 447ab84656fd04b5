"""The session: edits with undo, streamed results, pipelines, durability, failures."""

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.events import ErrorInfo, JobEnded, JobState, Message, PartFound, Progress, Severity
from quantstudio.core.hints import Hint
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP16, FP32, STATIC_INT4, STATIC_INT8, Precision
from quantstudio.core.recipe import (
    ActivationScope,
    CalibrationSettings,
    LayerRule,
    RangeMethod,
    uniform_recipe,
)
from quantstudio.gui.session import Session
from quantstudio.jobs.rows import LogLine, NoticeLevel
from quantstudio.project.recipe_file import read_recipe_file
from quantstudio.project.store import Project
from quantstudio.workspace.values import EngineOptions, Notification
from tests.gui.settling import settled
from tests.parts import layer_found
from tests.workspace.canned import LAYERS, OUTLINE, succeeded
from tests.workspace.putting import known_of, put_calibration
from tests.workspace.samples import model_summary


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(OUTLINE)
    return path


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "train.npz"
    np.savez(path, x=np.zeros((4, 3, 32, 32), np.float32))
    return path


@pytest.fixture
def opened(qtbot, replayed_session, model_file):
    replayed_session.workspace.documents.open_path(str(model_file))
    idle(qtbot, replayed_session)
    return replayed_session


@pytest.fixture
def with_data(qtbot, opened, data_file):
    opened.workspace.opening.set_data(DataSpec(str(data_file)), None)
    return opened


def idle(qtbot, session):
    known = session.workspace
    qtbot.waitUntil(lambda: not known.jobs.is_busy and not known.background.is_busy)
    settled(session)


def notices(session):
    said: list[Notification] = []
    session.notified.connect(said.append)
    return said


def current_name(session):
    """Name of the variant that is up to date, None without one."""
    variant = session.workspace.current_variant
    return None if variant is None else variant.name


def conv_names(session, count=2):
    return [layer.name for layer in session.workspace.layers if layer.op_type == "Conv"][:count]


class TestEdits:
    def test_that_a_new_session_starts_with_int8_everywhere(self, replayed_session):
        assert replayed_session.workspace.recipe == uniform_recipe("static-int8")
        assert [p.name for p in replayed_session.workspace.plans] == ["INT8"]

    def test_that_setting_layers_is_one_named_undo_step(self, opened):
        names = conv_names(opened, 3)
        opened.workspace.edits.set_scheme(names, STATIC_INT4)
        assert all(
            opened.workspace.recipe.scheme_for(opened.workspace.model.layer(n)) == STATIC_INT4 for n in names
        )
        assert opened.workspace.edits.undo_text == "Set 3 layers to W4A8"
        opened.workspace.edits.undo()
        assert all(
            opened.workspace.recipe.scheme_for(opened.workspace.model.layer(n)) == STATIC_INT8 for n in names
        )
        assert opened.workspace.edits.redo_text == "Set 3 layers to W4A8"
        opened.workspace.edits.redo()
        assert opened.workspace.recipe.scheme_for(opened.workspace.model.layer(names[0])) == STATIC_INT4

    def test_that_a_layer_that_cannot_have_a_precision_is_skipped_with_its_reason(self, opened):
        said = notices(opened)
        norm = next(layer for layer in opened.workspace.layers if layer.op_type == "LayerNormalization")
        opened.workspace.edits.set_scheme([norm.name], "static-int8")
        assert said[0].severity is NoticeLevel.WARNING
        assert "norm" in said[0].hint.text
        assert opened.workspace.edits.undo_text == "Start with INT8"

    def test_that_the_eight_key_gives_each_layer_the_first_int8_form_it_can_have(self, opened):
        embed = next(layer for layer in opened.workspace.layers if layer.op_type == "Gather")
        conv = conv_names(opened, 1)[0]
        opened.workspace.edits.set_precision([conv, embed.name], Precision.INT8)
        assert opened.workspace.recipe.scheme_for(opened.workspace.model.layer(conv)) == STATIC_INT8
        assert opened.workspace.recipe.scheme_for(embed).label == "W8"
        assert opened.workspace.edits.undo_text == "Set 2 layers to INT8"

    @pytest.mark.parametrize(
        ("key", "scheme"), [(Precision.FP16, FP16), (Precision.FP32, FP32)], ids=["fp16", "fp32"]
    )
    def test_that_float_keys_set_float(self, opened, key, scheme):
        name = conv_names(opened, 1)[0]
        opened.workspace.edits.set_precision([name], key)
        assert opened.workspace.recipe.scheme_for(opened.workspace.model.layer(name)) == scheme

    def test_that_a_type_is_set_as_a_whole(self, opened):
        opened.workspace.edits.set_scheme_by_type("Conv", "fp32")
        assert {
            opened.workspace.recipe.scheme_for(x).label
            for x in opened.workspace.layers
            if x.op_type == "Conv"
        } == {"FP32"}
        assert opened.workspace.edits.undo_text == "Set all Conv to FP32"

    def test_that_rules_are_added_moved_changed_and_removed(self, opened):
        first, second = LayerRule(FP32, ("*conv1*",)), LayerRule(FP16, op_types=("MatMul",))
        opened.workspace.edits.add_rule(first)
        opened.workspace.edits.add_rule(second)
        opened.workspace.edits.move_rule(2, 1)
        assert opened.workspace.recipe.rules[1:] == (second, first)
        opened.workspace.edits.replace_rule(1, first)
        assert opened.workspace.recipe.rules[1:] == (first, first)
        opened.workspace.edits.remove_rule(2)
        assert opened.workspace.recipe.rules[1:] == (first,)

    def test_that_dragging_a_range_is_one_undo_step_and_can_be_cleared(self, opened):
        name = conv_names(opened, 1)[0]
        for high in (0.5, 0.4, 0.3):
            opened.workspace.edits.set_weight_range(name, -high, high)
        assert opened.workspace.recipe.weight_ranges[0].high == 0.3
        opened.workspace.edits.undo()
        assert opened.workspace.recipe.weight_ranges == ()
        opened.workspace.edits.redo()
        opened.workspace.edits.clear_weight_range(name)
        assert opened.workspace.recipe.weight_ranges == ()
        opened.workspace.edits.set_activation_range("t", 0, 2)
        assert opened.workspace.recipe.activation_ranges[0].tensor == "t"
        opened.workspace.edits.clear_activation_range("t")
        assert opened.workspace.recipe.activation_ranges == ()

    def test_that_calibration_settings_and_scope_are_edits(self, opened):
        opened.workspace.edits.set_calibration(CalibrationSettings(RangeMethod.PERCENTILE, 99.9, 128))
        opened.workspace.edits.set_activation_scope(ActivationScope.WEIGHTED)
        assert opened.workspace.recipe.calibration.samples == 128
        assert opened.workspace.recipe.activation_scope is ActivationScope.WEIGHTED
        opened.workspace.edits.undo()
        opened.workspace.edits.undo()
        assert opened.workspace.recipe == uniform_recipe("static-int8")

    def test_that_an_edit_that_changes_nothing_is_no_step(self, opened):
        before = opened.workspace.edits.undo_text
        opened.workspace.edits.set_activation_scope(ActivationScope.ALL)
        assert opened.workspace.edits.undo_text == before

    def test_that_selection_ignores_unknown_layers_and_tells_once(self, qtbot, opened):
        names = conv_names(opened)
        with qtbot.waitSignal(opened.selection_changed):
            opened.select([*names, "no such layer"])
        assert opened.selection == tuple(names)
        assert opened.current_layer == names[-1]
        with qtbot.assertNotEmitted(opened.selection_changed):
            opened.select(names)


class TestPlans:
    def test_that_plans_stand_side_by_side_and_undo_covers_them(self, opened):
        opened.workspace.edits.duplicate_plan("INT8")
        assert opened.workspace.active_plan == "INT8 copy"
        opened.workspace.edits.set_scheme(conv_names(opened), "fp32")
        assert opened.workspace.active_plan == "INT8 mixed"
        opened.workspace.edits.rename_plan("INT8 mixed", "Careful")
        opened.workspace.edits.activate_plan("INT8")
        assert opened.workspace.recipe == uniform_recipe("static-int8")
        assert [p.name for p in opened.workspace.plans] == ["INT8", "Careful"]
        opened.workspace.edits.delete_plan("INT8")
        assert opened.workspace.active_plan == "Careful"
        for _ in range(5):
            opened.workspace.edits.undo()
        assert [p.name for p in opened.workspace.plans] == ["INT8"]

    def test_that_a_new_plan_gets_a_free_name(self, opened):
        opened.workspace.edits.add_plan()
        opened.workspace.edits.add_plan()
        assert [p.name for p in opened.workspace.plans] == ["INT8", "INT8 2", "INT8 3"]

    def test_that_the_last_plan_cannot_go(self, opened):
        said = notices(opened)
        opened.workspace.edits.delete_plan("INT8")
        assert len(opened.workspace.plans) == 1
        assert said[0].severity is NoticeLevel.ERROR

    def test_that_a_taken_name_is_refused(self, opened):
        opened.workspace.edits.add_plan("Other")
        said = notices(opened)
        opened.workspace.edits.rename_plan("Other", "INT8")
        assert [p.name for p in opened.workspace.plans] == ["INT8", "Other"]
        assert "INT8" in said[0].text


class TestAnalysis:
    def test_that_opening_a_model_lists_layers_and_loads_weights(self, opened):
        assert len(opened.workspace.layers) == LAYERS
        assert len(opened.workspace.weights) == LAYERS
        assert opened.current_layer == opened.workspace.layers[0].name

    def test_that_sensitivity_streams_before_the_job_ends(self, qtbot, replay, with_data):
        first = replay.answers["sensitivity"]({"method": "fisher"})[0]
        replay.answers["sensitivity"] = lambda params: [first]
        with_data.workspace.runs.add_sensitivity()
        qtbot.waitUntil(lambda: len(with_data.workspace.layer_sensitivity) == 1)
        assert with_data.workspace.layer_sensitivity[first.part.name] == first.part
        assert with_data.workspace.jobs.is_busy

    def test_that_analysis_fills_everything_and_predicts(self, qtbot, with_data):
        with_data.workspace.runs.analyze()
        idle(qtbot, with_data)
        qtbot.waitUntil(
            lambda: (
                with_data.workspace.prediction is not None
                and with_data.workspace.prediction.size_bytes is not None
            )
        )
        assert with_data.workspace.activations is not None
        assert len(with_data.workspace.layer_sensitivity) == LAYERS
        assert with_data.workspace.sensitivity_curve is not None
        quantized = sum("static-int8" in layer.schemes for layer in with_data.workspace.layers)
        assert (
            with_data.workspace.prediction.size_bytes == 500 + quantized * 1000 + (LAYERS - quantized) * 4000
        )

    def test_that_run_all_does_each_step_once_and_again_only_what_is_missing(self, qtbot, replay, with_data):
        with_data.workspace.runs.run_all()
        idle(qtbot, with_data)
        assert replay.tasks[2:] == ["calibrate", "quantize", "sensitivity", "compare", "costs"]
        assert with_data.workspace.current_variant is not None
        assert with_data.workspace.current_variant.result.metrics["top1"] == pytest.approx(0.922)
        assert with_data.workspace.base.result is not None
        count = len(replay.submitted)
        with_data.workspace.runs.run_all()
        idle(qtbot, with_data)
        assert replay.tasks[count:] == ["compare"]

    def test_that_an_edit_makes_the_variant_out_of_date_and_undo_makes_it_current(self, qtbot, with_data):
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        assert current_name(with_data) == "INT8"
        with_data.workspace.edits.set_scheme(conv_names(with_data), "fp32")
        assert current_name(with_data) is None
        with_data.workspace.edits.undo()
        assert current_name(with_data) == "INT8"

    def test_that_test_data_is_looked_into_when_it_is_chosen(self, qtbot, replay, with_data):
        calibration = with_data.workspace.calibration_data
        with_data.workspace.documents.choose_data(calibration, DataSpec("other.npz"))
        idle(qtbot, with_data)
        checked = [job for job in replay.submitted if job.task.endswith(":data_summary")]
        assert [job.params["data"]["path"] for job in checked] == ["other.npz"]

    def test_that_recalibrating_makes_variants_out_of_date(self, qtbot, with_data):
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        put_calibration(with_data.workspace, with_data.workspace.statistics_file.path, "another digest", 512)
        assert with_data.workspace.current_variant is None

    def test_that_loading_a_variant_brings_its_recipe_back(self, qtbot, with_data):
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        first = with_data.workspace.current_variant
        with_data.workspace.edits.set_scheme(conv_names(with_data), "fp32")
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        assert [v.name for v in with_data.workspace.variants] == ["FP32", "INT8", "INT8 mixed"]
        with_data.workspace.edits.load_variant(first)
        assert with_data.workspace.recipe == first.recipe
        assert with_data.workspace.current_variant.name == "INT8"
        assert with_data.workspace.edits.undo_text == "Load INT8"

    def test_that_a_preset_becomes_the_recipe_as_one_undo_step(self, qtbot, with_data):
        with_data.workspace.runs.quantize_preset("auto")
        idle(qtbot, with_data)
        assert with_data.workspace.recipe == uniform_recipe("dynamic-int8")
        assert with_data.workspace.current_variant is not None
        assert "auto" in with_data.workspace.edits.undo_text

    def test_that_a_preset_is_a_variant_alone_where_the_plan_was_edited(self, qtbot, replay, with_data):
        answer = replay.answers["quantize"]

        def edited(params):
            with_data.workspace.edits.set_scheme([conv_names(with_data)[0]], "fp32")
            return answer(params)

        replay.answers["quantize"] = edited
        with_data.workspace.runs.quantize_preset("auto")
        idle(qtbot, with_data)
        assert with_data.workspace.recipe.scheme_for(with_data.workspace.layers[0]) == FP32
        assert "auto" not in with_data.workspace.edits.undo_text
        assert [v.recipe for v in with_data.workspace.variants if not v.is_base] == [
            uniform_recipe("dynamic-int8")
        ]

    def test_that_exact_sensitivity_asks_for_the_layers_named(self, qtbot, replay, with_data):
        names = conv_names(with_data)
        with_data.workspace.runs.exact_sensitivity(names)
        idle(qtbot, with_data)
        assert replay.submitted[-1].params["layers"] == names
        assert replay.submitted[-1].params["method"] == "exact"
        with_data.workspace.runs.exact_sensitivity([])
        assert replay.submitted[-1].params["layers"] == names

    def test_that_measuring_every_variant_compares_them_at_once(self, qtbot, replay, with_data):
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        with_data.workspace.edits.set_scheme(conv_names(with_data), "fp32")
        with_data.workspace.runs.quantize()
        with_data.workspace.runs.measure_every()
        idle(qtbot, with_data)
        assert replay.submitted[-1].params["names"] == ["FP32", "INT8", "INT8 mixed"]
        assert all(v.result is not None for v in with_data.workspace.variants)

    def test_that_threads_of_the_settings_reach_the_measurement(self, qtbot, replay, with_data):
        with_data.workspace.options = EngineOptions(threads=3)
        with_data.workspace.runs.measure()
        idle(qtbot, with_data)
        assert replay.submitted[-1].params["threads"] == 3

    def test_that_samples_changed_meanwhile_are_calibrated_anew(self, qtbot, replay, with_data):
        settings = with_data.workspace.recipe.calibration
        replay.is_holding = True
        with_data.workspace.runs.calibrate()
        with_data.workspace.edits.set_calibration(replace(settings, samples=settings.samples // 2))
        replay.is_holding = False
        replay.release()
        idle(qtbot, with_data)
        assert with_data.workspace.statistics_file.samples == settings.samples
        replay.submitted.clear()
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        assert replay.tasks == ["calibrate", "quantize"]
        assert with_data.workspace.statistics_file.samples == settings.samples // 2

    def test_that_statistics_read_after_other_data_was_chosen_are_dropped(self, qtbot, with_data, data_file):
        with_data.workspace.runs.calibrate()
        idle(qtbot, with_data)
        path = with_data.workspace.statistics_file.path
        with_data.workspace.arrays.load_activations(path)
        scaled = DataSpec(str(data_file), parse_transform("scale=1/255"))
        with_data.workspace.opening.set_data(scaled, None)  # before the file is read
        assert with_data.workspace.background.wait()
        settled(with_data)
        assert with_data.workspace.activations is None

    def test_that_other_data_forgets_what_was_found_with_the_old(self, qtbot, with_data, data_file):
        with_data.workspace.runs.run_all()
        idle(qtbot, with_data)
        scaled = DataSpec(str(data_file), parse_transform("scale=1/255"))
        with_data.workspace.opening.set_data(scaled, scaled)
        assert with_data.workspace.activations is None
        assert not with_data.workspace.layer_sensitivity
        assert with_data.workspace.base.result is None
        assert all(v.result is None for v in with_data.workspace.variants)


class TestJobs:
    def test_that_calibrating_without_data_is_a_notification_not_a_job(self, qtbot, replay, opened):
        said = notices(opened)
        count = len(replay.submitted)
        opened.workspace.runs.calibrate()
        assert len(replay.submitted) == count
        assert said[0].severity is NoticeLevel.ERROR
        assert "data" in said[0].text

    def test_that_progress_shows_with_time_left(self, qtbot, replay, with_data):
        replay.is_holding = True
        with_data.workspace.runs.calibrate()
        job_id = replay.submitted[-1].id
        replay.emit(job_id, Progress(3, 12, "batches", "calibrating", 4.5))
        replay.emit(job_id, Message(Severity.WARNING, "a constant tensor"))
        lines: list[LogLine] = []
        with_data.job_signals.logged.connect(lines.append)
        qtbot.waitUntil(lambda: with_data.workspace.jobs.running.total == 12)
        row = with_data.workspace.jobs.running
        assert (row.done, row.unit, row.seconds_left, row.fraction) == (3, "batches", 4.5, 0.25)
        qtbot.waitUntil(lambda: any("constant" in line.text for line in lines))
        replay.release()
        idle(qtbot, with_data)

    def test_that_cancel_drops_the_rest_of_the_pipeline_and_keeps_finished_layers(
        self, qtbot, replay, with_data
    ):
        replay.is_holding = True
        with_data.workspace.runs.run_all()
        qtbot.waitUntil(lambda: with_data.workspace.jobs.running is not None)
        replay.release()
        replay.is_holding = True
        qtbot.waitUntil(lambda: replay.tasks[-1] == "quantize")
        replay.release()
        qtbot.waitUntil(lambda: replay.tasks[-1] == "sensitivity")
        layer = with_data.workspace.layers[0].name
        row = replay.answers["sensitivity"]({"method": "fisher"})[0]
        replay.emit(replay.submitted[-1].id, row)
        qtbot.waitUntil(lambda: layer in with_data.workspace.layer_sensitivity)
        with_data.workspace.jobs.cancel()
        assert with_data.workspace.jobs.running.state is JobState.CANCELLING
        idle(qtbot, with_data)
        assert layer in with_data.workspace.layer_sensitivity
        assert replay.tasks[-1] == "sensitivity"
        assert layer in known_of(with_data.workspace.project).layer_sensitivity

    def test_that_a_failed_job_tells_what_where_and_what_to_do(self, qtbot, replay, with_data):
        error = ErrorInfo("BuildError", "the layer cannot be INT4", "conv1", Hint("It can be fp16"), 2, "")
        replay.answers["quantize"] = lambda params: [JobEnded(JobState.FAILED, error=error)]
        said = notices(with_data)
        with_data.workspace.runs.measure()
        idle(qtbot, with_data)
        assert said[-1].text == "Quantize failed: conv1: the layer cannot be INT4"
        assert said[-1].hint.text == "It can be fp16"
        assert replay.tasks[-1] == "quantize"
        failed = (
            with_data.workspace.jobs.rows[-1]
            if with_data.workspace.jobs.rows[-1].state.is_final
            else with_data.workspace.jobs.rows[-2]
        )
        assert failed.state is JobState.FAILED

    def test_that_an_answer_that_does_not_fit_is_a_failed_job(self, qtbot, replay, with_data):
        replay.answers["costs"] = lambda params: [succeeded({"nonsense": 1})]
        said = notices(with_data)
        with_data.workspace.runs.analyze()
        idle(qtbot, with_data)
        assert any("Cost tables failed" in notice.text for notice in said)

    def test_that_an_illegal_exact_rule_is_told_before_a_job_starts(self, qtbot, replay, with_data):
        norm = next(layer for layer in with_data.workspace.layers if layer.op_type == "LayerNormalization")
        with_data.workspace.edits.add_rule(LayerRule(STATIC_INT8, (norm.name,)))
        said = notices(with_data)
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        assert "quantize" not in replay.tasks
        assert norm.name in said[-1].text

    def test_that_results_for_an_abandoned_model_are_ignored(self, qtbot, replay, with_data, tmp_path):
        replay.is_holding = True
        with_data.workspace.runs.calibrate()
        stale = replay.submitted[-1].id
        other = tmp_path / "other.onnx"
        other.write_bytes(OUTLINE)
        with_data.workspace.documents.open_path(str(other))
        replay.is_holding = False
        replay.release()
        replay.emit(stale, PartFound(layer_found("x")))
        idle(qtbot, with_data)
        assert with_data.workspace.model.source_path == str(other)
        assert with_data.workspace.statistics_file is None


class TestDurability:
    def test_that_everything_is_there_after_reopening(self, qtbot, replay, with_data, tmp_path):
        with_data.workspace.runs.run_all()
        idle(qtbot, with_data)
        with_data.workspace.edits.set_scheme(conv_names(with_data), "fp32")
        target = tmp_path / "work.qstudio"
        with_data.workspace.documents.save_as(str(target))
        expected = with_data
        copy = Project.open(target, read_only=True)
        known = known_of(copy)
        assert to_json(dict(known.layer_sensitivity)) == to_json(dict(expected.workspace.layer_sensitivity))
        assert known.sensitivity_curve == expected.workspace.sensitivity_curve
        assert known.costs == expected.workspace.costs
        assert [v.name for v in known.variants] == ["FP32", "INT8"]
        assert known.base is not None
        assert known.base.result == expected.workspace.base.result
        assert known.statistics_file == expected.workspace.statistics_file
        assert known.calibration_data == expected.workspace.calibration_data
        assert copy.undo_label == "Set 2 layers to FP32"
        copy.close()

    def test_that_an_opened_project_shows_what_it_knows(self, qtbot, replay, with_data, tmp_path):
        with_data.workspace.runs.run_all()
        idle(qtbot, with_data)
        target = tmp_path / "work"
        with_data.workspace.documents.save_as(str(target))
        saved = target.with_suffix(".qstudio")
        with_data.workspace.documents.new_project()
        assert with_data.workspace.model is None
        count = len(replay.submitted)
        Path(with_data.workspace.project.path).exists()
        with_data.workspace.documents.open_path(str(saved))
        idle(qtbot, with_data)
        assert with_data.workspace.current_variant is not None
        assert with_data.workspace.activations is not None
        # The replayed model has no graph in the cache, so the source is opened again.
        assert replay.tasks[count] == "open_model"

    def test_that_another_model_begins_another_project(self, qtbot, opened, tmp_path):
        opened.workspace.edits.set_scheme(conv_names(opened), "fp32")
        before = opened.workspace.project.path
        other = tmp_path / "second.onnx"
        other.write_bytes(OUTLINE)
        opened.workspace.documents.open_path(str(other))
        idle(qtbot, opened)
        assert opened.workspace.project.path != before
        assert opened.workspace.recipe == uniform_recipe("static-int8")
        assert before.exists()

    def test_that_a_damaged_project_is_told_and_the_present_one_stays(self, opened, tmp_path):
        broken = tmp_path / "broken.qstudio"
        broken.write_bytes(b"not a database")
        said = notices(opened)
        opened.workspace.documents.open_path(str(broken))
        assert opened.workspace.model is not None
        assert "not a QuantStudio project" in said[0].text


class TestFiles:
    def test_that_a_missing_file_is_a_notification(self, replayed_session):
        said = notices(replayed_session)
        replayed_session.workspace.documents.open_path("/nowhere/net.onnx")
        assert said[0].severity is NoticeLevel.ERROR

    @pytest.mark.parametrize("suffix", [".pt2", ".pt", ".pth", ".safetensors"])
    def test_that_a_file_that_runs_code_is_asked_about(
        self, qtbot, replay, replayed_session, tmp_path, suffix
    ):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(b"x")
        with qtbot.waitSignal(replayed_session.trust_requested) as asked:
            replayed_session.workspace.documents.open_path(str(path))
        assert asked.args[0].path == str(path)
        assert replay.submitted == []
        replayed_session.workspace.documents.trust(
            asked.args[0], "nets:make" if suffix == ".safetensors" else ""
        )
        params = replay.submitted[0].params
        assert params["trust"] is True
        assert params["state" if suffix == ".safetensors" else "path"] == str(path)

    def test_that_data_from_a_function_is_asked_about_and_then_trusted(self, qtbot, replay, opened):
        spec = DataSpec("mydata:make")
        with qtbot.waitSignal(opened.trust_requested) as asked:
            opened.workspace.documents.choose_data(spec, None)
        before = opened.workspace.calibration_data
        assert before is None
        opened.workspace.documents.trust(asked.args[0])
        idle(qtbot, opened)
        assert opened.workspace.calibration_data == replace(spec, trusted=True)
        assert "sensitivity" in replay.tasks

    def test_that_dropped_data_is_offered_to_the_dialog(self, qtbot, opened, data_file):
        with qtbot.waitSignal(opened.data_offered) as offered:
            opened.workspace.documents.open_path(str(data_file))
        assert offered.args == [str(data_file)]

    def test_that_data_without_a_model_is_told(self, replayed_session, data_file):
        said = notices(replayed_session)
        replayed_session.workspace.documents.open_path(str(data_file))
        assert "model" in said[0].text

    def test_that_a_sample_opens_with_its_data_and_runs(self, qtbot, replay, replayed_session):
        replayed_session.workspace.documents.open_sample("digits_resnet")
        idle(qtbot, replayed_session)
        assert replayed_session.workspace.calibration_data.path.endswith("digits_train.npz")
        assert replayed_session.workspace.test_data.path.endswith("digits_test.npz")
        assert "compare" in replay.tasks

    def test_that_an_unknown_sample_is_told(self, replayed_session):
        said = notices(replayed_session)
        replayed_session.workspace.documents.open_sample("nothing")
        assert "unknown sample" in said[0].text

    def test_that_export_builds_first_and_writes_model_and_recipe(self, qtbot, with_data, tmp_path):
        target = tmp_path / "out.onnx"
        with_data.workspace.documents.export(str(target))
        idle(qtbot, with_data)
        qtbot.waitUntil(lambda: target.with_suffix(".recipe.json").exists())
        assert target.read_bytes() == b"onnx"
        file = read_recipe_file(target.with_suffix(".recipe.json"))
        assert file.recipe == with_data.workspace.recipe
        assert file.data is not None
        assert file.output is not None
        assert file.output.digest == hashlib.sha256(b"onnx").hexdigest()
        assert file.data.path == with_data.workspace.calibration_data.path

    def test_that_a_model_without_room_for_its_recipe_is_not_exported(self, qtbot, with_data, tmp_path):
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        said = notices(with_data)
        (tmp_path / "out.recipe.json").mkdir()  # nothing can be renamed onto a folder
        target = tmp_path / "out.onnx"
        target.write_bytes(b"old")
        with_data.workspace.documents.export(str(target))
        qtbot.waitUntil(lambda: any(one.severity is NoticeLevel.ERROR for one in said))
        assert target.read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.onnx", "out.recipe.json"]

    def test_that_the_window_never_waits_for_the_text_of_a_cost_table(self, qtbot, with_data, monkeypatch):
        kinds: list[tuple[type, bool]] = []

        def told(value):
            kinds.append((type(value), threading.current_thread() is threading.main_thread()))
            return to_json(value)

        monkeypatch.setattr("quantstudio.project.values.to_json", told)
        with_data.workspace.runs.add_costs()
        idle(qtbot, with_data)
        assert with_data.workspace.costs is not None
        assert (CostTable, False) in kinds
        assert (CostTable, True) not in kinds
        assert known_of(with_data.workspace.project).costs == with_data.workspace.costs

    def test_that_export_into_no_folder_is_told_and_writes_nothing(self, qtbot, with_data, tmp_path):
        with_data.workspace.runs.quantize()
        idle(qtbot, with_data)
        said = notices(with_data)
        with_data.workspace.documents.export(str(tmp_path / "no" / "out.onnx"))
        idle(qtbot, with_data)
        qtbot.waitUntil(lambda: bool(said))
        assert said[-1].severity is NoticeLevel.ERROR

    def test_that_a_recipe_travels_through_a_file(self, opened, tmp_path):
        opened.workspace.edits.set_scheme(conv_names(opened), "fp32")
        wanted = opened.workspace.recipe
        path = tmp_path / "r.json"
        opened.workspace.documents.export_recipe(str(path))
        opened.workspace.edits.undo()
        opened.workspace.documents.open_path(str(path))
        assert opened.workspace.recipe == wanted
        assert opened.workspace.edits.undo_text == "Import r.json"

    def test_that_a_recipe_for_another_model_is_refused(self, opened, tmp_path):
        path = tmp_path / "r.json"
        opened.workspace.edits.add_rule(LayerRule(FP32, ("not here",)))
        opened.workspace.documents.export_recipe(str(path))
        opened.workspace.edits.undo()
        said = notices(opened)
        opened.workspace.documents.open_path(str(path))
        assert "not here" in said[-1].text
        assert opened.workspace.recipe == uniform_recipe("static-int8")

    def test_that_a_json_file_that_is_no_recipe_is_told(self, opened, tmp_path):
        path = tmp_path / "x.json"
        path.write_text(json.dumps({"a": 1}))
        said = notices(opened)
        opened.workspace.documents.open_path(str(path))
        assert said[-1].severity is NoticeLevel.ERROR

    def test_that_the_report_is_written_with_what_was_measured(self, qtbot, with_data, tmp_path):
        with_data.workspace.runs.run_all()
        idle(qtbot, with_data)
        target = tmp_path / "report.html"
        with qtbot.waitSignal(with_data.report_written):
            with_data.workspace.documents.write_report(str(target))
        text = target.read_text()
        assert "INT8" in text
        assert with_data.workspace.layers[0].name.split("#")[0] in text

    def test_that_a_report_of_nothing_is_told(self, replayed_session, tmp_path):
        said = notices(replayed_session)
        replayed_session.workspace.documents.write_report(str(tmp_path / "r.html"))
        assert "nothing to report" in said[0].text

    def test_that_a_moved_file_is_found_again(self, qtbot, with_data, data_file, tmp_path):
        data_file.rename(tmp_path / "moved.npz")
        gone = with_data.workspace.project.missing()
        assert [g.kind.value for g in gone if g.path == str(data_file)] == ["calibration"]
        kind = next(g.kind for g in gone if g.path == str(data_file))
        with_data.workspace.documents.locate(kind, str(tmp_path / "moved.npz"))
        idle(qtbot, with_data)
        qtbot.waitUntil(lambda: with_data.workspace.calibration_data.path == str(tmp_path / "moved.npz"))


def test_that_a_closed_session_says_nothing_more(qtbot, replay, qapp):
    session = Session(replay.attach)
    said: list[object] = []
    session.jobs_changed.connect(lambda: said.append(session.workspace.edits.can_undo))
    session.workspace.runs.open_model("x.onnx", trust=False, factory="", state="", on_opened=lambda: None)
    session.close()
    settled(session)
    assert said == []


def test_that_a_network_with_attention_starts_from_ranges_at_run_time(replayed_session):
    model = model_summary(6)
    product = LayerInfo("scores", "MatMul", schemes=("dynamic-int8", "static-int8"))
    replayed_session.workspace.opening.set_model(replace(model, layers=(*model.layers, product)))
    assert replayed_session.workspace.recipe == uniform_recipe("dynamic-int8")
    replayed_session.workspace.opening.set_model(replace(model, digest="another"))
    assert replayed_session.workspace.recipe == uniform_recipe("static-int8")
