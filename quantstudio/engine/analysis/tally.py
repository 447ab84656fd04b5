"""The effects of all batches so far, from this run or an earlier one, as layer sensitivities."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from quantstudio.core.results import LayerSensitivity
from quantstudio.engine.analysis.classes import SampleClasses, sample_classes
from quantstudio.engine.analysis.divergence import Array, Scores
from quantstudio.engine.analysis.fisher import PassMemory
from quantstudio.engine.analysis.precisions import Trial
from quantstudio.engine.analysis.sensitivity_job import SensitivityJob, layer_sensitivity

Effects = Mapping[str, Mapping[str, Scores]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one pass over the samples found.

    Attributes:
        layers: By name.
        unreachable: Layers no gradient reaches.
        scores: Class scores, [N, C]; None for outputs of another form.
        classes: Class of each sample; None where there are none.
    """

    layers: dict[str, LayerSensitivity]
    unreachable: set[str] = field(default_factory=set)
    scores: Array | None = None
    classes: SampleClasses | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BatchRecord:
    """What is known of one batch.

    Attributes:
        count: Its samples; 0 where nothing is known.
        effects: By precision and layer, one per sample; a layer that could have a precision and is not there
            has no gradient.
        memory: What it leaves to the batches behind it; None where nothing is known.
        scores: Class scores, [count, C]; None for outputs of another form.
    """

    count: int = 0
    effects: Effects = field(default_factory=dict)
    memory: PassMemory | None = None
    scores: Array | None = None

    def with_more(self, other: BatchRecord) -> BatchRecord:
        """This and the precisions another run of the same batch found."""
        return replace(other, effects={**self.effects, **other.effects})


class KeptBatches:
    """Records of batches among a job's entries.

    Args:
        job: Whose entries.
        method: First word of every key.
    """

    def __init__(self, job: SensitivityJob, method: str) -> None:
        self._job = job
        self._method = method

    def batch_size(self) -> int | None:
        """Samples a batch in earlier runs; None where there were none."""
        found = self._job.entries.get(self._method, "plan")
        return int(found["size"]) if found is not None else None

    def keep_batch_size(self, size: int) -> None:
        """Every run must use the same."""
        self._job.entries.put({(self._method, "plan"): {"size": np.array(size)}})

    def sqnr(self) -> dict[str, float] | None:
        """SQNR in dB by layer, for the job's reference; None where it is not known."""
        found = self._job.entries.get(*self._sqnr_key())
        if found is None:
            return None
        return dict(zip(found["layers"].tolist(), found["sqnr_db"].tolist(), strict=True))

    def keep_sqnr(self, sqnr: Mapping[str, float]) -> None:
        """Keep it for the job's reference."""
        names, values = np.array(list(sqnr), dtype=np.str_), np.array(list(sqnr.values()), dtype=np.float64)
        self._job.entries.put({self._sqnr_key(): {"layers": names, "sqnr_db": values}})

    def batch(self, index: int) -> BatchRecord:
        """What is known of a batch."""
        found = self._job.entries.get(self._method, "batch", str(index))
        if found is None:
            return BatchRecord()
        effects: dict[str, dict[str, Scores]] = {}
        seen: dict[str, tuple[float, float]] = {}
        for name, one in self._job.trials.items():
            kept = self._job.entries.get(*self._key(one, index))
            if kept is None:
                continue
            effects[name] = dict(
                zip(kept["layers"].tolist(), kept["effects"].astype(np.float64), strict=True)
            )
            seen.update(
                (tensor, (float(low), float(high)))
                for tensor, (low, high) in zip(kept["tensors"].tolist(), kept["ends"], strict=True)
            )
        memory = PassMemory(str(found["signs"]), found["curvatures"].astype(np.float64), seen)
        return BatchRecord(int(found["count"]), effects, memory, found.get("scores"))

    def keep(self, index: int, record: BatchRecord, trials: Collection[Trial]) -> None:
        """Keep what a run found out about a batch, all of it or nothing."""
        memory = record.memory
        assert memory is not None
        state: dict[str, Array] = {
            "count": np.array(record.count),
            "signs": np.array(memory.signs),
            "curvatures": memory.curvatures,
        }
        if record.scores is not None:
            state["scores"] = record.scores
        entries: dict[tuple[str, ...], dict[str, Array]] = {(self._method, "batch", str(index)): state}
        for one in trials:
            effects = record.effects[one.name]
            seen = memory.seen_ranges if one.activations is not None else {}
            entries[self._key(one, index)] = {
                "layers": np.array(list(effects), dtype=np.str_),
                "effects": np.array(list(effects.values()), dtype=np.float64),
                "tensors": np.array(list(seen), dtype=np.str_),
                "ends": np.array(list(seen.values()), dtype=np.float64).reshape(-1, 2),
            }
        self._job.entries.put(entries)

    def _key(self, one: Trial, index: int) -> tuple[str, ...]:
        return (self._method, self._job.key_of(one), str(index))

    def _sqnr_key(self) -> tuple[str, ...]:
        # Layers that cannot have the reference are headed by the first precision they can have.
        asked = [self._job.key_of(self._job.trials[name]) for name in self._job.trials]
        reference = self._job.key_of(self._job.trials[self._job.reference])
        return (self._method, "sqnr", json.dumps([reference, asked]))


class Tally:
    """Batch after batch, as layer sensitivities.

    Attributes:
        sqnr: SQNR of each layer's own output, dB.
        samples: Samples so far.
    """

    def __init__(self, job: SensitivityJob, sqnr: Mapping[str, float]) -> None:
        self._job = job
        self._effects: dict[str, dict[str, list[Scores]]] = {layer.name: {} for layer in job.layers}
        self._lost: set[str] = set()
        self._scores: list[Array] = []
        self._possible = {layer.name: job.trials_of(layer) for layer in job.layers}
        self.sqnr = dict(sqnr)
        self.samples = 0

    def add(self, batch: BatchRecord) -> None:
        """Count one batch."""
        self.samples += batch.count
        for layer, trials in self._possible.items():
            for name in trials:
                values = batch.effects[name].get(layer)
                if values is None:
                    self._lost.add(layer)
                else:
                    self._effects[layer].setdefault(name, []).append(values)
        if batch.scores is not None:
            self._scores.append(batch.scores)

    def layers(self) -> list[LayerSensitivity]:
        """Every layer with a gradient, in execution order."""
        found = []
        classes = self._classes()
        for layer in self._job.layers:
            if layer.name in self._lost:
                continue
            joined = {name: np.concatenate(parts) for name, parts in self._effects[layer.name].items()}
            headline = self._job.headline(joined)
            sqnr = self.sqnr.get(layer.name, np.nan)
            found.append(layer_sensitivity(layer, joined, headline, sqnr, "fisher", classes=classes))
        return found

    def estimate(self) -> Estimate:
        """Over all batches so far."""
        layers = {layer.name: layer for layer in self.layers()}
        return Estimate(layers, set(self._lost), self._joined_scores(), self._classes())

    def _joined_scores(self) -> Array | None:
        return np.concatenate(self._scores) if self._scores else None

    def _classes(self) -> SampleClasses | None:
        return sample_classes(self._job.dataset, self._job.objective, self._joined_scores())
