"""Why a transform is proposed, in one sentence."""

from __future__ import annotations

from collections.abc import Callable

from quantstudio.core.diagnosis import Ground
from quantstudio.core.figures import number, percent
from quantstudio.engine.doctor.proposal import Proposal


def reason_of(proposal: Proposal) -> str:
    """Why a transform is proposed, with how the next best did."""
    best = proposal.best
    rest = [one for one in proposal.trials if one.transform != best.transform]
    runner_up = rest[0] if rest else None
    write: Callable[[float], str]
    match proposal.ground:
        case Ground.LABELS:
            write = (lambda v: f"R² {number(v, 3)}") if proposal.is_regression else (lambda v: percent(v, 1))
            text = f"Best of {len(proposal.trials)} tried on labelled samples: {write(best.score)}"
        case Ground.CONFIDENCE:
            write = lambda v: f"{number(v, 2)} nats"  # noqa: E731
            text = (
                "Best of those tried without labels: the answers are sure and differ from sample to sample "
                f"({write(best.score)} of mutual information)"
            )
        case Ground.STATISTICS:
            write = lambda v: f"{number(-v, 3)} nats"  # noqa: E731
            text = (
                "What reaches the batch normalizations is what they remember of the training data "
                f"({write(best.score)} apart)"
            )
        case Ground.CONVENTION:
            return (
                "The usual one for such numbers. Nothing was tried: without labels this network gives "
                "nothing to judge a transform by"
            )
        case Ground.NOTHING_TO_CHOOSE:
            return "The network takes the numbers as they are stored"
    if runner_up is None:
        return text
    equal = sum(1 for one in rest if write(one.score) == write(best.score))
    if equal:
        others = f"{equal} others do" if equal > 1 else f"{runner_up.title} does"
        return f"{text}; {others} as well, and this is the most usual"
    return f"{text}; next is {runner_up.title} with {write(runner_up.score)}"
