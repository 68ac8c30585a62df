import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

from executors.catalog import Catalog
from executors.errors import DataError
from executors.tools.calculator import calculator
from executors.types import MalformedCall, Observation, ToolCall
from rewards.selectivity import LIVE
from rewards.types import Candidate, RankedGroup, Reward
from rl.data.batch import PADDED, collate
from rl.data.examples import Encoder, Example, Row
from rl.data.packing import Layout
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Learner, Stage, weights_of
from rl.learner.optimiser import OptimiserConfig
from rl.learner.work import epochs
from rl.losses.objective import Rrhf, RrhfD, Sft
from rl.models.load import HuggingFaceModel, build_tokenizer_for, build_weights, end_id, load_model, load_tokenizer
from rl.models.pieces import fingerprint
from rl.models.tiny import build_model, build_tokenizer
from rl.serving.engine import TransformersPolicy
from rollouts.formats.inline import InlineFormat
from rollouts.policy import Request
from rollouts.types import Completion, Episode, Sampling, Task, Turn

FORMAT = InlineFormat()
SPECS = {spec.name: spec for spec in Catalog([calculator]).specs()}
TASK = Task(id="t", prompt="What is 6 times 7?", answer="42", tools=("calculator",))


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([TASK.prompt], markers=FORMAT.markers(list(SPECS.values())), vocab_size=300)


def episode(*turns: Turn, source="s") -> Episode:
    return Episode(task_id="t", source=source, policy="p", version=0, turns=turns, answer="42", stop="answer")


def called(expression="6*7", result="42", answer="Answer: 42", source="s") -> Episode:
    call = Turn(
        Completion(text=f"calculator({expression})->", finish="stop"),
        (ToolCall("calculator", {"expression": expression}),),
        (Observation(result),),
    )
    return episode(call, Turn(Completion(text=answer)), source=source)


def direct(text="Answer: 42", source="s", **fields) -> Episode:
    return episode(Turn(Completion(text=text, **fields)), source=source)


def ranked(*pairs) -> RankedGroup:
    return RankedGroup(TASK, tuple(Candidate(made, Reward(reward)) for made, reward in pairs))


def encoder(tokenizer, max_tokens=128) -> Encoder:
    return Encoder(tokenizer, FORMAT, SPECS, max_tokens=max_tokens)


def some_examples(count=6, seed=0) -> list[Example]:
    generator = np.random.default_rng(seed)

    def row(reward: float) -> Row:
        size = int(generator.integers(1, 12))
        ids = tuple(int(i) for i in generator.integers(3, 290, size))
        mask = tuple(i != 1 or size < 3 for i in range(size))
        return Row(ids, mask, reward, bool(generator.integers(2)))

    return [
        Example(
            f"t{i}",
            tuple(int(x) for x in generator.integers(3, 290, generator.integers(2, 9))),
            tuple(row(float(reward)) for reward in range(generator.integers(1, 5))),
        )
        for i in range(count)
    ]


def gradients(learner: Learner, examples, layout: Layout, objective) -> tuple[float, list[torch.Tensor]]:
    learner.model.zero_grad()
    batch = collate(examples, 0, layout)
    loss = sum(term.value for term in objective.terms(learner.score(batch), batch.padded_length).values())
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in learner.model.parameters()]


@pytest.mark.parametrize("objective", [Sft(), Rrhf(), RrhfD(), Rrhf(length_norm="padded")])
def test_the_layout_of_a_batch_changes_neither_loss_nor_gradient(objective):
    learner = Learner(build_model(300), pad_id=0)
    examples = some_examples()
    one, first = gradients(learner, examples, PADDED, objective)
    many, second = gradients(learner, examples, Layout(packed=True, pass_tokens=20), objective)
    assert one == pytest.approx(many, abs=1e-5)
    for left, right in zip(first, second, strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def test_scores_are_the_models_own_log_probabilities():
    learner = Learner(build_model(300).eval(), pad_id=0)
    example = some_examples(1)[0]
    row = example.rows[0]
    ids = torch.tensor([example.prompt + row.ids])
    with torch.no_grad():
        logprobs = learner.model(input_ids=ids).logits.log_softmax(-1)
        expected = [logprobs[0, len(example.prompt) + i - 1, token] for i, token in enumerate(row.ids)]
        scored = learner.score(collate([example], 0)).logprobs[0, 0, : len(row.ids)]
    assert torch.allclose(scored, torch.stack(expected) * torch.tensor(row.mask), atol=1e-5)


def test_observations_are_never_trained_on(tokenizer):
    example = encoder(tokenizer).example(ranked((called(), 1.0)))
    row = example.rows[0]
    seen = tokenizer.decode([i for i, own in zip(row.ids, row.mask, strict=True) if not own])
    own = tokenizer.decode([i for i, own in zip(row.ids, row.mask, strict=True) if own])
    assert seen == "42\n"
    assert own == "calculator(6*7)->Answer: 42<end>"


def test_sampled_ids_are_taken_as_they_are_and_never_tokenised_again(tokenizer):
    spelled = tuple(tokenizer.convert_tokens_to_ids(list("An")))  # not how the tokenizer would write it
    made = direct("An", token_ids=spelled, mask=(True, True), logprobs=(-1.0, -2.0), tokenizer=fingerprint(tokenizer))
    row = encoder(tokenizer).example(ranked((made, 1.0))).rows[0]
    assert row.ids == spelled
    assert row.behaviour == (-1.0, -2.0)


def test_another_tokenizers_ids_are_not_taken_for_ours(tokenizer):
    made = direct("Answer: 42", token_ids=(5, 6), mask=(True, True), logprobs=(-1.0, -2.0), tokenizer="other")
    row = encoder(tokenizer).example(ranked((made, 1.0))).rows[0]
    assert tokenizer.decode(row.ids) == "Answer: 42<end>"
    assert row.behaviour == ()


def test_equal_candidates_are_merged_and_keep_their_sources(tokenizer):
    example = encoder(tokenizer).example(
        ranked((direct(source="a"), 1.0), (called(source="b"), 0.9), (direct(source="c"), 0.8))
    )
    assert [row.sources for row in example.rows] == [("a", "c"), ("b",)]
    assert example.rows[0].reward == 1.0


def sampled(tokenizer, logprobs=(), **fields) -> Episode:
    ids = (*tokenizer.encode("Answer: 42", add_special_tokens=False), end_id(tokenizer))
    turn = Turn(
        Completion(
            text="Answer: 42",
            token_ids=ids,
            mask=(True,) * len(ids),
            logprobs=tuple(logprobs) * len(ids),
            tokenizer=fingerprint(tokenizer),
        )
    )
    return replace(episode(turn), **fields)


def test_only_what_the_trained_policy_wrote_unforced_is_its_own(tokenizer):
    made = [
        sampled(tokenizer, policy=LIVE, version=4),
        sampled(tokenizer, policy=LIVE, version=4, force="direct"),
        sampled(tokenizer, policy="peer", version=9),
    ]
    rows = [encoder(tokenizer).row(Candidate(one, Reward(1.0))) for one in made]
    assert [(row.own, row.version) for row in rows] == [(True, 4), (False, 4), (False, None)]


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_candidates_the_policys_own_log_probabilities_are_kept(tokenizer, turned):
    own = sampled(tokenizer, (-0.5,), policy=LIVE, version=2, source="own")
    silent, foreign = direct(source="gold"), sampled(tokenizer, (-3.0,), policy="peer", source="peer")
    made = [(silent, 1.0), (foreign, 0.9), (own, 0.8)]
    (row,) = encoder(tokenizer).example(ranked(*(made[::-1] if turned else made))).rows
    assert (row.own, row.version, set(row.behaviour), set(row.sources)) == (True, 2, {-0.5}, {"gold", "peer", "own"})
    (row,) = encoder(tokenizer).example(ranked(*(made[:2][::-1] if turned else made[:2]))).rows
    assert (row.own, row.version, set(row.behaviour)) == (False, None, {-3.0})


def test_of_two_equal_attempts_of_the_policy_the_newer_is_kept(tokenizer):
    old, new = (sampled(tokenizer, (-float(v),), policy=LIVE, version=v) for v in (1, 2))
    for pair in ((old, new), (new, old)):
        (row,) = encoder(tokenizer).example(ranked(*((one, 1.0) for one in pair))).rows
        assert (row.version, set(row.behaviour)) == (2, {-2.0})


def test_candidates_over_the_limit_are_left_out_and_counted(tokenizer):
    made = encoder(tokenizer, max_tokens=16)
    assert made.examples([ranked((called("6*7" * 20), 1.0))]) == []
    assert made.too_long == 1


def test_a_malformed_candidate_keeps_its_own_words(tokenizer):
    turn = Turn(Completion(text="calculator(6*7"), (MalformedCall("calculator(6*7", "cut"),), (Observation("cut"),))
    row = encoder(tokenizer).example(ranked((episode(turn), 0.0))).rows[0]
    assert (tokenizer.decode(row.ids), row.called) == ("calculator(6*7<end>", True)


def stage(steps=6, objective=None) -> Stage:
    return Stage(name="s", objective=objective or RrhfD(), optimiser=OptimiserConfig(lr=1e-3), steps=steps)


def test_learning_makes_the_better_candidate_the_likelier():
    learner = Learner(build_model(300, seed=1), pad_id=0)
    examples = [Example("t", (5, 6), (Row((7, 8), (True, True), 1.0, True), Row((9,), (True,), 0.0, False)))]
    learner.begin(stage(steps=30))
    first = learner.step(examples, 0)
    for step in range(1, 30):
        last = learner.step(examples, step)
    assert last["loss"] < first["loss"] / 3
    assert last["rank_accuracy"] == 1.0


def test_a_restored_learner_goes_on_exactly_where_it_was(tmp_path):
    batches = list(epochs(some_examples(20), 4, 6, seed=0))

    def run(learner, start, end):
        return [learner.step(batches[i], i)["loss"] for i in range(start, end)]

    whole = Learner(build_model(300, seed=2), pad_id=0)
    whole.begin(stage())
    expected = run(whole, 0, 6)

    first = Learner(build_model(300, seed=2), pad_id=0)
    first.begin(stage())
    run(first, 0, 3)
    tokenizer = build_tokenizer(["a"], vocab_size=300)
    path = checkpoint.save(tmp_path, 3, first.model, tokenizer, first.state())
    second = Learner(load_model(path), pad_id=0)
    second.restore(checkpoint.load_state(path), stage())
    assert run(second, 3, 6) == expected[3:]
    for left, right in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_checkpoint_is_a_hugging_face_model(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = build_model(300), build_tokenizer(["a b"], vocab_size=300)
    path = checkpoint.save(tmp_path, 7, model, tokenizer, {"stage": None})
    loaded = AutoModelForCausalLM.from_pretrained(path)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert AutoTokenizer.from_pretrained(path).encode("b a") == tokenizer.encode("b a")
    assert (path / "model.safetensors").is_file()


def test_published_weights_are_copied_into_a_policy(tokenizer):
    model, other = build_model(len(tokenizer), seed=3), build_model(len(tokenizer), seed=4)
    policy = TransformersPolicy("live", other, tokenizer)
    weights = Learner(model, pad_id=0).weights()
    policy.load(weights, 5)
    weights["model.norm.weight"][:] = 99
    assert policy.version == 5
    assert other.model.norm.weight.max().item() < 99
    request = Request(task=TASK, segments=("What is",), session="s", sampling=Sampling(max_tokens=4))
    fresh = asyncio.run(TransformersPolicy("x", model, tokenizer).complete(request))
    assert asyncio.run(policy.complete(request)).token_ids == fresh.token_ids


def test_every_example_comes_once_before_any_comes_again():
    batches = list(epochs(list(range(10)), 4, 5, seed=1))
    seen = [x for batch in batches for x in batch]
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert batches == list(epochs(list(range(10)), 4, 5, seed=1)) != list(epochs(list(range(10)), 4, 5, seed=2))


def test_a_fit_alone_is_not_done_twice(tmp_path, tokenizer):
    start = checkpoint.save(tmp_path, 0, build_model(len(tokenizer)), tokenizer, {"stage": None})
    job = AloneJob(
        start=str(start),
        folder=str(tmp_path / "peer"),
        examples=tuple(encoder(tokenizer).examples([ranked((called(), 1.0)), ranked((direct(), 1.0))])),
        stage=stage(3, Sft()),
        batch_size=2,
        seed=0,
    )
    first = fit_alone(job)
    assert fit_alone(job) == first
    assert load_tokenizer(tmp_path / "peer" / "step-3").eos_token == "<end>"


def test_a_rank_without_a_share_takes_part_without_a_gradient():
    learner = Learner(build_model(300), pad_id=0)
    for objective in (Sft(), Rrhf(), RrhfD(), Rrhf(length_norm="padded")):
        terms = objective.terms(learner.score(collate([], 0)), 1)
        assert all(float(term.total) == 0 for term in terms.values())
        assert all(term.count is None or float(term.count) == 0 for term in terms.values())


def test_muon_moves_hidden_matrices_and_adamw_the_rest():
    learner = Learner(build_model(300), pad_id=0)
    learner.begin(stage())
    muon, adamw = (part for part, _ in learner.optimiser._parts)
    assert isinstance(muon, torch.optim.Muon)
    assert {tuple(p.shape) for p in adamw.param_groups[0]["params"]} == {(300, 96), (96,)}
    assert len(muon.param_groups[0]["params"]) == 14


def test_no_example_stands_twice_in_a_batch_where_an_epoch_ends():
    batches = list(epochs(list(range(100)), 64, 25, seed=0))
    assert all(len(set(batch)) == 64 for batch in batches)
    seen = [x for batch in batches for x in batch]
    assert all(sorted(seen[start : start + 100]) == list(range(100)) for start in range(0, 1600, 100))


def test_a_checkpoint_that_a_crash_left_half_is_not_taken(tmp_path):
    tokenizer = build_tokenizer(["a"], vocab_size=300)
    checkpoint.save(tmp_path, 3, build_model(300), tokenizer, {"stage": None})
    half = checkpoint.save(tmp_path, 7, build_model(300), tokenizer, {"stage": None})
    (half / checkpoint.STATE).unlink()
    assert checkpoint.newest(tmp_path) == 3
    checkpoint.save(tmp_path, 7, build_model(300), tokenizer, {"stage": None})
    assert checkpoint.newest(tmp_path) == 7


def test_a_checkpoint_that_was_damaged_is_passed_over_and_named(tmp_path):
    tokenizer = build_tokenizer(["a"], vocab_size=300)
    checkpoint.save(tmp_path, 3, build_model(300), tokenizer, {"stage": None})
    path = checkpoint.save(tmp_path, 7, build_model(300), tokenizer, {"stage": None})
    weights = bytearray((path / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (path / "model.safetensors").write_bytes(weights)
    assert checkpoint.problem(path) == "model.safetensors is not what was saved"
    assert checkpoint.newest(tmp_path) == 3
    (tmp_path / ".step-9.123").mkdir()
    checkpoint.sweep(tmp_path)
    assert checkpoint.steps(tmp_path) == [3, 7] and not list(tmp_path.glob(".step-*"))


def test_a_hugging_face_directory_is_a_model_to_start_from(tmp_path, tokenizer):
    path = checkpoint.save(tmp_path, 0, build_model(len(tokenizer), seed=9), tokenizer, {"stage": None})
    config = HuggingFaceModel(path=str(path), max_length=64)
    again = build_tokenizer_for(config, ["other texts"], ["other markers"])
    assert fingerprint(again) == fingerprint(tokenizer)
    weights = weights_of(build_weights(config, again, seed=1))
    for name, value in weights_of(build_model(len(tokenizer), seed=9)).items():
        assert np.array_equal(value, weights[name])


def test_a_directory_without_a_model_is_a_data_error_that_says_what_is_there(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"is not a model directory: it has no config.json \(there is notes.txt\)"):
        load_model(tmp_path)


def test_nothing_to_learn_from_is_told_and_not_waited_for():
    with pytest.raises(DataError, match="nothing to learn from"):
        next(epochs([], 4, 6, seed=0))
