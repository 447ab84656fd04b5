"""What tests of mistakes on the command line share: a network, its data, and what lay there before."""

from __future__ import annotations

from collections.abc import Callable

from quantstudio.core.samples import sample

SAMPLE = sample("digits_resnet")
NET, TRAIN = str(SAMPLE.model), str(SAMPLE.train)
DATA = ["--data", TRAIN, "--transform", SAMPLE.transform]
OLD = b"what was here before"

Refused = Callable[..., str]
