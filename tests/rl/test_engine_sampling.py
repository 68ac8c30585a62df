"""How the engine draws tokens, and what may steer and end a reply."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rl.models.tiny import build_tokenizer
from rl.serving.engine import TransformersPolicy
from rl.serving.sampling import choose, steered, uniform
from rollouts.policy import PolicyUnavailableError
from rollouts.types import Sampling
from tests.rl.decoding import CLOSE, digits_tokenizer, logprobs_of, request, small_llama, together

PROMPT = "12 and 30?\n"
END = 2


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return digits_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer) -> PreTrainedModel:
    return small_llama(len(tokenizer))


@pytest.fixture
def policy(model, tokenizer) -> TransformersPolicy:
    return TransformersPolicy("tiny", model, tokenizer)


class Only:
    """A constraint: at each place one set of tokens, and then the end."""

    def __init__(self, *places: Sequence[int]) -> None:
        self.places = places
        self.asked: list[tuple[int, ...]] = []

    def allowed(self, ids: Sequence[int]) -> Sequence[int] | None:
        self.asked.append(tuple(ids))
        return self.places[len(ids)] if len(ids) < len(self.places) else [END]


def some_logits(size: int, rows: int = 200) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(size)) * 3


@pytest.mark.parametrize("size", [1, 7, 64, 300, 1024])
@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
def test_drawn_tokens_are_those_that_uniform_numbers_fall_on(size, temperature):
    logits, uniforms = some_logits(size), uniform(np.arange(200, dtype=np.uint64), np.arange(200))
    got = choose(logits, [Sampling(temperature=temperature)] * 200, uniforms)
    ends = (logits.double() / temperature).softmax(-1).cumsum(-1)
    expected = (ends <= torch.from_numpy(uniforms)[:, None]).sum(-1)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("size", [300, 2000])
@pytest.mark.parametrize("limits", [{"top_k": 3}, {"top_p": 0.9}, {"top_p": 0.9999}, {"min_p": 0.05}, {"min_p": 1.0}])
def test_drawn_tokens_are_within_their_limits_and_as_likely_as_there(size, limits):
    logits = some_logits(size, 1)
    if "top_p" in limits:
        logits = logits / 8  # so flat that a nucleus has hundreds of tokens
    sampling = Sampling(temperature=1.0, **limits)
    drawn = choose(logits.expand(5000, -1), [sampling] * 5000, (np.arange(5000) + 0.5) / 5000)
    probabilities, order = logits[0].double().softmax(-1).sort(descending=True)
    before = probabilities.cumsum(-1) - probabilities
    kept = (before < sampling.top_p) & (probabilities >= sampling.min_p * probabilities[0])
    kept &= torch.arange(size) < (sampling.top_k or size)
    expected = torch.zeros(size, dtype=torch.float64).scatter(0, order, probabilities * kept)
    shares = drawn.bincount(minlength=size) / 5000
    assert set(drawn.tolist()) <= set(order[kept].tolist())
    assert float((shares - expected / expected.sum()).abs().max()) < 4e-4


def test_each_row_is_drawn_in_its_own_way():
    logits, uniforms = some_logits(50, 40), uniform(np.arange(40, dtype=np.uint64), np.arange(40))
    ways = [
        Sampling(),
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, top_k=5),
        Sampling(temperature=1, top_p=0.8),
    ]
    samplings = [ways[row % 4] for row in range(40)]
    together = choose(logits, samplings, uniforms)
    for row, sampling in enumerate(samplings):
        assert together[row] == choose(logits[row : row + 1], [sampling], uniforms[row : row + 1])[0]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0), Sampling(temperature=1.0, top_p=0.5)])
def test_row_without_numbers_draws_some_token_and_disturbs_nobody(sampling):
    logits = some_logits(300, 3)
    uniforms = np.array([0.2, 0.5, 0.999999])
    expected = choose(logits, [sampling] * 3, uniforms)
    logits[1] = torch.nan
    got = choose(logits, [sampling] * 3, uniforms)
    assert 0 <= got[1] < 300
    assert [got[0], got[2]] == [expected[0], expected[2]]


def test_bias_and_allowed_tokens_steer_their_own_row_alone():
    logits = some_logits(20, 3)
    samplings = [Sampling(), Sampling(logit_bias={3: 100.0, 4: -100.0}), Sampling(logit_bias={5: 1.0})]
    got = steered(logits, samplings, [None, None, np.array([5, 9])])
    assert torch.equal(got[0], logits[0])
    assert got[1, 3] == logits[1, 3] + 100
    assert got[1, 4] == logits[1, 4] - 100
    assert got[2].isfinite().nonzero().flatten().tolist() == [5, 9]
    assert got[2, 5] == logits[2, 5] + 1
    assert steered(logits, [Sampling()] * 3, [None] * 3) is logits


async def test_biased_tokens_are_written_and_keep_their_logprobs(model, tokenizer, policy):
    seven = tokenizer.encode("7")[0]
    replies = await together(
        policy,
        request(PROMPT, session="biased", logit_bias={seven: 1e4}, max_tokens=5),
        request(PROMPT, session="banned", logit_bias={seven: -1e4, END: -1e4}, temperature=5.0, max_tokens=60),
    )
    assert replies[0].text == "77777"
    assert not {seven, END} & set(replies[1].token_ids)
    for reply in replies:
        expected = logprobs_of(model, tokenizer.encode(PROMPT), reply.token_ids)
        assert reply.logprobs == pytest.approx(expected, abs=CLOSE, rel=CLOSE)


async def test_stop_token_ends_a_reply_and_stays_in_it(policy, tokenizer):
    whole = await policy.complete(request(PROMPT, max_tokens=12))
    stop = whole.token_ids[5]
    reply = await policy.complete(request(PROMPT, session="stopped", stop_ids=(stop,), max_tokens=12))
    first = whole.token_ids.index(stop)
    assert reply.finish == "stop"
    assert reply.token_ids == whole.token_ids[: first + 1]
    more = await policy.complete(request(PROMPT, reply, "4\n", session="stopped", max_tokens=5))
    anew = await policy.complete(request(PROMPT, reply, "4\n", session="anew", max_tokens=5))
    assert more.token_ids == anew.token_ids


@pytest.mark.parametrize("stops", [("78", "34"), ("34", "78"), ("234", "9"), ("9", "01234")])
async def test_reply_ends_with_the_first_of_several_stops(tokenizer, policy, stops):
    counting = Only(*([token] for token in tokenizer.encode("0123456789")))
    reply = await policy.complete(request(PROMPT, stop=stops, constraint=counting))
    assert (reply.text, reply.finish) == ("01234", "stop")


async def test_constraint_is_asked_before_each_token_and_obeyed(model, tokenizer, policy):
    digits = [tokenizer.encode(digit)[0] for digit in "0123456789"]
    constraint = Only(digits[3:5], digits, [digits[9]])
    asked = request(PROMPT, session="tied", constraint=constraint, temperature=1.0, seed=3)
    tied, free = await together(policy, asked, request(PROMPT, session="free"))
    assert tied.finish == "end"
    assert tied.text[0] in "34"
    assert tied.text[1] in "0123456789"
    assert tied.text[2:] == "9"
    assert constraint.asked == [tied.token_ids[:count] for count in range(4)]
    assert tied.logprobs == pytest.approx(logprobs_of(model, tokenizer.encode(PROMPT), tied.token_ids), abs=CLOSE)
    assert free.token_ids == (await policy.complete(request(PROMPT, session="alone"))).token_ids


async def test_forced_beginning_is_no_matter_of_the_constraint(tokenizer, policy):
    forced = tokenizer.encode("?0")
    constraint = Only([], [], tokenizer.encode("8"))
    reply = await policy.complete(request(PROMPT, prefix="?0", constraint=constraint))
    assert (reply.text, reply.finish) == ("?08", "end")
    assert reply.mask == (False, False, True, True)
    assert constraint.asked[0] == tuple(forced)


class Broken:
    def allowed(self, ids: Sequence[int]) -> Sequence[int] | None:
        raise KeyError("no such state")


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (
            Only([]),
            r"the constraint of task 'task' allows no token after 0 tokens, and the model has those from 0 to 259",
        ),
        (Only([5], [7, 260]), r"the constraint of task 'task' allows tokens from 7 to 260 after 1 tokens"),
        (Broken(), r"the constraint of task 'task' failed: KeyError: 'no such state'"),
    ],
)
async def test_constraint_that_cannot_be_met_fails_its_own_request(policy, constraint, message):
    free = request(PROMPT, session="free")
    alone = await policy.complete(free)
    tied = asyncio.ensure_future(policy.complete(request(PROMPT, session="tied", constraint=constraint)))
    assert (await policy.complete(free)).token_ids == alone.token_ids
    with pytest.raises(PolicyUnavailableError, match=message):
        await tied


async def test_likeliest_tokens_are_told_where_they_are_asked_for(model, tokenizer, policy):
    three, none = await together(
        policy, request(PROMPT, session="told", top_logprobs=3), request(PROMPT, session="untold", top_logprobs=0)
    )
    assert none.top_logprobs == ()
    assert len(three.top_logprobs) == len(three.token_ids)
    for place, told in enumerate(three.top_logprobs):
        before = tokenizer.encode(PROMPT) + list(three.token_ids[:place])
        logprobs = model(torch.tensor([before])).logits[0, -1].log_softmax(-1)
        assert [token for token, _ in told] == logprobs.topk(3).indices.tolist()
        assert [value for _, value in told] == pytest.approx(logprobs.topk(3).values.tolist(), abs=CLOSE)


async def test_character_that_is_cut_is_replaced_and_no_stop_is_lost():
    tokenizer = build_tokenizer(["ab"], vocab_size=260)
    policy = TransformersPolicy("bytes", small_llama(len(tokenizer)), tokenizer)
    euro = tokenizer.encode("€")
    assert len(euro) == 3
    for count, text in ((2, "\ufffd"), (3, "€")):
        constraint = Only(*([token] for token in euro))
        reply = await policy.complete(request("a", session=str(count), constraint=constraint, max_tokens=count))
        assert (reply.text, reply.finish, reply.token_ids) == (text, "length", tuple(euro[:count]))
    written = [euro[0], *euro, *tokenizer.encode("b")]
    reply = await policy.complete(
        request("a", session="stop", constraint=Only(*([token] for token in written)), stop=("€",))
    )
    assert (reply.text, reply.finish) == ("\ufffd€", "stop")


async def test_reply_that_never_ends_is_cut_where_the_model_reads_no_further(policy):
    reply = await policy.complete(request(PROMPT, max_tokens=10**6, logit_bias={END: -1e4}))
    assert reply.finish == "length"
    assert reply.prompt_tokens + len(reply.token_ids) == 256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "its seed is -1; give one from 0"),
        ({"seed": 1 << 64}, "its seed is 18446744073709551616"),
        ({"max_tokens": 0}, "max_tokens is 0; ask for one token at least"),
        ({"temperature": float("nan")}, "temperature is nan; give a finite number"),
        ({"temperature": float("inf")}, "temperature is inf; give a finite number"),
        ({"top_p": -0.1}, "top_p is -0.1; give a finite number that is not negative"),
        ({"top_k": -1}, "top_k is -1; 0 stands for none"),
        ({"top_logprobs": -1}, "top_logprobs is -1; 0 stands for none"),
        ({"logit_bias": {260: 1.0}}, "logit_bias names token 260; there are those from 0 to 259"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias names token -1"),
        ({"logit_bias": {3: float("nan")}}, "the bias of token 3 is nan; give a number"),
        ({"logit_bias": {3: 1e39}}, "the bias of token 3 is 1e+39; give a number of at most 1e+30"),
    ],
)
async def test_sampling_that_makes_no_sense_fails_its_own_request(policy, fields, message):
    free = request(PROMPT, session="free")
    alone = await policy.complete(free)
    odd = request(PROMPT, session="odd", **fields)
    results = await asyncio.gather(policy.complete(free), policy.complete(odd), return_exceptions=True)
    assert results[0] == alone
    assert isinstance(results[1], PolicyUnavailableError)
    assert str(results[1]).startswith(f"task 'task' cannot be sampled from tiny: {message}")


async def test_token_left_out_by_a_bias_of_minus_infinity_is_never_written(policy):
    whole = await policy.complete(request(PROMPT))
    banned = {token: -float("inf") for token in set(whole.token_ids)}
    for temperature in (0.0, 1.0):
        asked = request(PROMPT, session=str(temperature), logit_bias=banned, temperature=temperature, max_tokens=30)
        assert not banned.keys() & set((await policy.complete(asked)).token_ids)


async def test_tokens_that_the_model_lacks_fail_their_own_request():
    tokenizer = digits_tokenizer()
    model = small_llama(len(tokenizer) - 2)
    policy = TransformersPolicy("small", model, tokenizer)
    text = tokenizer.decode([len(tokenizer) - 1])
    assert tokenizer.encode(text) == [len(tokenizer) - 1]
    asked = (request(PROMPT, session="fine"), request(text), request(PROMPT, session="forced", prefix=text))
    fine, *odd = await asyncio.gather(*map(policy.complete, asked), return_exceptions=True)
    assert fine.token_ids
    for error in odd:
        assert str(error).startswith("task 'task' has token 259 and small those from 0 to 257")


async def test_biases_that_leave_a_constraint_no_token_fail_their_own_request(policy):
    alone = await policy.complete(request(PROMPT, session="alone"))
    banned = {5: -float("inf"), 6: -float("inf")}
    for temperature in (0.0, 1.0):
        tied = request(PROMPT, constraint=Only([5, 6]), logit_bias=banned, temperature=temperature)
        free, failed = await asyncio.gather(
            policy.complete(request(PROMPT, session="free")), policy.complete(tied), return_exceptions=True
        )
        assert free.token_ids == alone.token_ids
        assert str(failed) == "the biases of task 'task' leave no token after 0"


@pytest.mark.parametrize("limits", [{}, {"top_k": 2**70}])
async def test_coldest_temperature_is_greedy(policy, limits):
    greedy = await policy.complete(request(PROMPT, session="greedy"))
    cold = await policy.complete(request(PROMPT, session="cold", temperature=1e-46, **limits))
    assert cold.token_ids == greedy.token_ids


async def test_text_that_no_tokenizer_reads_fails_its_own_request(policy):
    half = "\ud800"
    asked = [request(f"a{half}b"), request(PROMPT, prefix=half), request(PROMPT, stop=(half,)), request(PROMPT)]
    *odd, fine = await asyncio.gather(*map(policy.complete, asked), return_exceptions=True)
    assert fine.token_ids
    for error in odd:
        assert isinstance(error, PolicyUnavailableError)
        assert str(error).startswith("half of a surrogate pair cannot be read")
