"""The data doctor: the transform a network was trained with is found by trying, and what is wrong is said."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.diagnosis import Diagnosis, Ground, Trouble
from quantstudio.core.errors import DataError, JobCancelled
from quantstudio.core.events import CancelToken, NullReporter, Part
from quantstudio.engine.doctor.geometry import spread
from quantstudio.engine.doctor.network import Network
from quantstudio.engine.doctor.scores import told_by
from quantstudio.engine.evaluation.outputs import Meaning, OutputForm
from quantstudio.engine.graph.graph import Graph
from tests.engine.doctor_cases import CLASSES, asked, brightness_net, pixels, stored

FASHION = "scale=1/255 mean=0.286 std=0.353 layout=NCHW"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("doctor")


@pytest.fixture(autouse=True)
def _one_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the same network once is enough."""
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(home / "cache"))


@pytest.fixture
def net(home: Path) -> Graph:
    return brightness_net(home / "fashion.onnx", FASHION)


@pytest.fixture(scope="module")
def labelled(home: Path) -> str:
    images, labels = pixels()
    return stored(home / "labelled.npz", images=images, labels=labels)


@pytest.fixture(scope="module")
def unlabelled(home: Path) -> str:
    return stored(home / "unlabelled.npz", images=pixels()[0])


def troubles(found: Diagnosis) -> list[Trouble]:
    return [one.trouble for one in found.cautions]


@pytest.mark.parametrize(
    "trained_with",
    [
        "layout=NCHW",
        "scale=1/255 layout=NCHW",
        "scale=1/255 mean=0.5 std=0.5 layout=NCHW",
        "scale=1/255 mean=0.1307 std=0.3081 layout=NCHW",
        FASHION,
    ],
)
def test_that_the_transform_of_the_training_is_proposed(home: Path, labelled: str, trained_with: str) -> None:
    graph = brightness_net(home / f"gray{abs(hash(trained_with))}.onnx", trained_with)
    found = asked(graph, labelled)
    assert found.proposed.transform.text == trained_with
    assert found.ground is Ground.LABELS
    assert found.figure is not None
    assert found.figure.value > 0.9
    assert found.figure.is_calibration
    assert found.runner_up is not None
    assert found.runner_up.score < found.proposed.score
    assert found.runner_up.title in found.reason
    assert found.cautions == ()


@pytest.mark.parametrize(
    "trained_with",
    [
        "scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225",
        "scale=1/255 mean=0.5 std=0.5",
        "channels=BGR scale=1/255",
    ],
)
def test_that_colour_is_tried_in_both_orders(home: Path, trained_with: str) -> None:
    images, labels = pixels(channels=3)
    data = stored(home / "colour.npz", images=images, labels=labels)
    graph = brightness_net(home / "colour.onnx", trained_with, channels=3)
    assert asked(graph, data).proposed.transform.text == f"{trained_with} layout=NCHW"


def test_that_without_labels_answers_that_are_sure_and_differ_decide(net: Graph, unlabelled: str) -> None:
    found = asked(net, unlabelled)
    assert found.proposed.transform.text == FASHION
    assert found.ground is Ground.CONFIDENCE
    assert found.figure is None
    assert Trouble.NO_LABELS in troubles(found)


def test_that_what_batch_normalizations_remember_decides_where_there_are_any(
    home: Path, unlabelled: str
) -> None:
    graph = brightness_net(home / "remembers.onnx", FASHION, remembers=True)
    found = asked(graph, unlabelled)
    assert found.proposed.transform.text == FASHION
    assert found.ground is Ground.STATISTICS
    worse = asked(graph, unlabelled, "scale=1/255 layout=NCHW")
    assert worse.cautions[0].trouble is Trouble.WRONG_TRANSFORM
    assert worse.cautions[0].transform is not None
    assert worse.cautions[0].transform.text == FASHION


def test_that_a_network_of_bytes_with_channels_last_needs_only_the_layout(home: Path) -> None:
    graph = brightness_net(home / "bytes.onnx", "", channels=3, nhwc=True, dtype=TensorProto.UINT8)
    images, labels = pixels(channels=3)
    last = asked(graph, stored(home / "last.npz", x=images, labels=labels))
    first = asked(graph, stored(home / "first.npz", x=np.moveaxis(images, -1, 1).copy(), labels=labels))
    assert (last.proposed.transform.text, first.proposed.transform.text) == ("", "layout=NHWC")
    for found in (last, first):
        assert found.ground is Ground.NOTHING_TO_CHOOSE
        assert found.figure is not None
        assert found.figure.value > 0.9


def test_that_a_float_network_with_channels_last_gets_its_layout(home: Path, labelled: str) -> None:
    graph = brightness_net(home / "last.onnx", "scale=1/255", nhwc=True)
    assert asked(graph, labelled).proposed.transform.text == "scale=1/255 layout=NHWC"


def test_that_other_sizes_are_resized(home: Path) -> None:
    images, labels = pixels()
    large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    graph = brightness_net(home / "small.onnx", FASHION)
    found = asked(graph, stored(home / "large.npz", images=large, labels=labels))
    assert found.proposed.transform.text == f"resize=8x8 {FASHION}"


def test_that_few_levels_are_scaled_by_their_largest(home: Path) -> None:
    images, labels = pixels()
    graph = brightness_net(home / "sixteen.onnx", "scale=1/255 layout=NCHW")
    data = stored(
        home / "sixteen.npz", images=(images // 16 + (images > 247)).astype(np.uint8), labels=labels
    )
    assert asked(graph, data).proposed.transform.text == "scale=1/16 layout=NCHW"


class TestAsked:
    def test_that_a_wrong_transform_is_caught_and_the_right_one_offered(
        self, net: Graph, labelled: str
    ) -> None:
        found = asked(net, labelled, "scale=1/255 layout=NCHW")
        first = found.cautions[0]
        assert first.trouble is Trouble.WRONG_TRANSFORM
        assert first.transform is not None
        assert first.transform.text == FASHION
        assert found.figure is not None
        assert found.proposed_figure is not None
        assert found.figure.value < 0.5 < 0.9 < found.proposed_figure.value

    def test_that_one_that_does_not_fit_is_caught(self, net: Graph, labelled: str) -> None:
        found = asked(net, labelled, "scale=1/255")
        assert found.cautions[0].trouble is Trouble.WRONG_TRANSFORM
        assert "layout=NCHW" in found.cautions[0].text
        assert found.figure is None
        assert found.proposed_figure is not None

    def test_that_the_right_one_is_left_in_peace(self, net: Graph, labelled: str) -> None:
        found = asked(net, labelled, FASHION)
        assert found.cautions == ()
        assert found.asked == found.proposed
        assert found.proposed_figure is None

    def test_that_a_better_one_than_any_tried_is_the_proposal(self, home: Path, labelled: str) -> None:
        own = "scale=1/700 mean=0.1 std=0.02 layout=NCHW"
        graph = brightness_net(home / "own.onnx", own)
        found = asked(graph, labelled, own)
        assert found.proposed.transform.text == own
        assert Trouble.WRONG_TRANSFORM not in troubles(found)

    def test_that_without_labels_it_is_caught_by_its_answers(self, net: Graph, unlabelled: str) -> None:
        found = asked(net, unlabelled, "scale=1/255 layout=NCHW")
        assert Trouble.WRONG_TRANSFORM in troubles(found)


class TestCautions:
    def test_that_labels_of_something_else_are_near_chance(self, net: Graph, home: Path) -> None:
        images, labels = pixels()
        shuffled = np.random.default_rng(1).permutation(labels)
        found = asked(net, stored(home / "shuffled.npz", images=images, labels=shuffled))
        assert Trouble.NEAR_CHANCE in troubles(found)

    def test_that_constant_answers_are_told(self, net: Graph, labelled: str) -> None:
        found = asked(net, labelled, "scale=1/65535 layout=NCHW")
        assert Trouble.CONSTANT_ANSWERS in troubles(found)

    def test_that_shared_samples_are_found_by_content(self, net: Graph, home: Path, labelled: str) -> None:
        images, labels = pixels()
        others, other_labels = pixels(per_class=10, seed=5)
        mixed = np.concatenate([others, images[:15]])
        test = stored(home / "mixed.npz", images=mixed, labels=np.concatenate([other_labels, labels[:15]]))
        found = asked(net, labelled, test=test)
        shared = next(one for one in found.cautions if one.trouble is Trouble.OVERLAP)
        assert "15 of 75" in shared.text
        clean = asked(net, labelled, test=stored(home / "clean.npz", images=others, labels=other_labels))
        assert Trouble.OVERLAP not in troubles(clean)
        assert clean.figure is not None
        assert not clean.figure.is_calibration
        assert clean.figure.samples == clean.figure.total == len(others)

    def test_that_missing_classes_are_named(self, net: Graph, home: Path) -> None:
        images, labels = pixels()
        kept = labels != 2
        names = np.array(["night", "dusk", "dawn", "morning", "day", "noon"])
        data = stored(home / "five.npz", images=images[kept], labels=labels[kept], class_names=names)
        found = asked(net, data)
        missing = next(one for one in found.cautions if one.trouble is Trouble.MISSING_CLASSES)
        assert "dawn" in missing.text
        assert [one.count for one in found.classes] == [20, 20, 0, 20, 20, 20]

    def test_that_test_values_unlike_those_of_calibration_are_told(
        self, net: Graph, home: Path, labelled: str
    ) -> None:
        images, labels = pixels(seed=3)
        test = stored(home / "scaled.npz", images=(images / 255).astype(np.float32), labels=labels)
        found = asked(net, labelled, FASHION, test=test)
        assert Trouble.UNLIKE_RANGE in troubles(found)
        # No transform was tried on the test data, so nothing is said of those that were.
        assert not any("No transform" in one.text for one in found.cautions)
        assert any("transform of its own" in one.text for one in found.cautions)

    def test_that_labels_that_count_from_one_are_told(self, net: Graph, home: Path) -> None:
        images, labels = pixels()
        found = asked(net, stored(home / "from_one.npz", images=images, labels=labels + 1))
        told = next(one for one in found.cautions if one.trouble is Trouble.LABELS_OUT_OF_RANGE)
        assert "1 to 6" in told.text
        assert "0 to 5" in told.text
        assert found.figure is None
        assert found.proposed.transform.text == FASHION

    def test_that_whole_targets_are_not_taken_for_classes(self, home: Path, labelled: str) -> None:
        graph = brightness_net(home / "level.onnx", FASHION, scores=False)
        found = asked(graph, labelled, classes=None)
        assert Trouble.WHOLE_TARGETS in troubles(found)
        assert found.classes == ()
        assert found.proposed.transform.text == FASHION
        assert found.figure is not None
        assert found.figure.label == "R²"
        assert found.figure.low <= found.figure.value <= found.figure.high


class TestShown:
    def test_that_pictures_of_every_class_are_as_the_network_gets_them(
        self, net: Graph, labelled: str
    ) -> None:
        found = asked(net, labelled)
        assert {one.label for one in found.shown} == {str(k) for k in range(CLASSES)}
        pictures = [Image.open(io.BytesIO(base64.b64decode(one.png))) for one in found.shown]
        assert {picture.size for picture in pictures} == {(8, 8)}
        brightness = [float(np.asarray(picture).mean()) for picture in pictures[:CLASSES]]
        assert brightness == sorted(brightness)
        assert all(one.is_right == (one.label == one.answer) for one in found.shown)

    def test_that_every_input_says_what_it_gets(self, net: Graph, labelled: str) -> None:
        (facts,) = asked(net, labelled).inputs
        assert facts.stored == "uint8 [8, 8]"
        assert facts.given == "float32 [1, 8, 8]"
        assert facts.stored_high <= 255
        assert facts.low == pytest.approx((facts.stored_low / 255 - 0.286) / 0.353, abs=1e-4)


class TestRound:
    def test_that_a_first_answer_comes_before_all_samples_are_tried(self, net: Graph, home: Path) -> None:
        images, labels = pixels(per_class=120)
        data = stored(home / "many.npz", images=images, labels=labels)
        first: list[Part] = []

        class Listener(NullReporter):
            def found(self, part: Part) -> None:
                first.append(part)

        found = asked(net, data, reporter=Listener())
        (part,) = first
        assert isinstance(part, Diagnosis)
        assert not part.is_final
        assert part.proposed.transform == found.proposed.transform
        assert found.is_final

    def test_that_the_second_question_runs_nothing(
        self, net: Graph, labelled: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = asked(net, labelled)
        runs: list[int] = []

        def run(*_: object) -> list[np.ndarray]:
            runs.append(1)
            return [np.zeros((16, CLASSES), np.float32)]

        monkeypatch.setattr(Network, "run", run)
        assert asked(net, labelled) == before
        assert len(runs) <= 2  # whether the data fits is looked at anew

    def test_that_a_cancel_ends_it(self, net: Graph, labelled: str) -> None:
        token = CancelToken()
        token.set()
        with pytest.raises(JobCancelled):
            asked(net, labelled, cancel=token)

    def test_that_data_that_fits_in_no_layout_is_an_error(self, net: Graph, home: Path) -> None:
        data = stored(home / "flat.npz", x=np.zeros((4, 3), np.float32))
        with pytest.raises(DataError, match=r"takes \[N, 1, 8, 8\]"):
            asked(net, data)

    def test_that_the_answer_survives_the_wire(self, net: Graph, labelled: str) -> None:
        found = asked(net, labelled)
        assert from_json(Diagnosis, to_json(found)) == found


@pytest.mark.parametrize(("total", "count"), [(1000, 64), (10, 64), (64, 64), (17, 32), (1, 5)])
def test_that_samples_are_spread_over_the_whole_file(total: int, count: int) -> None:
    blocks = spread(total, count)
    places = [place for start, stop in blocks for place in range(start, stop)]
    assert len(places) == len(set(places))
    assert places[0] == 0
    assert max(places) == total - 1
    assert len(places) <= max(count, 16)


def test_that_answers_all_alike_tell_nothing_however_sure() -> None:
    form = OutputForm(Meaning.CLASSES, classes=3)
    alike = np.tile(np.array([[9.0, 0.0, 0.0]], np.float32), (30, 1))
    unsure = np.zeros((30, 3), np.float32)
    different = np.eye(3, dtype=np.float32)[np.arange(30) % 3] * 9
    told = [float(told_by(rows, form).mean()) for rows in (alike, unsure, different)]
    assert told[:2] == pytest.approx([0, 0], abs=1e-6)
    assert told[2] == pytest.approx(np.log(3), abs=0.02)


def test_that_images_of_several_sizes_are_resized_for_a_network_of_any(home: Path) -> None:
    images, _ = pixels(per_class=2, channels=3)
    for place, image in enumerate(images):
        folder = home / "images" / ("dark" if place < 6 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((8 + place, 8)).save(folder / f"{place}.png")
    graph = brightness_net(home / "any.onnx", "scale=1/255", channels=3, any_size=True)
    found = asked(graph, str(home / "images"), classes=None)
    assert found.proposed.transform.resize == (224, 224)
    assert found.figure is None or found.figure.samples == len(images)


def test_that_equally_good_transforms_are_said_to_be(net: Graph, home: Path) -> None:
    images = np.zeros((40, 8, 8), np.uint8)
    images[20:] = 255
    found = asked(net, stored(home / "two.npz", images=images, labels=np.repeat([0, 5], 20)))
    assert "as well" in found.reason
