import pytest

from quantstudio.report.svg import Drawing, Scale, nice_ticks, shortened, spread_labels, tick_texts


def test_that_ticks_are_round_and_inside() -> None:
    assert nice_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert nice_ticks(-1.1, 0.75) == pytest.approx([-1.0, -0.5, 0.0, 0.5])
    assert nice_ticks(3, 3) == [3]
    assert Scale(0.04, 7, 0, 100, is_log=True).ticks() == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    assert Scale(1e-6, 10, 0, 1, is_log=True).ticks() == pytest.approx([10.0**d for d in range(-6, 2)])


def test_that_tick_labels_have_the_decimals_of_their_step() -> None:
    assert tick_texts([90.0, 92.5, 95.0]) == ["90.0", "92.5", "95.0"]
    assert tick_texts([-0.5, 0.0, 0.5, 1.0]) == ["−0.5", "0.0", "0.5", "1.0"]
    assert tick_texts([0, 20, 40]) == ["0", "20", "40"]
    assert tick_texts([0.0, 1e-4, 2e-4]) == ["0", "0.00010", "0.00020"]
    assert tick_texts([0.0, 1e-5]) == ["0", "1.0×10⁻⁵"]


def test_that_a_scale_maps_ends_onto_ends_and_never_beyond() -> None:
    linear = Scale(0, 10, 100, 300)
    assert (linear(0), linear(5), linear(10), linear(99)) == (100, 200, 300, 300)
    log = Scale(1, 100, 0, 200, is_log=True)
    assert (log(1), log(10), log(100), log(0.1)) == pytest.approx((0, 100, 200, 0))


def test_that_labels_keep_their_order_and_distance() -> None:
    placed = spread_labels([100.0, 101.0, 99.0], 15.0)
    assert placed[2] < placed[0] < placed[1]
    assert placed[0] - placed[2] >= 15 - 1e-3
    assert placed[1] - placed[0] >= 15 - 1e-3
    assert spread_labels([0.0, 50.0], 15.0) == [0.0, 50.0]


def test_that_names_lose_their_middle() -> None:
    assert shortened("encoder.block.11.attention", 11) == "encod…ntion"
    assert len(shortened("encoder.block.11.attention", 11)) == 11
    assert shortened("short", 11) == "short"


def test_that_a_drawing_escapes_what_it_is_told() -> None:
    drawing = Drawing(10, 10, 'a "label" <b>')
    drawing.text(1, 2, "<i>")
    drawing.slanted_text(1, 2, "a&b")
    drawing.rect(0, 0, -5, 1, "fp", "<tip>")
    svg = str(drawing.render())
    assert 'aria-label="a &quot;label&quot; &lt;b&gt;"' in svg
    assert "&lt;i&gt;" in svg
    assert "a&amp;b" in svg
    assert "<title>&lt;tip&gt;</title>" in svg
    assert 'width="0"' in svg
