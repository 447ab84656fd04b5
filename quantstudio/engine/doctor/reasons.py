"""Why a transform is proposed, in one sentence."""

from __future__ import annotations

from quantstudio.core.diagnosis import Ground
from quantstudio.core.figures import number, percent
from quantstudio.engine.doctor.proposal import Proposal


def reason_of(proposal: Proposal) -> str:
    """Why a transform is proposed, with how the next best did."""
    best = proposal.best
    rest = [one for one in proposal.trials if one.transform != best.transform]
    runner_up = rest[0] if rest else None
    match proposal.ground:
        case Ground.LABELS:
            text = (
                f"Best of {len(proposal.trials)} tried on labelled samples: "
                f"{_score_text(proposal, best.score)}"
            )
        case Ground.CONFIDENCE:
            text = (
                "Best of those tried without labels: the answers are sure and differ from sample to sample "
                f"({_score_text(proposal, best.score)} of mutual information)"
            )
        case Ground.STATISTICS:
            text = (
                "What reaches the batch normalizations is what they remember of the training data "
                f"({_score_text(proposal, best.score)} apart)"
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
    equal = sum(1 for one in rest if _score_text(proposal, one.score) == _score_text(proposal, best.score))
    if equal:
        others = f"{equal} others do" if equal > 1 else f"{runner_up.title} does"
        return f"{text}; {others} as well, and this is the most usual"
    return f"{text}; next is {runner_up.title} with {_score_text(proposal, runner_up.score)}"


def _score_text(proposal: Proposal, score: float) -> str:
    match proposal.ground:
        case Ground.CONFIDENCE:
            return f"{number(score, 2)} nats"
        case Ground.STATISTICS:
            return f"{number(-score, 3)} nats"
        case _:
            return f"R² {number(score, 3)}" if proposal.is_regression else percent(score, 1)
