"""A comparison of language models shows perplexity first, and how fast they write."""

from __future__ import annotations

from dataclasses import replace

from quantstudio.core.judgement import LIKELIHOOD
from quantstudio.core.language import GenerationSpeed, LanguageFigures, RoundedCache
from quantstudio.core.quality import quality_of
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import Agreement, Headline, Interval, VariantResult
from quantstudio.core.variants import Variant
from quantstudio.gui.features.compare.compare_table import CompareTableModel

ONE = Interval(1, 1, 1)
SPEED = GenerationSpeed(16, 8, 5.0, 2.0, 500.0, ONE, Interval(2, 1.5, 2.5), 1, 5)
GROWTH = Interval(1.25, 1.2, 1.3)
CACHE = RoundedCache(160, Interval(1.002, 1.001, 1.004), 480)
FIGURES = LanguageFigures(Interval(20.0, 19.0, 21.0), GROWTH, 0.01, 0.2, 0.93, 640, 32, 512, SPEED, CACHE)
LOSS = Interval(20.0, 16.7, 23.1)


def result(name: str, figures: LanguageFigures, value: float, loss: Interval) -> VariantResult:
    return VariantResult(
        path=name,
        name=name,
        size_bytes=1000,
        metrics={
            "perplexity": figures.perplexity.value,
            "agreement": figures.same_top,
            "kl_p99": figures.kl_p99,
        },
        drop=None,
        drop_method="",
        p_value=None,
        per_class=(),
        segments=(),
        agreement=Agreement(figures.same_top, figures.kl, 20.0),
        latency_ms=None,
        speedup=None,
        peak_memory_bytes=0,
        footprint=None,
        provider="cpu",
        samples=20,
        headline=Headline("likelihood", LIKELIHOOD.label, 1.0, value, loss, "%", LIKELIHOOD.floor),
        language=figures,
    )


BASE = result(
    "FP32",
    replace(
        FIGURES, perplexity=Interval(16.0, 15.0, 17.0), growth=ONE, speed=replace(SPEED, token_speedup=ONE)
    ),
    1.0,
    Interval(0, 0, 0),
)
SMALL = result("INT4", FIGURES, 0.8, LOSS)


def test_that_quality_says_perplexity_and_weighs_likelihood() -> None:
    found = quality_of(SMALL, is_base=False)
    assert found is not None
    assert (found.shown_name, found.short_name, found.text, found.base_text) == (
        "Perplexity",
        "Perplexity",
        "20.00",
        "16.00",
    )
    assert found.ends_text == "19.00 to 21.00"
    assert (found.short_ends_text, found.delta_text) == ("19.0–21.0", "1.25× FP32's")
    assert found.value.value == 0.8
    assert found.is_below_floor


def test_that_the_table_shows_perplexity_first_and_speed_with_the_cache(qtbot) -> None:
    model = CompareTableModel()
    pairs = ((BASE, True), (SMALL, False))
    model.set_variants(
        [
            Variant(
                "base" if is_base else "small",
                one.name,
                "" if is_base else "plan",
                Recipe(),
                one.path,
                None,
                result=one,
            )
            for one, is_base in pairs
        ]
    )
    cells = {
        model.data(model.index(row, 0)): [model.data(model.index(row, column)) for column in (1, 2)]
        for row in range(model.rowCount())
    }
    assert model.metrics[0] == "Perplexity"
    assert model.metrics.count("Perplexity") == 1
    assert "Agreement" not in model.metrics, "it stands there as the metric of the task"
    assert "Likelihood, change" in model.metrics
    assert cells["Perplexity"] == ["16.00", "20.00"]
    assert cells["Over FP32's"][1].startswith("1.25")
    assert cells["Tokens per second"] == ["500.0", "500.0"]
    assert cells["Cache per token"][0].startswith("512")
    assert cells["INT8 cache"][0].startswith("160")
    assert cells["INT8 cache, 95 % CI"][0] == "1.001…1.004"
