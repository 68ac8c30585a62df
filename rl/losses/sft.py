"""Imitation: make the best candidate likely."""

from rl.losses.candidates import Candidates, Term


def sft_loss(candidates: Candidates, decision_weight: float = 0.0) -> Term:
    """Mean negative log-probability per token of each task's best candidate.

    Args:
        candidates: B tasks.
        decision_weight: added to the weight 1 of each candidate's first token, which decides between calling and
            answering; one token of a long call is otherwise a small part of what is imitated.

    Returns:
        The weighted sum over all tokens of the best candidates, and the sum of the weights.
    """
    rows = candidates.best()[:, None, None].expand(-1, 1, candidates.logprobs.shape[-1])
    logprobs = candidates.logprobs.gather(1, rows).squeeze(1)
    weights = candidates.mask.gather(1, rows).squeeze(1).to(logprobs.dtype)
    if decision_weight:
        weights = weights.clone()
        weights[:, 0] = weights[:, 0] * (1 + decision_weight)
    return Term(-(logprobs * weights).sum(), weights.sum())


def sft_loss_as_coded(candidates: Candidates, padded_length: int) -> Term:
    """What RRHF's published script computes: the sum over the best candidates over B times the padded row length.

    So it shrinks with padding (RRHF issue 51). For comparison with published runs only.
    """
    best = candidates.sums().gather(1, candidates.best()[:, None])
    return Term(-best.sum(), best.new_tensor(len(best) * padded_length))
