"""What a network is trained for: labels, the answers of another network, or what the user says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.core.errors import MeasureError, TrustRequiredError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.data.factory import callable_from
from quantstudio.engine.evaluation.outputs import Meaning
from quantstudio.engine.evaluation.reading import Kind, Reading

Tensor = torch.Tensor
_SMALLEST = 1e-12


class LabelLoss:
    """How far outputs are from the labels, in nats; None from `label_loss` where labels are no targets.

    Args:
        output: The output they are compared with, or the tensor its scores come from.
        kind: "classes", "decisions" or "targets".
        class_axis: Axis of the classes.
        is_probability: Whether scores are probabilities.
        variance: Of the labels, for targets.
    """

    def __init__(
        self,
        output: str,
        kind: str,
        *,
        class_axis: int = -1,
        is_probability: bool = False,
        variance: float = 1.0,
    ) -> None:
        self.output, self._kind = output, kind
        self._axis, self._is_probability, self._variance = class_axis, is_probability, variance

    def value(self, found: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Of one batch, averaged."""
        scores = found[self.output].float()
        if self._kind == "targets":
            return F.mse_loss(scores.reshape(labels.shape), labels.float()) / (2 * self._variance)
        if self._kind == "decisions":
            wanted = labels.float().reshape(scores.shape)
            if self._is_probability:
                return F.binary_cross_entropy(scores.clamp(0, 1), wanted)
            return F.binary_cross_entropy_with_logits(scores, wanted)
        if self._is_probability:
            scores = scores.clamp_min(_SMALLEST).log()
        scores = scores.movedim(self._axis, -1)
        if scores.ndim - 1 != labels.ndim:
            scores = scores.reshape(*labels.shape, -1)
        return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1))

    def right(self, found: Mapping[str, Tensor], labels: Tensor) -> float | None:
        """Share of the answers that are the labels; None where there are no classes."""
        if self._kind != "classes":
            return None
        answers = found[self.output].movedim(self._axis, -1).argmax(-1)
        return float((answers.reshape(labels.shape) == labels).float().mean())


def label_loss(reading: Reading, dataset: Dataset, tensor: str, *, is_probability: bool) -> LabelLoss | None:
    """The loss of the labels of a data set, or None: it has none, or they are no targets of these outputs.

    Args:
        reading: How the outputs are read.
        dataset: The data.
        tensor: What holds the scores of the judged output.
        is_probability: Whether they are probabilities there.
    """
    labels, form = dataset.labels, reading.form
    if dataset.next_tokens is not None and reading.foretells:
        return LabelLoss(tensor, "classes", is_probability=is_probability)
    if labels is None:
        return None
    is_whole = np.issubdtype(labels.dtype, np.integer)
    if reading.kind is Kind.DECISIONS and not is_whole:
        return LabelLoss(tensor, "decisions", is_probability=is_probability)
    if reading.kind is Kind.TARGETS:
        return LabelLoss(tensor, "targets", variance=max(float(np.var(labels)), _SMALLEST))
    if form is None or form.meaning is not Meaning.CLASSES or not is_whole:
        return None
    if form.binary:
        return LabelLoss(tensor, "decisions", is_probability=is_probability)
    return LabelLoss(tensor, "classes", class_axis=1 if form.classes else -1, is_probability=is_probability)


Own = Callable[[Mapping[str, Tensor], Tensor | None], Any]


def own_loss(name: str, *, trusted: bool) -> Own | None:
    """The user's loss, `module:callable`; None for an empty name.

    Raises:
        TrustRequiredError: not trusted.
        DataError: it cannot be imported.
    """
    if not name:
        return None
    if not trusted:
        raise TrustRequiredError(
            "this loss is a program, and using it runs its code",
            where=name,
            hint=Hint("If you know where it comes from, agree to run it", HintAction.TRUST_DATA),
        )
    return callable_from(name)


def own_value(loss: Own, name: str, found: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
    """What the user's loss says of a batch.

    Raises:
        MeasureError: it fails, or gives no single number that gradients go through.
    """
    try:
        value = loss(found, labels)
    except Exception as error:
        raise MeasureError(f"the loss failed: {type(error).__name__}: {error}", where=name) from error
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.is_floating_point():
        raise MeasureError(
            f"the loss gives {_described(value)}, not one number",
            where=name,
            hint="Return a tensor with one element, made of the outputs by torch",
        )
    if torch.is_grad_enabled() and not value.requires_grad:
        raise MeasureError(
            "the loss does not hang on the outputs",
            where=name,
            hint="Make it of the tensors it is given, by torch alone",
        )
    return value.reshape(())


def _described(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return f"a {type(value).__name__}"
