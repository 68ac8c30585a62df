import pytest
import torch
from torch import nn

from executors.errors import DataError
from rl.learner.reference import Reference


def model() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    made[0].bias.requires_grad_(False)
    return made


def moved(made: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    return made


def test_the_model_is_its_former_self_within_and_itself_again_afterwards():
    made, given = model(), torch.ones(4, 3)
    before = made.eval()(given)
    reference = Reference(made)
    now = moved(made)(given)
    made.train()
    with reference.in_place():
        within = made(given)
        assert not made.training  # and without dropout
    assert torch.equal(within, before)
    assert not within.requires_grad
    assert made.training
    assert torch.equal(made.eval()(given), now)


def test_a_gradient_that_is_taken_afterwards_is_of_the_weights_that_it_was_computed_with():
    made, given = model().eval(), torch.ones(4, 3)
    reference = Reference(made)
    moved(made)
    made(given).sum().backward()
    expected = [p.grad.clone() for p in made.parameters() if p.grad is not None]
    made.zero_grad()
    loss = made(given).sum()
    with reference.in_place():
        made(given)
    loss.backward()
    found = [p.grad for p in made.parameters() if p.grad is not None]
    assert all(torch.equal(left, right) for left, right in zip(expected, found, strict=True))
    assert len(found) == 3


def test_weights_that_are_not_trained_are_not_kept_and_what_is_kept_can_be_saved():
    made, given = model().eval(), torch.ones(4, 3)
    before = made(given)
    saved = {name: value.clone() for name, value in Reference(made).state().items()}
    assert list(saved) == ["0.weight", "2.weight", "2.bias"]
    again = Reference(moved(made))
    again.restore(saved)
    with again.in_place():
        assert torch.equal(made(given), before)


def test_what_another_model_kept_is_refused_with_its_shapes():
    reference = Reference(model())
    with pytest.raises(DataError, match="without the weights that its stage began with"):
        reference.restore(None)
    saved = reference.state()
    with pytest.raises(DataError, match=r"0\.weight has shape \(1, 2\)"):
        reference.restore({**saved, "0.weight": torch.zeros(1, 2)})
    with pytest.raises(DataError, match=r"2\.bias has shape none"):
        reference.restore({name: value for name, value in saved.items() if name != "2.bias"})


def test_an_error_within_leaves_the_model_as_it_was():
    made = moved(model())
    reference = Reference(model())
    reference = Reference(made)
    now = made[0].weight.clone()
    moved(made)
    try:
        with reference.in_place():
            assert torch.equal(made[0].weight, now)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(made[0].weight, now + 1)
