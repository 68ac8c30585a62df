"""ToolkenGPT's two modes in the one episode loop, with a model whose logits are written by hand."""

import asyncio

import numpy as np
import pytest
import torch

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tools.operations import operation_tools
from rl.data.tasks.virtualhome import END, step_name, step_tool
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_head import ToolHead, fresh_head, merged
from rl.serving.engine import TransformersPolicy
from rl.serving.toolken import HEAD, PlanRule, ToolkenPolicy
from rollouts.episode import play
from rollouts.formats.toolken import ToolkenFormat, spliced
from rollouts.policy import Request, Source
from rollouts.types import Completion, Sampling, Task

CATALOG = Catalog(operation_tools())
NAMES = ("add", "divide", "sqrt")
TASK = Task(id="t", prompt="6 + 7?", tools=NAMES)


class Scripted:
    """An engine that writes what a script says, token by token as the real one would report it."""

    def __init__(self, tokenizer, tokens, script):
        self.name, self.version = "scripted", 0
        self.tokenizer, self.tokens, self.script = tokenizer, tokens, list(script)
        self.asked: list[Request] = []

    async def complete(self, request):
        self.asked.append(request)
        reply = self.script.pop(0)
        if isinstance(reply, str):
            ids = tuple(self.tokenizer.encode(reply))
            return Completion(text=reply, token_ids=ids, logprobs=(0.0,) * len(ids), mask=(True,) * len(ids))
        text, tool, ranked = reply
        ids = (*self.tokenizer.encode(text), self.tokens[tool])
        likely = tuple((self.tokens[name], -float(place)) for place, name in enumerate(ranked))
        return Completion(
            text=f"{text}<|tool:{tool}|>",
            finish="stop",
            token_ids=ids,
            mask=(True,) * len(ids),
            logprobs=(0.0,) * len(ids),
            top_logprobs=((),) * (len(ids) - 1) + (likely,),
        )

    def release(self, session):
        pass


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["Q: 6 + 7?\nA: the sum is 13."], vocab_size=300)


def policy_of(tokenizer, script, **options):
    tokens = {name: len(tokenizer) + number for number, name in enumerate(NAMES)}
    engine = Scripted(tokenizer, tokens, script)
    return ToolkenPolicy(engine, tokens, CATALOG.specs(), ToolkenFormat(), **options), engine


async def test_words_then_a_tool_then_its_arguments_then_words(tokenizer):
    script = [(" the sum is ", "add", NAMES), "6, 7)", "."]
    policy, engine = policy_of(tokenizer, script, bias=2.5)
    episode = await play(TASK, policy, Executor(CATALOG), ToolkenFormat(), max_turns=4)
    assert spliced(episode.turns) == " the sum is 13."
    assert episode.stop == "answer"
    reasoning, arguments, after = engine.asked
    assert reasoning.sampling.logit_bias == dict.fromkeys(policy.tokens.values(), 2.5)
    assert arguments.segments == ("Q: 6 + 7?\nA: the sum is <add>(",)
    assert all(value == -np.inf for value in arguments.sampling.logit_bias.values())
    assert after.segments[0] == "Q: 6 + 7?\nA:" and after.segments[2] == "13"
    assert after.segments[1].token_ids == tuple(tokenizer.encode(" the sum is "))


async def test_after_a_result_no_digit_may_come(tokenizer):
    policy, engine = policy_of(tokenizer, [("", "add", NAMES), "6, 7)", "."])
    await play(TASK, policy, Executor(CATALOG), ToolkenFormat())
    first = engine.asked[2].constraint
    allowed = set(first.allowed([]).tolist())
    assert not allowed & set(tokenizer.encode("0123456789"))
    assert tokenizer.encode(".")[0] in allowed
    assert first.allowed([5]) is None


async def test_a_call_that_fails_makes_way_for_the_next_candidates_in_turn(tokenizer):
    script = [
        ("x ", "divide", ("divide", "sqrt", "add")),
        "6, 0)",
        ("", "sqrt", ()),
        "-1)",
        ("", "add", ()),
        "6, 7)",
        ".",
    ]
    policy, engine = policy_of(tokenizer, script)
    episode = await play(TASK, policy, Executor(CATALOG), ToolkenFormat(), max_turns=9)
    assert [call.tool for call in episode.calls] == ["divide", "sqrt", "add"]
    assert [engine.asked[n].constraint.allowed([]).tolist() for n in (2, 4)] == [
        [policy.tokens["sqrt"]],
        [policy.tokens["add"]],
    ]
    assert spliced(episode.turns) == "x 13."


async def test_when_no_candidate_is_left_the_attempt_ends(tokenizer):
    policy, _ = policy_of(tokenizer, [("x", "divide", ("divide",)), "6, 0)"])
    episode = await play(TASK, policy, Executor(CATALOG), ToolkenFormat(), max_turns=9)
    assert len(episode.turns) == 2 and episode.stop == "answer"


async def test_arguments_that_cannot_be_read_fail_like_a_call(tokenizer):
    policy, engine = policy_of(tokenizer, [("", "divide", ("divide", "add")), "six)", ("", "add", ()), "1, 2)", "."])
    episode = await play(TASK, policy, Executor(CATALOG), ToolkenFormat(), max_turns=9)
    assert episode.malformed and spliced(episode.turns) == "3."
    assert engine.asked[2].constraint.allowed([]).tolist() == [policy.tokens["add"]]


async def test_tools_that_are_not_the_task_s_are_disabled_and_time_ends_calls(tokenizer):
    policy, engine = policy_of(tokenizer, ["."], bias=3.0)
    await play(Task(id="t", prompt="?", tools=("add",)), policy, Executor(CATALOG), ToolkenFormat())
    bias = engine.asked[0].sampling.logit_bias
    assert bias[policy.tokens["add"]] == 3.0
    assert bias[policy.tokens["divide"]] == -np.inf
    late, engine = policy_of(tokenizer, ["."], bias=3.0, max_seconds=0.0)
    await play(TASK, late, Executor(CATALOG), ToolkenFormat())
    assert set(engine.asked[0].sampling.logit_bias.values()) == {-np.inf}


@pytest.fixture(scope="module")
def real(tokenizer):
    model = build_model(len(tokenizer), width=32, layers=2, heads=2, max_length=96, seed=4).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(6.0)
    return model


async def test_an_engine_plays_many_at_once_as_it_plays_each_alone_and_keeps_what_it_read(real, tokenizer):
    head = fresh_head(NAMES, 32, seed=1)
    grown, wide, ids = merged(real, tokenizer, ToolHead(NAMES, head.weight * 8))
    source = Source(name="s", policy="p", sampling=Sampling(max_tokens=8))
    tasks = [Task(id=f"t{n}", prompt=f"{n} + {n + 1}?", tools=NAMES) for n in range(5)]

    async def at_once(together: bool):
        engine = TransformersPolicy("p", grown, wide)
        policy = ToolkenPolicy(engine, ids, CATALOG.specs(), ToolkenFormat(), max_arguments=6, bias=1.0)
        plays = [play(t, policy, Executor(CATALOG), ToolkenFormat(), source=source, max_turns=4) for t in tasks]
        episodes = await asyncio.gather(*plays) if together else [await one for one in plays]
        return [(spliced(e.turns), e.calls) for e in episodes], engine.counts

    together, counts = await at_once(True)
    alone, _ = await at_once(False)
    assert together == alone
    assert any(calls for _, calls in together)
    assert counts.reread == 0


async def test_published_rows_are_taken_and_others_stay(real, tokenizer):
    grown, wide, ids = merged(real, tokenizer, fresh_head(NAMES, 32, seed=1))
    policy = ToolkenPolicy(TransformersPolicy("p", grown, wide), ids, CATALOG.specs(), ToolkenFormat())
    before = grown.get_output_embeddings().weight.detach().clone()
    rows = np.full((3, 32), 0.5, dtype=np.float32)
    policy.load({HEAD: rows}, version=7)
    after = grown.get_output_embeddings().weight.detach()
    assert policy.version == 7
    assert torch.equal(after[list(ids.values())], torch.from_numpy(rows))
    assert torch.equal(after[: len(tokenizer)], before[: len(tokenizer)])


async def test_a_plan_is_written_by_its_rule_and_ends(tokenizer):
    tokens = ["[WALK]", "[FIND]", END, "<desk>", "<bed>"]
    catalog = Catalog([step_tool(token) for token in tokens])
    ids = {step_name(token): len(tokenizer) + number for number, token in enumerate(tokens)}
    prompt = "I am in ['office']. The objects I can manipulate are ['desk'].\nGoal:\nx\nPlan:\n"
    order = [step_name(token) for token in ("[FIND]", "<desk>", "[WALK]", "<desk>", END)]
    engine = Scripted(tokenizer, ids, [("", name, ()) for name in order])
    format = ToolkenFormat("[QUESTION]")
    policy = ToolkenPolicy(engine, ids, catalog.specs(), format, rule=PlanRule(tokens))
    task = Task(id="t", prompt=prompt, tools=catalog.names)
    episode = await play(task, policy, Executor(catalog), format, max_turns=32)
    assert spliced(episode.turns) == "[FIND] <desk>\n[WALK] <desk>\n[END]"
    allowed = [set(asked.constraint.allowed([]).tolist()) for asked in engine.asked]
    verbs = {ids[step_name(token)] for token in tokens[:3]}
    assert allowed[0] == verbs
    assert allowed[1] == {ids["object_desk"]}
    assert allowed[2] == verbs - {ids["verb_FIND"]}
    assert allowed[4] == verbs
