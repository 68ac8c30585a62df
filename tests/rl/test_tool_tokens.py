import time
from collections import Counter

import psutil
import pytest
import torch

from executors.errors import ConfigError, UnknownToolError
from executors.names import Identity, Names
from rl.data.tasks.toolbench import legacy_name, virtual_tokens
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_head import input_matrix, output_matrix
from rl.models.tool_tokens import ToolTokens, add_tool_tokens, clustered, index_tools, label
from tests.executors.shared_data import shared

IDENTITIES = [
    Identity("weather now", "Open Sky"),
    Identity("weather tomorrow", "Open Sky"),
    Identity("exchange rates", "Coins"),
    Identity("a&&b", "Odd"),
    Identity("Finish"),
]


@pytest.fixture
def tools():
    names = Names(IDENTITIES)
    return {names[identity]: identity for identity in IDENTITIES}


@pytest.fixture
def tokenizer():
    texts = ["weather now and tomorrow from the open sky", "exchange rates of coins", "0 1 2 3 4 5 6 7 8 9"]
    return build_tokenizer(texts, vocab_size=340)


@pytest.mark.parametrize("indexing", ["atomic", "semantic", "numeric", "hierarchical"])
def test_every_kind_of_text_leads_to_its_tool_and_back(indexing, tools, tokenizer):
    about = {name: f"{tools[name].raw} of {tools[name].owner}" for name in tools}
    tokens = index_tools(tools, indexing, descriptions=about)
    assert [tokens.tool(tokens.texts[name]) for name in tools] == list(tools)
    assert tokens.tools == {text: name for name, text in tokens.texts.items()}
    if indexing == "atomic":
        add_tool_tokens(build_model(len(tokenizer), width=16, heads=2), tokenizer, list(tokens.texts.values()))
    trie = tokens.trie(tokenizer)
    for number, ids in enumerate(tokens.ids(tokenizer)):
        assert trie.item(trie.walk(ids) or 0) == number
    with pytest.raises(UnknownToolError):
        tokens.tool("<<nobody>>")


def test_labels_are_toolgen_s_and_those_alike_take_their_names(tools):
    assert label(IDENTITIES[0]) == "<<Open Sky&&weather now>>"
    assert label(Identity("Finish")) == "<<Finish>>"
    twins = {"one": Identity("x", "y", "1"), "two": Identity("x", "y", "2")}
    assert index_tools(twins, "atomic").texts == {"one": "<<one>>", "two": "<<two>>"}
    with pytest.raises(ConfigError, match="share"):
        ToolTokens("atomic", {"one": "a", "two": "a"})


def test_hierarchical_paths_are_prefix_free_and_keep_alike_texts_together():
    topics = ["weather rain wind", "currency exchange coin", "football match score", "recipe cook oven"]
    texts = [f"{topic} number {n}" for n in range(30) for topic in topics]
    paths = clustered(texts, seed=0)
    assert len(set(paths)) == len(texts)
    prefixes = {path[:end] for path in paths for end in range(1, len(path))}
    assert not prefixes & set(paths)
    assert max(digit for path in paths for digit in path) <= 9
    by_first: dict[int, Counter] = {}
    for text, path in zip(texts, paths, strict=True):
        by_first.setdefault(path[0], Counter())[text.split()[0]] += 1
    pure = sum(counts.most_common(1)[0][1] for counts in by_first.values())
    assert pure / len(texts) > 0.9
    assert len(set(clustered(["the same words"] * 25))) == 25


def test_hierarchical_indexing_asks_for_descriptions(tools):
    with pytest.raises(ConfigError, match="has none"):
        index_tools(tools, "hierarchical")


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_begin_as_the_mean_of_their_words_in_both_matrices(tied, tokenizer):
    model = build_model(len(tokenizer), width=16, heads=2)
    if not tied:
        config = type(model.config).from_dict({**model.config.to_dict(), "tie_word_embeddings": False})
        model = type(model)(config)
    before = [matrix.clone() for matrix in (input_matrix(model), output_matrix(model))]
    words = tokenizer.encode("Open Sky weather now")
    ids = add_tool_tokens(model, tokenizer, ["<<Open Sky&&weather now>>", "<<Coins&&rates>>"])
    for matrix, old in zip((input_matrix(model), output_matrix(model)), before, strict=True):
        assert torch.allclose(matrix[ids["<<Open Sky&&weather now>>"]], old[words].mean(0), atol=1e-6)
        assert torch.equal(matrix[: len(old)], old)
        assert len(matrix) == len(tokenizer)
    assert tokenizer.encode("call <<Coins&&rates>>")[-1] == ids["<<Coins&&rates>>"]
    with pytest.raises(ConfigError, match="a token already"):
        add_tool_tokens(model, tokenizer, ["<<Coins&&rates>>"])


def test_all_of_toolgen_s_tools_are_added_in_a_minute_and_three_gigabytes():
    identities = virtual_tokens(shared("toolgen", "virtual_tokens.txt"))
    names = Names(identities)
    tokenizer = build_tokenizer([identity.raw for identity in identities[:2000]], vocab_size=1024)
    model = build_model(len(tokenizer), width=64, heads=2)
    plain = len(tokenizer)
    began, before = time.process_time(), psutil.Process().memory_info().rss
    tokens = index_tools({names[identity]: identity for identity in identities}, "atomic")
    ids = add_tool_tokens(model, tokenizer, list(tokens.texts.values()))
    trie = tokens.trie(tokenizer)
    assert time.process_time() - began < 60
    assert psutil.Process().memory_info().rss - before < 3 * 2**30
    assert len(set(ids.values())) == len(trie) == len(tokenizer) - plain == 46985
    assert trie.num_bytes < 2**20
    assert tokens.texts[names[Identity("Finish")]] == "<<Finish>>"


def test_154_of_toolgen_s_own_names_stand_for_several_tools_and_none_of_ours():
    identities = virtual_tokens(shared("toolgen", "virtual_tokens.txt"))
    theirs = Counter(legacy_name(i.owner, i.raw) for i in identities if i.owner)
    assert sum(count > 1 for count in theirs.values()) == 154
    assert (sum(theirs.values()), len(theirs)) == (46984, 46732)
    assert len(set(Names(identities).values())) == 46985
