"""A learner's step on what ranked groups may bring, within any budget, and on several ranks."""

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from torch import multiprocessing

from executors.errors import DataError
from rl.data.examples import Example, Row
from rl.data.packing import group_tokens
from rl.learner import checkpoint
from rl.learner.learner import Learner, Stage
from rl.learner.optimiser import OptimiserConfig
from rl.losses.objective import Dpo, Grpo, Listwise, Rrhf, RrhfD, Sft
from rl.models.load import end_id, load_tokenizer, pad_id
from rl.models.tiny import build_model, build_tokenizer
from tests.rl.test_learner import some_examples

OBJECTIVES = (RrhfD(margin=2), Rrhf(), Rrhf(length_norm="padded"), Sft(decision_weight=2))


def learner(objective, **options) -> Learner:
    made = Learner(build_model(300, seed=5), pad_id=0, **options)
    made.begin(Stage(name="s", objective=objective, optimiser=OptimiserConfig(kind="adamw", lr=1e-3), steps=4))
    return made


def row(*ids: int, reward: float = 0.0, called: bool = False) -> Row:
    return Row(ids, (True,) * len(ids), reward, called)


def gradient_of_step(made: Learner, examples) -> tuple[dict[str, float], torch.Tensor]:
    """What a step reports, and the gradient that its update is made of."""
    taken: list[torch.Tensor] = []
    update = made.optimiser.step

    def kept(scale: float) -> float:
        taken.append(torch.cat([parameter.grad.flatten().clone() for parameter in made.model.parameters()]))
        return update(scale)

    made.optimiser.step = kept
    metrics = made.step(examples, 0)
    made.optimiser.step = update
    return metrics, taken[0]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_small_budget_takes_the_same_step(objective):
    examples = some_examples(12)
    whole, expected = gradient_of_step(learner(objective), examples)
    small, taken = gradient_of_step(learner(objective, max_tokens=50), examples)
    assert (whole["positions_again"], small["left_out"]) == (0, 0)
    assert small["positions_again"] > small["positions"] / 2
    assert small["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert torch.allclose(taken, expected, atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_padded_candidates_take_the_same_step(objective):
    examples = some_examples(12)
    packed, expected = gradient_of_step(learner(objective), examples)
    padded, taken = gradient_of_step(learner(objective, packing="padded"), examples)
    assert packed["prompts_shared"] > 0.3 and padded["prompts_shared"] == 0.0
    assert packed["positions"] < padded["positions"]
    assert torch.allclose(taken, expected, atol=1e-5)


GROUPS = {
    "one candidate": ((row(5, 6, reward=1.0),), 0),
    "equal rewards": ((row(5, 6, reward=1.0), row(7, reward=1.0, called=True)), 0),
    "an empty response": ((row(5, 6, reward=1.0), row(reward=0.5), row(7)), 1),
    "only an observation": ((row(5, 6, reward=1.0), Row((7,), (False,), 0.5, True)), 1),
    "a response over the budget": ((row(*range(3, 60), reward=1.0), row(5, 6), row(7, reward=0.5)), 1),
    "nothing within the budget": ((row(*range(3, 60), reward=1.0), row(*range(4, 60))), 2),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", GROUPS)
def test_a_step_takes_whatever_a_group_brings(name, objective):
    candidates, left_out = GROUPS[name]
    made = learner(objective, max_tokens=50)
    metrics = made.step([Example("odd", (3, 4), candidates)], 0)
    assert metrics["left_out"] == left_out
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(parameter.isfinite().all() for parameter in made.model.parameters())
    assert made.step_count == 1


def test_an_odd_group_does_not_change_what_others_teach():
    others = some_examples(4)
    odd = [
        Example("long", (3, 4), (row(*range(3, 60), reward=1.0), row(*range(4, 60)))),
        Example("empty", (3, 4), (row(reward=1.0), row(reward=0.0))),
    ]
    for objective in OBJECTIVES:
        alone, expected = gradient_of_step(learner(objective, max_tokens=50), others)
        together, taken = gradient_of_step(learner(objective, max_tokens=50), [odd[0], *others, odd[1]])
        assert together["loss"] == pytest.approx(alone["loss"])
        assert torch.equal(taken, expected)


EVERY = {
    "sft": Sft(decision_weight=8, kl_weight=0.1),
    "rrhf": Rrhf(kl_weight=0.1),
    "rrhf_d": RrhfD(),
    "listwise": Listwise(),
    "listwise by decision": Listwise(score="decision"),
    "dpo": Dpo(),
    "simpo": Dpo(reference_free=True, length_norm=True),
    "grpo": Grpo(),
    "grpo with tis, dr_grpo and kl": Grpo(foreign="tis", normalise="dr_grpo", kl_weight=0.1),
}


def written(made: Learner, version: int) -> list[Example]:
    """Groups of candidates whose writers are the learner as it is, a peer, and somebody who tells nothing."""
    examples = some_examples(6)
    with torch.no_grad():
        scores = made.score(made.lay_out(examples)).logprobs
    told = []
    for number, example in enumerate(examples):
        rows = []
        for place, one in enumerate(example.rows):
            behaviour = tuple(scores[number, place, : len(one.ids)][list(one.mask)].tolist())
            writers = ({"own": True, "version": version, "behaviour": behaviour}, {"behaviour": behaviour}, {})
            rows.append(replace(one, **writers[place % 3]))
        told.append(replace(example, rows=tuple(rows)))
    return told


@pytest.mark.parametrize("name", EVERY)
def test_every_objective_learns_from_candidates_of_several_writers(name):
    objective = EVERY[name]
    made = learner(objective)
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    examples = written(made, version=3)
    first, second = (made.step(examples, step, version=version) for step, version in ((0, 3), (1, 5)))
    assert all(math.isfinite(value) for value in (*first.values(), *second.values()))
    assert any(not torch.equal(old, new) for old, new in zip(before, made.model.parameters(), strict=True))
    assert 0 < first["own"] < first["with_behaviour"] < 1
    assert first["staleness"] == 0 < second["staleness"]
    assert ("reference_kl" in first) == objective.needs_reference
    if objective.needs_reference:
        assert first["reference_kl"] == pytest.approx(0, abs=1e-6) and second["reference_kl"] > 1e-6
    if isinstance(objective, Grpo):
        assert first["on_policy"] == pytest.approx(first["own"]) and first["drift"] == pytest.approx(0, abs=1e-6)
        assert second["on_policy"] == 0 < second["foreign"]  # two versions behind is too old to be clipped


def test_a_reference_is_the_model_of_the_stages_beginning():
    made = learner(Dpo())
    examples = some_examples(6)
    made.step(examples, 0)
    assert made.stage is not None
    made.begin(replace(made.stage, name="next"))
    assert made.step(examples, 0)["reference_kl"] == pytest.approx(0, abs=1e-6)
    made.begin(Stage(name="last", objective=Rrhf(), optimiser=made.stage.optimiser, steps=4))
    assert made.reference is None and "reference_kl" not in made.step(examples, 0)


def test_a_step_tells_what_reading_its_candidates_took():
    example = Example("t", tuple(range(3, 23)), tuple(row(*range(30, 40), reward=float(n)) for n in range(4)))
    made = learner(RrhfD())
    metrics = made.step([example], 0)
    assert made.tokens == metrics["positions"] == 60
    assert metrics["positions_saved"] == pytest.approx(0.5)
    assert (metrics["prompts_shared"], metrics["padding"], metrics["left_out"]) == (0.75, 0.0, 0)


def test_a_step_is_the_same_to_the_last_bit_when_it_is_taken_again():
    for options in ({}, {"max_tokens": 50}):
        one, other = (learner(RrhfD(margin=2), **options) for _ in range(2))
        for made in (one, other):
            made.step(some_examples(12), 0)
        pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
        assert all(torch.equal(left, right) for left, right in pairs)


def take_step(rank: int, world: int, folder: str) -> None:
    """One rank of several: a step for each objective, its gradient left in the folder."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/met", rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )
    for number, objective in enumerate(OBJECTIVES):
        made = learner(objective)
        examples = some_examples(9)
        metrics, taken = gradient_of_step(made, made.share(examples, rank, world))
        torch.save((metrics["loss"], taken), Path(folder) / f"{number}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_that_share_a_step_by_tokens_take_that_of_one(tmp_path):
    examples = some_examples(9)
    shares = [learner(Sft()).share(examples, rank, 2) for rank in range(2)]
    loads = [sum(group_tokens(example, packed=True) for example in part) for part in shares]
    assert max(loads) < 1.15 * min(loads)
    multiprocessing.spawn(take_step, args=(2, str(tmp_path)), nprocs=2)
    for number, objective in enumerate(OBJECTIVES):
        whole, expected = gradient_of_step(learner(objective), examples)
        for rank in range(2):
            loss, taken = torch.load(tmp_path / f"{number}-{rank}.pt")
            assert loss == pytest.approx(whole["loss"], abs=1e-5)
            assert torch.allclose(taken, expected, atol=1e-5)


def test_a_tokenizer_without_an_end_token_is_a_data_error_that_says_where_to_set_it(tmp_path):
    tokenizer = build_tokenizer(["a b c"], vocab_size=300)
    tokenizer.eos_token = None
    checkpoint.save(tmp_path, 0, build_model(300), tokenizer, {"stage": None})
    with pytest.raises(DataError, match=r"names no end token; set eos_token in its tokenizer_config\.json"):
        load_tokenizer(tmp_path / "step-0")


def test_a_tokenizer_without_a_token_for_filling_rows_lends_its_end_token(tmp_path):
    tokenizer = build_tokenizer(["a b c"], vocab_size=300)
    tokenizer.pad_token = None
    checkpoint.save(tmp_path, 0, build_model(300), tokenizer, {"stage": None})
    loaded = load_tokenizer(tmp_path / "step-0")
    assert pad_id(loaded) == end_id(loaded) == 2
    filled = Learner(build_model(300, seed=5), pad_id=pad_id(loaded))
    filled.begin(Stage(name="s", objective=RrhfD(), optimiser=OptimiserConfig(kind="adamw", lr=1e-3), steps=4))
    _, expected = gradient_of_step(learner(RrhfD()), some_examples(12))
    _, taken = gradient_of_step(filled, some_examples(12))
    assert torch.equal(taken, expected)
