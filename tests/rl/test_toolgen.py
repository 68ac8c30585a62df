"""ToolGen's stages: what they learn from, and one small run of the recipe."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from executors.errors import ConfigError, DataError
from rl.config import read_yaml, validate
from rl.data.room import fitting
from rl.data.tasks.toolbench import ToolBench
from rl.data.toolgen import examples, memorised, read_seed, read_sharegpt, retrieved, seed_tokens
from rl.models.load import load_merged, load_tokenizer
from rl.models.tiny import build_tokenizer
from rl.models.tool_head import output_matrix
from rl.planning.knobs import idle_knobs
from rl.progress import Progress
from rl.recipes.registry import config_class, trained_alone
from rl.recipes.toolgen import StageConfig, ToolGenConfig, train
from rl.run import Run
from rollouts.formats.atomic import ACTION, AtomicFormat
from tests.executors.shared_data import shared


@pytest.fixture
def tokenizer():
    return build_tokenizer(["Query: which tool is it? thought input"], markers=[ACTION], vocab_size=320)


def test_the_three_files_of_the_reimplementations_are_read(tmp_path, tokenizer):
    rows = {
        "tool_memorization.json": [{"description": "Tells the weather.", "token": "[TOOL_1]"}],
        "retrieval_training.json": [{"query": "Rain?", "relevant_tool_tokens": ["[TOOL_1]", "[TOOL_2]"]}],
        "agent_tuning.json": [
            {
                "query": "Rain?",
                "plan_sequence": [{"thought": "Look.", "action": "[TOOL_1]", "action_input": {"city": "Rome"}}],
                "final_answer": "Yes.",
            }
        ],
    }
    for name, content in rows.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert [len(read_seed(tmp_path, stage)) for stage in ("memorisation", "retrieval", "agent")] == [1, 2, 1]
    assert seed_tokens(tmp_path) == ["[TOOL_1]", "[TOOL_2]"]
    (example,) = examples(read_seed(tmp_path, "agent"), tokenizer)
    row = example.rows[0]
    learned = tokenizer.decode([token for token, own in zip(row.ids, row.mask, strict=True) if own])
    assert "Look.\nAction:[TOOL_1]" in learned and '{"city": "Rome"}' in learned and "Yes." in learned
    assert "Input" not in learned
    assert read_seed(tmp_path / "nowhere", "agent") == []
    (tmp_path / "retrieval_training.json").write_text(json.dumps([{"query": "Rain?"}]))
    with pytest.raises(DataError, match="item 0"):
        read_seed(tmp_path, "retrieval")


def test_toolgen_s_own_form_has_a_flag_for_each_message(tmp_path, tokenizer):
    messages = [
        {"role": "user", "content": "which tool?", "loss": False},
        {"role": "assistant", "content": "thought", "loss": False},
        {"role": "user", "content": "input?"},
        {"role": "assistant", "content": "it"},
    ]
    path = tmp_path / "sharegpt-agent.json"
    path.write_text(json.dumps([{"conversations": messages}]))
    (example,) = examples(read_sharegpt(path), tokenizer)
    row = example.rows[0]
    assert tokenizer.decode([t for t, own in zip(row.ids, row.mask, strict=True) if own]).startswith("it\n")
    path.write_text(json.dumps([{"messages": []}]))
    with pytest.raises(DataError, match="no conversation"):
        read_sharegpt(path)


def test_what_is_too_long_is_left_out_and_a_limit_that_leaves_out_most_is_refused(tokenizer, monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("stabletoolbench")
    data = ToolBench(groups=("G1_tool",)).load()
    texts = {name: f"<<{name}>>" for name in data.tools}
    learned = memorised(data.tools.values(), texts)
    asked = retrieved(data.train, texts, AtomicFormat())
    assert len(learned) == len(data.tools)
    assert len(asked) == sum(len(query.wanted) for query in data.train)
    rows = examples(asked[:50], tokenizer)
    kept = fitting(rows, 320, "requests")
    assert 25 <= len(kept) < len(rows) == 50
    assert all(len(row.prompt) + len(row.rows[0].ids) <= 320 for row in kept)
    with pytest.raises(ConfigError, match=r"model\.max_length: 20 tokens, and 50 of 50 requests are longer"):
        fitting(rows, 20, "requests")


def answered():
    """The way of a tree that answers at once."""
    flags = {"is_terminal": False, "pruned": False, "finished": True}
    given = {"node_type": "Action Input", "description": '{"return_type": "give_answer", "final_answer": "Yes."}'}
    given |= {"observation": "", "observation_code": 3, "children": []} | flags
    return {"node_type": "Action", "description": "Finish", "children": [given]} | flags


def test_a_small_run_goes_through_its_stages_and_is_not_done_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("stabletoolbench")
    config = ToolGenConfig.model_validate(
        {
            "name": "small",
            "data": {"kind": "toolbench", "groups": ["G2_category"], "test_share": 0.1},
            "model": {
                "kind": "tiny",
                "width": 16,
                "heads": 2,
                "vocab_size": 400,
                "max_length": 200,
                "adapter": {"r": 2},
            },
            "memorisation": {"steps": 2, "batch_size": 4},
            "retrieval": {"steps": 2, "batch_size": 4},
            "agent": {"steps": 1, "batch_size": 1},
            "stage_files": str(tmp_path / "files"),
            "feedback": None,
            "attempts": {"tasks": 1, "max_turns": 1, "max_tokens": 8, "search": {"width": 2, "queries": 2}},
        }
    )
    tree = {"tree": {"tree": {"children": [answered()]}}, "answer_generation": {"valid_data": True, "function": []}}
    tree["answer_generation"] |= {"query": "Rain?", "final_answer": ""}
    (tmp_path / "files" / "trees").mkdir(parents=True)
    (tmp_path / "files" / "trees" / "1_DFS_woFilter_w2.json").write_text(json.dumps(tree))
    run = Run.start(tmp_path / "run", config_text="", resolved=config.model_dump(mode="json"), resume=False)
    summary = train(config, run, Progress())
    assert summary["start"]["hallucinated_constrained"]["value"] == 0
    assert summary["bm25"]["ndcg@5"]["value"] > 0.3
    assert summary["bm25"]["legacy_ndcg@5"]["value"] > summary["bm25"]["ndcg@5"]["value"]
    tried = json.loads((tmp_path / "run/evaluation/attempts-agent-step-1-test/answers.json").read_text())
    assert [one["answer"]["method"] for one in tried.values()] == ["DFS_woFilter_w2"] and "selected" in summary[
        "attempts"
    ]
    stages = tmp_path / "run" / "checkpoints"
    assert (stages / "memorisation" / "step-2").is_dir() and (stages / "retrieval" / "step-2").is_dir()
    assert (stages / "agent" / "step-1").is_dir() and 0 <= summary["memorised_f1"] <= 1
    assert 0 <= summary["memorised_at_first"] <= 1
    merged, adapted = load_merged(stages / "merged"), load_merged(stages / "agent" / "step-1")
    assert torch.equal(output_matrix(merged), output_matrix(adapted))
    started = load_merged(stages / "tokens" / "step-0")
    moved = (output_matrix(merged) - output_matrix(started)).abs().sum(-1) > 0
    texts = json.loads((tmp_path / "run" / "tool_tokens.json").read_text())
    vocabulary = load_tokenizer(stages / "merged").get_vocab()
    known = {vocabulary[text] for text in texts.values()}
    assert moved.any() and set(moved.nonzero().squeeze(-1).tolist()) <= known
    before = (stages / "retrieval" / "step-2" / "MANIFEST.json").stat().st_mtime_ns
    assert train(config, run, Progress())["start"] == summary["start"]
    assert (stages / "retrieval" / "step-2" / "MANIFEST.json").stat().st_mtime_ns == before


def test_recipes_are_known_by_name_and_some_are_trained_alone():
    assert config_class("toolgen", "x", alone=True) is ToolGenConfig
    assert trained_alone("toolgen") is train and trained_alone("trice") is None
    with pytest.raises(ConfigError, match="apprentice train"):
        config_class("toolgen", "x", alone=False)
    with pytest.raises(ConfigError, match="no recipe 'tricks'"):
        config_class("tricks", "x", alone=True)
    assert StageConfig(steps=0).steps == 0


def test_four_bits_need_a_gpu_and_shipped_configs_are_valid():
    four_bits = {"kind": "tiny", "adapter": {"kind": "qlora"}}
    with pytest.raises(ValidationError, match=r"set fitting\.gpu: true"):
        ToolGenConfig.model_validate({"name": "x", "model": four_bits})
    ToolGenConfig.model_validate({"name": "x", "model": four_bits, "fitting": {"gpu": True}})
    for path in sorted((Path(__file__).parents[2] / "configs" / "toolgen").glob("*.yaml")):
        config = validate(read_yaml(path), ToolGenConfig, str(path))
        assert config.name == f"toolgen-{path.stem}" and not idle_knobs(config)
