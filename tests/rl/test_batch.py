import numpy as np
import pytest
import torch

from rl.data.batch import PADDED, collate
from rl.data.examples import Example, Row
from rl.data.packing import Layout

PACKED = Layout(packed=True)
GROUP = Example(
    "t",
    (1, 2, 3),
    (
        Row((7, 8, 9), (True, False, True), 1.0, True, behaviour=(-0.5, -0.25), sources=("a", "b")),
        Row((5,), (True,), 0.0, False),
    ),
)


def test_a_packed_row_is_the_prompt_and_its_candidates():
    (piece,) = collate([GROUP], 0, PACKED).pieces
    assert piece.ids.tolist() == [[1, 2, 3, 7, 8, 9, 5]]
    assert piece.position.tolist() == [[0, 1, 2, 3, 4, 5, 3]]  # positions begin again after the prompt
    assert piece.candidate.tolist() == [[0, 0, 0, 1, 1, 1, 2]]
    assert piece.document.tolist() == [[0] * 7]
    assert not piece.plain


def test_logits_are_asked_for_where_own_tokens_follow_and_nowhere_else():
    (piece,) = collate([GROUP], 0, PACKED).pieces
    assert piece.where.tolist() == [2, 4, 2]  # the prompt's last token stands before the first of both candidates
    assert piece.target.tolist() == [7, 9, 5]
    assert piece.place.tolist() == [0, 2, 3]


def test_observations_are_scored_only_where_they_are_asked_for():
    batch = collate([GROUP], 0, PACKED, observations=True)
    assert batch.observed is not None and batch.observed.tolist() == [[[False, True, False], [False] * 3]]
    assert batch.pieces[0].target.tolist() == [7, 8, 9, 5]
    assert collate([GROUP], 0, PACKED).observed is None
    assert batch.mask.tolist() == collate([GROUP], 0, PACKED).mask.tolist()


def test_a_batch_says_what_objectives_ask_of_candidates():
    ragged = [GROUP, Example("u", (4,), (Row((6, 6), (True, True), 0.5, False),))]
    batch = collate(ragged, 0, PACKED)
    assert batch.mask.shape == (2, 2, 3)
    assert np.array_equal(batch.rewards.numpy(), [[1.0, 0.0], [0.5, np.nan]], equal_nan=True)
    assert batch.called.tolist() == [[True, False], [False, False]]
    assert batch.copies.tolist() == [[2, 1], [1, 0]]
    assert np.array_equal(batch.behaviour[0, 0].numpy(), [-0.5, np.nan, -0.25], equal_nan=True)
    assert batch.behaviour[1].isnan().all()
    candidates = batch.candidates(torch.zeros(batch.mask.shape))
    assert candidates.valid.tolist() == [[True, True], [True, False]]


def test_a_batch_says_who_wrote_its_candidates_and_how_long_ago():
    rows = (
        Row((7,), (True,), 1.0, True, own=True, version=3),
        Row((8,), (True,), 0.5, True, version=5),
        Row((9,), (True,), 0.0, False),
    )
    batch = collate([Example("t", (1,), rows)], 0, PACKED)
    unread = torch.zeros(batch.mask.shape)
    candidates = batch.candidates(unread, version=5, reference=unread - 1)
    assert candidates.own is not None and candidates.own.tolist() == [[True, False, False]]
    assert candidates.staleness is not None and candidates.staleness.tolist() == [[2, 0, 0]]
    assert candidates.reference is not None and candidates.reference.tolist() == [[[-1], [-1], [-1]]]
    assert batch.candidates(unread).staleness is None


def test_a_batch_tells_what_reading_it_takes():
    packed, padded = collate([GROUP], 0, PACKED), collate([GROUP], 0, PADDED)
    assert (packed.tokens, packed.documents, packed.positions) == (7, 1, 7)
    assert (padded.tokens, padded.documents, padded.positions) == (10, 2, 12)
    assert packed.padded_length == padded.padded_length == 6
    assert packed.count == padded.count == 2


def test_a_row_of_one_candidate_needs_no_mask():
    alone = Example("u", (4, 4), (Row((6, 6), (True, True), 0.5, False),))
    assert [piece.plain for piece in collate([alone], 0, PACKED).pieces] == [True]
    assert all(piece.plain for piece in collate([GROUP, alone], 0, PADDED).pieces)


def test_rows_are_filled_with_a_token_that_belongs_to_no_document():
    wide = Example("w", (1,) * 9, (Row((7,), (True,), 0.0, False),))
    (piece,) = collate([wide, GROUP], 99, PACKED).pieces
    assert piece.ids[1].tolist() == [1, 2, 3, 7, 8, 9, 5, 99, 99, 99]
    assert piece.document[1].tolist() == [0] * 7 + [-1] * 3


def test_nothing_makes_a_batch_without_pieces():
    batch = collate([], 0, PACKED)
    assert (batch.pieces, batch.count, batch.tokens) == ((), 0, 0)
    assert batch.mask.shape == (0, 1, 1)


@pytest.mark.parametrize("layout", [PADDED, PACKED])
def test_candidates_that_do_not_fit_are_counted(layout):
    bounded = Layout(packed=layout.packed, max_tokens=5)
    batch = collate([GROUP], 0, bounded)
    assert (batch.left_out, batch.rewards.tolist()) == (1, [[0.0]])
    nothing = collate([GROUP], 0, Layout(packed=layout.packed, max_tokens=3))
    assert (nothing.left_out, nothing.pieces) == (2, ())
