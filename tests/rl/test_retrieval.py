import math

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from executors.retrieval import Index, text_of
from rl.data.tasks.toolbench import ToolBench
from rl.evaluation.retrieval import legacy_ndcg, ndcg, nearest, recalled, reciprocal_rank, retrieval_ratios, values
from rl.models.sentences import SentenceEncoder
from rl.models.tiny import build_tokenizer
from rl.recipes.toolgen import encoder_ratios
from tests.executors.shared_data import shared


def test_the_standard_measure_charges_for_what_was_missed_and_the_published_one_does_not():
    assert ndcg(["a", "x"], {"a", "b"}, 5) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert legacy_ndcg(["a", "x"], {"a", "b"}, 5) == 1.0
    assert ndcg(["a", "b"], {"a", "b"}, 5) == legacy_ndcg(["a", "b"], {"a", "b"}, 5) == 1.0
    assert ndcg(["x"], {"a"}, 1) == legacy_ndcg(["x"], {"a"}, 1) == 0.0
    assert ndcg(["x", "a"], {"a"}, 3) == pytest.approx(1 / math.log2(3))


def test_a_longer_list_can_only_lower_the_published_measure():
    short, long = ["a", "x", "y"], ["a", "x", "y", "z", "w", "b"]
    assert legacy_ndcg(long, {"a", "b"}, 3) < legacy_ndcg(short, {"a", "b"}, 3)
    assert ndcg(long, {"a", "b"}, 3) == ndcg(short, {"a", "b"}, 3)


def test_ratios_of_some_queries():
    got = values(retrieval_ratios([["a", "b"], ["x", "c"]], [("a", "b"), ("c",)], depths=(1, 2)))
    assert (got["mrr"], got["selected"]) == (0.75, 0.5)
    assert (got["recall@1"], got["recall@2"]) == (pytest.approx(1 / 3), 1.0)
    assert (got["complete@1"], got["complete@2"]) == (0.0, 1.0)
    assert reciprocal_rank([], {"a"}) == 0.0


def test_bm25_over_stabletoolbench_shows_how_much_the_published_measure_adds(monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("stabletoolbench")
    data = ToolBench().load()
    assert (len(data.tools), len(data.queries), len(data.rejected)) == (2456, 704, 0)
    assert not {q.text for q in data.train} & {q.text for q in data.test}
    index, names = Index(text_of(tool.spec) for tool in data.tools.values()), list(data.tools)
    wanted = [query.wanted for query in data.queries]
    figures = {}
    for depth in (5, 100):
        found = [[names[place] for place, _ in index.search(query.text, depth)] for query in data.queries]
        figures[depth] = values(retrieval_ratios(found, wanted))
    assert figures[5]["ndcg@5"] == pytest.approx(figures[100]["ndcg@5"]) == pytest.approx(0.667, abs=0.01)
    assert figures[100]["legacy_ndcg@5"] == pytest.approx(0.680, abs=0.01)
    assert figures[5]["legacy_ndcg@5"] == pytest.approx(0.783, abs=0.01)
    assert figures[5]["ndcg@1"] == figures[5]["legacy_ndcg@1"]


def test_memorisation_is_accuracy_and_f1_over_tools():
    assert recalled(["a", "b"], ["a", "b"]) == (1.0, 1.0)
    accuracy, f1 = recalled(["a", "a", None], ["a", "b", "c"])
    assert accuracy == pytest.approx(1 / 3) and f1 == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_the_nearest_are_so_by_angle_and_not_by_length():
    known = np.array([[1.0, 0.0], [0.0, 5.0], [0.0, 0.0], [3.0, 3.0]])
    assert nearest(np.array([[0.1, 0.0], [0.0, 2.0]]), known, "abcd", 2) == [["a", "d"], ["b", "d"]]


def test_an_encoder_finds_tools_by_their_vectors(tmp_path, monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("stabletoolbench")
    data = ToolBench(groups=("G2_category",), test_share=0.1).load()
    tokenizer = build_tokenizer([query.text for query in data.train[:50]], vocab_size=400, max_length=64)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = SentenceEncoder(tmp_path, max_tokens=48)
    got = values(encoder_ratios(data, data.test[:8], 5, encoder))
    assert 0 <= got["ndcg@5"] <= got["legacy_ndcg@5"] <= 1 and got["hallucinated"] == 0
    own = [text_of(tool.spec) for tool in list(data.tools.values())[:20]]
    vectors = encoder(own)
    assert nearest(vectors, vectors, list(range(20)), 1)[7] == [own.index(own[7])]
