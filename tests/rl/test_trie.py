import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.errors import ConfigError
from rl.models.trie import Trie


def test_what_may_follow_a_prefix():
    trie = Trie([(5, 1), (5, 2, 7), (3,), (5, 2)])
    assert trie.children(0).tolist() == [3, 5]
    assert trie.children(trie.walk((5,)) or 0).tolist() == [1, 2]
    assert trie.walk((5, 9)) is None and trie.walk((7,)) is None
    assert [trie.item(trie.walk(path) or 0) for path in [(5, 1), (5, 2, 7), (3,), (5, 2), (5,)]] == [0, 1, 2, 3, None]
    assert (len(trie), trie.nodes) == (4, 6)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sets(st.lists(st.integers(0, 5), min_size=1, max_size=6).map(tuple), min_size=1, max_size=60))
def test_it_spells_exactly_what_it_was_made_of(sequences):
    ordered = sorted(sequences)
    random.Random(0).shuffle(ordered)
    trie = Trie(ordered)
    for number, sequence in enumerate(ordered):
        assert trie.item(trie.walk(sequence) or 0) == number
    spelt = set()
    todo = [(0, ())]
    while todo:
        node, path = todo.pop()
        if trie.item(node) is not None:
            spelt.add(path)
        todo += [(trie.step(node, int(token)), (*path, int(token))) for token in trie.children(node)]
    assert spelt == set(ordered)
    prefixes = {sequence[:end] for sequence in ordered for end in range(len(sequence) + 1)}
    assert trie.nodes == len(prefixes)


@pytest.mark.parametrize("sequences", [[], [()], [(1,), (1,)], [(1, 2), (3,), (1, 2)]])
def test_what_cannot_be_told_apart_is_refused(sequences):
    with pytest.raises(ConfigError):
        Trie(sequences)


def test_a_wide_node_is_kept_ready_and_a_node_takes_twelve_bytes():
    trie = Trie([(token,) for token in range(100, 5100)])
    assert trie.allowed(0) is trie.allowed(0)
    assert trie.allowed(0).dtype == np.int64 and len(trie.allowed(0)) == 5000
    assert trie.num_bytes <= 12 * trie.nodes + 8 * 5000 + 16
