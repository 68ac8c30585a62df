import pytest
import torch

from rl.losses.candidates import Candidates
from rl.losses.objective import Rrhf, RrhfD, Sft
from rl.losses.rrhf import rank_accuracy, rrhf_d_loss, rrhf_loss
from rl.losses.sft import sft_loss

NAN = float("nan")


def make(sums, lengths, rewards, called=None) -> Candidates:
    """Candidates whose log-probability is spread evenly over their tokens."""
    width = max(max(row) for row in lengths)
    mask = torch.tensor([[[t < n for t in range(width)] for n in row] for row in lengths])
    logprobs = mask * (torch.tensor(sums) / torch.tensor(lengths).clamp(min=1))[..., None]
    called = torch.zeros(mask.shape[:2], dtype=torch.bool) if called is None else torch.tensor(called)
    return Candidates(logprobs.requires_grad_(), mask, torch.tensor(rewards), called)


PUBLISHED = ([[-2.288106453709433, -7.5624194659969, -6.428419087471981]], [[2, 4, 3]], [[20.0, 5.0, 15.0]])


def test_published_vector_by_the_papers_equations():
    terms = Rrhf().terms(make(*PUBLISHED), padded_length=6)
    assert terms["rank"].value.item() == pytest.approx(0.2522014959914354, abs=1e-6)
    assert terms["sft"].value.item() == pytest.approx(1.144053, abs=1e-6)  # per token; summed, 2.288106


def test_published_vector_as_its_script_computes_it():
    terms = Rrhf(length_norm="padded").terms(make(*PUBLISHED), padded_length=6)
    assert terms["rank"].value.item() == 0.0  # the missing length normalisation hides the mis-ranking
    assert terms["sft"].value.item() == pytest.approx(0.381351, abs=1e-6)


def test_ragged_batch_equals_the_mean_of_its_tasks():
    sums = [[-2.0, -3.0, -1.0], [-4.0, -1.0, 0.0]]
    lengths = [[2, 3, 1], [4, 2, 0]]
    rewards = [[1.0, 0.0, 0.5], [1.0, 0.0, NAN]]
    both = make(sums, lengths, rewards)
    scores = both.sums() / both.lengths().clamp(min=1)
    alone = [rrhf_loss(scores[i : i + 1], both.rewards[i : i + 1]) for i in range(2)]
    assert rrhf_loss(scores, both.rewards).value.item() == pytest.approx(sum(term.value.item() for term in alone) / 2)


def test_pairs_in_order_and_ties_pull_at_nothing():
    scores = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    loss = rrhf_loss(scores, torch.tensor([[2.0, 1.0, 1.0]])).value
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(scores.grad.abs().sum()) == 0.0


def test_padding_changes_no_score():
    narrow = make([[-2.0, -3.0]], [[2, 3]], [[1.0, 0.0]])
    wide = Candidates(
        torch.nn.functional.pad(narrow.logprobs, (0, 5)),
        torch.nn.functional.pad(narrow.mask, (0, 5)),
        narrow.rewards,
        narrow.called,
    )
    for objective in (Rrhf(), RrhfD(), Sft(decision_weight=3)):
        first = {name: float(term.value.detach()) for name, term in objective.terms(narrow, 10).items()}
        second = {name: float(term.value.detach()) for name, term in objective.terms(wide, 15).items()}
        assert first == pytest.approx(second)


def test_a_pair_of_different_modes_is_compared_by_its_first_token_alone():
    logprobs = torch.tensor([[[-0.1, -9.0, -9.0], [-2.0, -0.1, 0.0]]])
    mask = torch.tensor([[[True, True, True], [True, True, False]]])
    rewards, called = torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]])
    assert float(rrhf_d_loss(Candidates(logprobs, mask, rewards, called), margin=1.0).value) == 0.0
    closer = logprobs.clone()
    closer[0, 1, 0] = -0.6  # ahead by 0.5, with 1.0 asked for
    assert float(rrhf_d_loss(Candidates(closer, mask, rewards, called), margin=1.0).value) == pytest.approx(0.5)


def test_a_pair_of_one_mode_is_compared_by_its_whole_log_probability():
    made = make([[-8.0, -4.0]], [[4, 2]], [[1.0, 0.0]], [[True, True]])
    assert float(rrhf_d_loss(made, scale=4.0).value) == pytest.approx(1.0)


def test_the_mean_is_over_pairs_that_are_still_wrong():
    made = make([[-8.0, -4.0, -40.0]], [[4, 2, 4]], [[1.0, 0.0, -1.0]], [[True, True, True]])
    assert float(rrhf_d_loss(made, scale=4.0).value) == pytest.approx(1.0)


def test_decision_weight_weighs_the_first_token():
    logprobs = torch.tensor([[[-3.0, -1.0]]])
    made = Candidates(logprobs, torch.ones(1, 1, 2, dtype=torch.bool), torch.tensor([[1.0]]), torch.zeros(1, 1).bool())
    assert float(sft_loss(made).value) == pytest.approx(2.0)
    assert float(sft_loss(made, decision_weight=8).value) == pytest.approx((9 * 3 + 1) / 10)


def test_imitation_takes_the_best_and_of_ties_the_first():
    made = make([[-1.0, -5.0, -9.0]], [[1, 1, 1]], [[1.0, 2.0, 2.0]])
    assert float(sft_loss(made).value) == pytest.approx(5.0)


def test_rank_accuracy_counts_pairs_with_different_rewards():
    scores = torch.tensor([[-1.0, -2.0, -3.0]])
    assert float(rank_accuracy(scores, torch.tensor([[2.0, 1.0, 3.0]]))) == pytest.approx(1 / 3)
    assert rank_accuracy(scores, torch.tensor([[1.0, 1.0, NAN]])).isnan()
