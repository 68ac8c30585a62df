"""Any number of sources in one group, and how a config names the policies behind them."""

import asyncio
from pathlib import Path

import pytest
import torch
from fastapi.responses import JSONResponse

from executors.catalog import Catalog
from executors.endpoint import Endpoint
from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.tools.calculator import calculator
from executors.types import ToolCall
from rewards.ranking import WeightedSum
from rl.config import read_yaml, validate
from rl.data.examples import Encoder
from rl.models.load import load_model, load_tokenizer
from rl.models.lora import Adapter, add_adapter
from rl.models.tiny import build_model, build_tokenizer
from rl.recipes.prepared import prepare
from rl.recipes.trained import check_config
from rl.recipes.trice import TriceConfig
from rl.serving.policies import EndpointModel, GoldPolicy, LocalPolicy, RandomAgent, RecordedPolicy
from rl.serving.sources import EndpointConfig, VllmConfig
from rollouts.formats.inline import InlineFormat
from rollouts.policy import Source
from rollouts.types import Sampling, Task
from rollouts.worker import RolloutWorker, WorkerConfig
from tests.executors.endpoints import endpoint
from tests.rl.chat_tokenizers import tokenizer_with

ROOT = Path(__file__).parents[2]
CATALOG = Catalog([calculator])
FORMAT = InlineFormat()
TASKS = [
    Task(
        id=f"t{number}",
        prompt=f"What is {number} plus 3?",
        answer=str(number + 3),
        tools=("calculator",),
        gold=ToolCall("calculator", {"expression": f"{number}+3"}),
    )
    for number in range(3)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A model directory with random weights."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    texts = [FORMAT.opening(task, CATALOG.specs()) for task in TASKS]
    tokenizer = build_tokenizer(texts * 3, markers=FORMAT.markers(CATALOG.specs()), vocab_size=330, max_length=96)
    build_model(len(tokenizer), width=32, layers=1, heads=2, max_length=96).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def play(url: str, checkpoint: Path):
    teacher = Endpoint(base_url=url, model="m", retries=0, backoff=0.001, prompt_price=1.0, completion_price=1.0)
    policies = {
        "live": LocalPolicy("live", str(checkpoint), version=3),
        "teacher": EndpointModel(name="teacher", endpoint=teacher, format=FORMAT, catalog=CATALOG),
        "random": RandomAgent(name="random", format=FORMAT, catalog=CATALOG),
        "gold": GoldPolicy("gold", CATALOG, FORMAT),
        "recorded": RecordedPolicy("recorded", {task.id: ("Answer: 0",) for task in TASKS[:2]}),
    }
    short = Sampling(max_tokens=8)
    warm = Sampling(max_tokens=8, temperature=0.9)
    sources = [
        Source(name="cold", policy="live", sampling=short),
        Source(name="warm", policy="live", sampling=warm, count=2),
        Source(name="calls", policy="live", sampling=warm, force="call"),
        Source(name="direct", policy="live", sampling=warm, force="direct"),
        *(Source(name=name, policy=name) for name in ("teacher", "random", "gold", "recorded")),
    ]
    config = WorkerConfig(policies=policies, executor=lambda: Executor(CATALOG), format=FORMAT)
    return sources, asyncio.run(RolloutWorker(config).play(TASKS, sources, "r"))


def test_every_source_attempts_and_says_what_it_knows(checkpoint):
    with endpoint("7") as fake:
        sources, groups = play(fake.url, checkpoint)
    expected = [source.name for source in sources for _ in range(source.count)]
    for group in groups:
        assert [episode.source for episode in group.episodes] == expected
        live = [episode for episode in group.episodes if episode.policy == "live"]
        assert len({episode.seed for episode in group.episodes}) == len(expected)
        for episode in live:
            reply = episode.turns[0].completion
            assert episode.version == 3
            assert len(reply.token_ids) == len(reply.mask) == len(reply.logprobs) > 0
            assert reply.tokenizer
            assert reply.prompt_tokens > 0
            assert reply.seconds > 0
        assert live[-2].called
        assert live[-2].turns[0].completion.mask[0] is False
        teacher = next(episode for episode in group.episodes if episode.source == "teacher")
        assert (teacher.answer, teacher.turns[0].completion.cost) == ("7", pytest.approx(120e-6))
        assert (teacher.turns[0].completion.token_ids, teacher.turns[0].completion.written_tokens) == ((), 20)
    assert [group.episodes[-1].stop for group in groups] == ["answer", "answer", "failed"]
    assert "no recording of task 't2'" in groups[2].episodes[-1].error


def test_a_source_that_fails_leaves_the_group_to_the_others_and_is_counted(checkpoint):
    with endpoint("7", JSONResponse({"error": {"message": "gone"}}, 500)) as fake:
        _, groups = play(fake.url, checkpoint)
    stops = [episode.stop for group in groups for episode in group.episodes if episode.source == "teacher"]
    assert sorted(stops) == ["answer", "failed", "failed"]
    ranked = [WeightedSum().rank(group) for group in groups]
    assert sum(each.dropped for each in ranked) == 3  # with the recording that is not there
    for each, group in zip(ranked, groups, strict=True):
        assert len(each.candidates) == len(group.episodes) - each.dropped


def test_a_prompt_beyond_the_context_is_a_typed_stop_that_is_judged_and_not_learned_from(checkpoint):
    long = Task(id="long", prompt="7 " * 200, answer="7", tools=("calculator",))
    policies = {"live": LocalPolicy("live", str(checkpoint)), "gold": GoldPolicy("gold", CATALOG, FORMAT)}
    config = WorkerConfig(policies=policies, executor=lambda: Executor(CATALOG), format=FORMAT)
    sources = [Source(name="cold", policy="live"), Source(name="gold", policy="gold")]
    (group,) = asyncio.run(RolloutWorker(config).play([long], sources, "r"))
    live = group.episodes[0]
    assert (live.stop, live.turns, live.answer, live.finished) == ("prompt_limit", (), None, True)
    assert "reads 96 at most" in live.error
    ranked = WeightedSum().rank(group)
    assert ranked.candidates[0].episode.source == "gold"
    specs = {spec.name: spec for spec in CATALOG.specs()}
    example = Encoder(load_tokenizer(checkpoint), FORMAT, specs, max_tokens=4096).example(ranked)
    assert [row.sources for row in example.rows] == [("gold",)]


def recipe(**changes):
    return validate(read_yaml(ROOT / "configs" / "trice" / "tiny.yaml") | changes, TriceConfig, "test")


def with_policies(policies: dict, *names: str):
    content = read_yaml(ROOT / "configs" / "trice" / "tiny.yaml")
    sources = [*content["sources"], *({"name": name, "policy": name} for name in names)]
    return recipe(policies=policies, sources=sources)


def test_a_config_names_policies_of_every_kind(checkpoint):
    config = with_policies(
        {
            "teacher": {
                "kind": "endpoint",
                "base_url": "http://localhost:1/v1",
                "model": "m",
                "max_usd": 1,
                "prompt_price": 2,
            },
            "big": {"kind": "vllm", "model": "m", "mode": "text"},
            "old": {"kind": "huggingface", "path": str(checkpoint)},
            "chaos": {"kind": "random", "malformed": 0.5},
        },
        *("teacher", "big", "old", "chaos"),
    )
    prepare(config)
    built = {name: made.build(name, FORMAT, CATALOG)() for name, made in config.policies.items()}
    assert {name: policy.name for name, policy in built.items()} == {name: name for name in built}
    assert isinstance(config.policies["big"], VllmConfig)
    assert config.policies["big"].concurrency > EndpointConfig(base_url="http://a/v1", model="m").concurrency


@pytest.mark.parametrize(
    ("policies", "names", "words"),
    [
        ({"live": {"kind": "random"}}, (), "'live' is the name of another policy"),
        ({"chaos": {"kind": "random"}}, (), "no source plays 'chaos'"),
        ({"chaos": {"kind": "randm"}}, ("chaos",), "no kind 'randm'"),
        ({"t": {"kind": "endpoint", "base_url": "nowhere", "model": "m"}}, ("t",), "base_url must be like"),
        ({"t": {"kind": "vllm", "model": "m", "max_usd": 1}}, ("t",), "max_usd holds only with prices"),
        ({"c": {"kind": "random", "malformed": 0.7, "unknown_tool": 0.7}}, ("c",), "exceed 1"),
        ({"c": {"kind": "random", "malfomed": 0.7}}, ("c",), "did you mean 'malformed'"),
    ],
)
def test_mistakes_are_found_before_anything_starts(policies, names, words):
    with pytest.raises(ConfigError, match=words):
        with_policies(policies, *names)


def test_keys_and_models_are_looked_for_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    keyed = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "model": "m", "key_env": "TEACHER_KEY"}
    with pytest.raises(ConfigError, match="export TEACHER_KEY"):
        prepare(with_policies({"teacher": keyed}, "teacher"))
    with pytest.raises(DataError, match="is not a model directory"):
        prepare(with_policies({"old": {"kind": "huggingface", "path": str(tmp_path)}}, "old"))


def test_the_chat_format_takes_the_template_of_the_model_that_is_trained(checkpoint):
    model = {"kind": "huggingface", "path": str(checkpoint)}
    assert recipe(format={"kind": "chat"}, model=model).format.tokenizer == str(checkpoint)
    assert recipe(format={"kind": "chat", "tokenizer": "other"}, model=model).format.tokenizer == "other"


def test_a_recipe_in_a_models_own_template_passes_its_check(tmp_path):
    tokenizer = tokenizer_with("qwen3")
    build_model(len(tokenizer), width=16, layers=1, heads=2, max_length=64).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = recipe(format={"kind": "chat"}, model={"kind": "huggingface", "path": str(tmp_path)})
    said = list(check_config(config))
    assert said[-1].endswith("200 of 200 gold attempts are right")


def test_toolalpacas_variants_have_a_config():
    made = recipe(format={"kind": "toolalpaca", "variant": "train_v1", "parser": "paper"}).format.build()
    assert (made.name, made.stop[0]) == ("toolalpaca", "\nObservation:")
    with pytest.raises(ConfigError, match=r"format\.variant"):
        recipe(format={"kind": "toolalpaca", "variant": "test_v3"})


def test_sources_of_one_model_may_each_write_with_an_adapter_of_its_own(checkpoint, tmp_path):
    adapters = {}
    for seed, name in enumerate(("one", "two"), start=1):
        model = load_model(checkpoint)
        add_adapter(model, Adapter(r=2), checkpoint, seed)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(tmp_path / name)
        adapters[name] = str(tmp_path / name)
    policy = LocalPolicy("base", str(checkpoint), adapters=adapters)
    worker = RolloutWorker(
        WorkerConfig(policies={"base": policy}, executor=lambda: Executor(CATALOG), format=FORMAT, max_turns=1)
    )
    sources = [Source(name=name or "plain", policy="base", adapter=name) for name in ("", "one", "two")]
    groups = asyncio.run(worker.play(TASKS, sources, "r"))
    for group in groups:
        assert len({episode.text for episode in group.episodes}) == 3
        assert all(episode.stop != "failed" for episode in group.episodes)


def test_a_source_that_asks_for_an_adapter_that_its_policy_lacks_is_refused():
    content = read_yaml(ROOT / "configs/trice/tiny.yaml")
    content["sources"][0]["adapter"] = "one"
    with pytest.raises(ConfigError, match="asks policy 'live' for its adapter 'one', and it has none"):
        validate(content, TriceConfig, "test")
