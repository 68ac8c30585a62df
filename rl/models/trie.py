"""A prefix tree of token sequences in three flat arrays: what may come next, among tens of thousands of tools.

Nodes are numbered level by level, so that the edge ``e`` leads to the node ``e + 1`` and needs no pointer: a node takes
twelve bytes.
"""

from collections.abc import Sequence

import numpy as np

from executors.errors import ConfigError

_WIDE = 1024
"""Children from which on a node's tokens are kept ready in the form that engines take."""


class Trie:
    """Finds the tokens that may follow a prefix, and the sequence that a path spells."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        """
        Args:
            sequences: token ids, none of them empty or twice there. One may begin another.

        Raises:
            ConfigError: one of them is.
        """
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        if not len(lengths) or lengths.min() < 1:
            raise ConfigError(f"a trie of {len(lengths)} sequences needs at least one, and none of them empty")
        table = np.full((len(lengths), int(lengths.max())), -1, dtype=np.int32)
        for row, sequence in enumerate(sequences):
            table[row, : len(sequence)] = sequence
        order = np.lexsort(table.T[::-1])
        table, lengths = table[order], lengths[order]
        node = np.zeros(len(table), dtype=np.int64)
        nodes, tokens, counts = 1, [], []
        terminal: dict[int, int] = {}
        parents = np.zeros(1, dtype=np.int64)
        for depth in range(table.shape[1] + 1):
            for row in np.flatnonzero(lengths == depth).tolist():
                if int(node[row]) in terminal:
                    raise ConfigError(f"two of the sequences are alike: {list(sequences[int(order[row])])}")
                terminal[int(node[row])] = int(order[row])
            rows = np.flatnonzero(lengths > depth)
            own, here = node[rows], table[rows, min(depth, table.shape[1] - 1)]
            fresh = np.ones(len(rows), dtype=bool)
            fresh[1:] = (own[1:] != own[:-1]) | (here[1:] != here[:-1])
            counts.append(np.bincount(own[fresh] - parents[0], minlength=len(parents)))
            tokens.append(here[fresh])
            node[rows] = nodes + np.cumsum(fresh) - 1
            parents = np.arange(nodes, nodes + int(fresh.sum()))
            nodes += len(parents)
            if not len(parents):
                break
        self._tokens = np.concatenate(tokens).astype(np.int32)
        self._starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)
        self._items = np.full(nodes, -1, dtype=np.int32)
        self._items[list(terminal)] = list(terminal.values())
        widths = np.diff(self._starts)
        self._ready = {int(n): self.children(int(n)).astype(np.int64) for n in np.flatnonzero(widths >= _WIDE)}
        self._size = len(lengths)

    def __len__(self) -> int:
        """Sequences."""
        return self._size

    @property
    def nodes(self) -> int:
        """Prefixes, the empty one included."""
        return len(self._items)

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        flat = (self._tokens, self._starts, self._items)
        return sum(array.nbytes for array in (*flat, *self._ready.values()))

    def children(self, node: int) -> np.ndarray:
        """The tokens that may follow at a node, in order."""
        return self._tokens[self._starts[node] : self._starts[node + 1]]

    def allowed(self, node: int) -> np.ndarray:
        """The same as engines take them."""
        ready = self._ready.get(node)
        return self.children(node).astype(np.int64) if ready is None else ready

    def step(self, node: int, token: int) -> int | None:
        """The node that a token leads to; None where it leads nowhere."""
        start, end = int(self._starts[node]), int(self._starts[node + 1])
        place = start + int(np.searchsorted(self._tokens[start:end], token))
        return place + 1 if place < end and self._tokens[place] == token else None

    def walk(self, ids: Sequence[int], node: int = 0) -> int | None:
        """The node that tokens lead to; None where they lead nowhere."""
        for token in ids:
            found = self.step(node, token)
            if found is None:
                return None
            node = found
        return node

    def item(self, node: int) -> int | None:
        """Which of the sequences ends at a node; None where none does."""
        found = int(self._items[node])
        return found if found >= 0 else None
