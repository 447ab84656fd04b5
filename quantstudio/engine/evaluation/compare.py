"""What variants cost against a base: every figure from the same samples, the same rounds, fresh processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from quantstudio.core.codec import to_json
from quantstudio.core.errors import MeasureError, ModelLoadError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity
from quantstudio.core.language import RoundedCache
from quantstudio.core.results import CompareResult, VariantResult
from quantstudio.core.time_scale import on_scale_of
from quantstudio.engine.evaluation.cache_precision import int8_caches
from quantstudio.engine.evaluation.footprint import file_bytes
from quantstudio.engine.evaluation.footprint import footprint as footprint_of
from quantstudio.engine.evaluation.generation import caches_of
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.evaluation.outputs import OutputForm
from quantstudio.engine.evaluation.probe import DatasetLike
from quantstudio.engine.evaluation.reading import Kind
from quantstudio.engine.evaluation.scoring import Score, score_models
from quantstudio.engine.graph.runtime import Feed, worker_threads

COMPARE_SCHEMA = "quantstudio.compare/1"


def compare(
    base: Path,
    variants: Sequence[Path],
    dataset: DatasetLike,
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    provider: str = "cpu",
    latency: bool = True,
    footprint: bool = True,
    batch: int = 1,
    latency_budget: LatencyBudget | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CompareResult:
    """Measure a base and its variants.

    One pass over the data runs every model on each batch, so accuracy is paired sample by sample; then all
    are timed in interleaved rounds; then each is loaded in a fresh process.

    Args:
        base: The model to compare against, usually FP32.
        variants: The others.
        dataset: Samples; without labels only agreement with the base is measured.
        names: Names for the screen, base first; file names by default.
        threads: Intra-op threads; None for `worker_threads()`.
        provider: Execution provider, short or full name.
        latency: Whether to time.
        footprint: Whether to measure memory and load time.
        batch: Samples a timed run; a fixed-batch model's own size wins.
        latency_budget: How long to time.
        reporter: Told of batches, rounds and models.
        cancel: Looked at before every run.

    Returns:
        Base first, then the variants in order.

    Raises:
        MeasureError: a model does not run on the data, or outputs do not fit the labels or each other.
        ModelLoadError: the runtime refuses a model.
        JobCancelled: `cancel` was set.
    """
    started = perf_counter()
    paths = [Path(base), *map(Path, variants)]
    if names is not None and len(names) != len(paths):
        raise MeasureError(
            f"{len(names)} names for {len(paths)} models", hint="Name the base first, then each"
        )
    threads = threads or worker_threads()
    for path in paths:
        if not path.is_file():
            raise ModelLoadError("no such file", where=str(path), hint="Check the path")
    scores, reading = score_models(
        paths, dataset, threads=threads, provider=provider, reporter=reporter, cancel=cancel
    )
    labels = names or _distinct_names(paths)
    results = [
        _result(path, name, score, len(dataset))
        for path, name, score in zip(paths, labels, scores, strict=True)
    ]
    where: dict[str, Any] = {"threads": threads, "provider": provider, "reporter": reporter, "cancel": cancel}
    if latency:
        results = _with_latency(results, dataset, batch, latency_budget, **where)
    if reading.foretells:
        results = _with_cache(results, dataset, reading.form, timed=latency, **where)
    if footprint:
        results = _with_footprint(results, dataset, **where)
    return CompareResult(
        variants=tuple(results),
        samples=len(dataset),
        seconds=perf_counter() - started,
        labelled=reading.uses_labels,
        task="classification" if reading.kind is Kind.CLASSES else "regression",
        judgement=reading.judgement,
    )


def compare_json(result: CompareResult) -> dict[str, Any]:
    """The comparison as the command line writes it; field names are fixed, see the design's contracts."""
    document: dict[str, Any] = {
        "schema": COMPARE_SCHEMA,
        "task": result.task,
        "judged_as": to_json(result.judgement),
        "labelled": result.labelled,
        "samples": result.samples,
        "seconds": result.seconds,
        "variants": [],
    }
    for variant in result.variants:
        row: dict[str, Any] = to_json(variant)
        if variant.headline is not None:
            row["headline"]["is_below_floor"] = variant.headline.is_below_floor
        agreement = variant.agreement
        row["agreement"] = to_json(agreement.top1) if agreement else None
        row["output_kl"] = to_json(agreement.kl) if agreement else None
        row["output_sqnr_db"] = to_json(agreement.sqnr_db) if agreement else None
        document["variants"].append(row)
    return document


def _result(path: Path, name: str, score: Score, samples: int) -> VariantResult:
    return VariantResult(
        path=str(path),
        name=name,
        size_bytes=file_bytes(path)[0],
        metrics=score.metrics,
        drop=score.drop,
        drop_method=score.drop_method,
        p_value=score.p_value,
        per_class=score.per_class,
        segments=score.segments,
        agreement=score.agreement,
        latency_ms=None,
        speedup=None,
        peak_memory_bytes=0,
        footprint=None,
        provider=score.provider,
        samples=samples,
        flipped=score.flipped,
        flipped_to=score.flipped_to,
        headline=score.headline,
        outputs=score.outputs,
        language=score.language,
    )


def _with_latency(
    results: Sequence[VariantResult],
    dataset: DatasetLike,
    batch: int,
    budget: LatencyBudget | None,
    *,
    threads: int,
    provider: str,
    reporter: Reporter,
    cancel: CancelToken | None,
) -> list[VariantResult]:
    feed, count = _first_samples(dataset, batch)
    timed = interleaved_latency(
        [Path(result.path) for result in results],
        feed,
        threads=threads,
        provider=provider,
        batch=count,
        budget=budget,
        reporter=reporter,
        cancel=cancel,
    )
    base, *variants = [
        replace(result, latency_ms=one, speedup=ratio)
        for result, one, ratio in zip(results, timed.results, timed.speedups, strict=True)
    ]
    return [base, *(on_scale_of(base, variant) for variant in variants)]


def _with_cache(
    results: Sequence[VariantResult],
    dataset: DatasetLike,
    form: OutputForm | None,
    *,
    timed: bool,
    threads: int,
    provider: str,
    reporter: Reporter,
    cancel: CancelToken | None,
) -> list[VariantResult]:
    """Language models with what their caches take, and how fast they write with them where that is timed.

    What the caches would cost as INT8 is simulated.
    """
    paths = [Path(result.path) for result in results]
    uses = caches_of(
        paths,
        dataset,
        timed=timed,
        threads=threads,
        provider=provider,
        reporter=reporter,
        cancel=cancel,
    )
    rounded: Sequence[RoundedCache | None] = [None] * len(paths)
    if form is not None and any(use.bytes_per_token for use in uses):
        rounded = int8_caches(
            paths, dataset, form, threads=threads, provider=provider, reporter=reporter, cancel=cancel
        )
    return [
        replace(
            result,
            language=replace(
                result.language, cache_bytes_per_token=use.bytes_per_token, speed=use.speed, int8_cache=cache
            ),
        )
        if result.language is not None
        else result
        for result, use, cache in zip(results, uses, rounded, strict=True)
    ]


def _with_footprint(
    results: Sequence[VariantResult],
    dataset: DatasetLike,
    *,
    threads: int,
    provider: str,
    reporter: Reporter,
    cancel: CancelToken | None,
) -> list[VariantResult]:
    feed, _ = _first_samples(dataset, 1)
    measured = []
    for done, result in enumerate(results):
        reporter.progress(done, len(results), "models", "Measuring memory")
        try:
            found = footprint_of(Path(result.path), feed, threads=threads, provider=provider, cancel=cancel)
        except MeasureError as error:
            # What was measured before is worth keeping: a second process may need memory there is not.
            reporter.message(error.one_line, Severity.WARNING)
            measured.append(result)
            continue
        measured.append(replace(result, footprint=found, peak_memory_bytes=found.peak_memory_bytes))
    reporter.progress(len(results), len(results), "models", "Measuring memory")
    return measured


def _first_samples(dataset: DatasetLike, batch: int) -> tuple[Feed, int]:
    """A feed of `batch` samples (fewer if there are not that many), and how many it runs."""
    first = next(iter(dataset.batches(max(batch, 1), stop=max(batch, 1))))
    # A fixed-batch model runs its whole batch, filled up or not.
    return first.feed, first.held


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """File names; with the folder where two files have the same."""
    names = [path.name for path in paths]
    return [n if names.count(n) == 1 else f"{p.parent.name}/{n}" for n, p in zip(names, paths, strict=True)]
