import math

import pytest

from executors.retrieval import Index, text_of
from rl.data.tasks.toolbench import ToolBench
from rl.evaluation.retrieval import legacy_ndcg, ndcg, reciprocal_rank, retrieval_ratios, values
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
    assert got["mrr"] == 0.75
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
