"""Attention over packed sequences, against PyTorch's own over each sequence."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from rl.serving.attention import Scoring, Visible
from rl.serving.cache import LayerShape, Layout, Strip, Tails
from rl.serving.packing import Packed, RowRead, StripRead

HEADS, SERVED, WIDTH = 2, 3, 8
"""Heads of keys, and how many heads of queries each serves."""
CLOSE = {"atol": 2e-6, "rtol": 1e-5}


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def reference(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, softcap: float | None, sinks: Tensor | None):
    """[H, n, Dv] by the definition; ``seen`` [n, T]."""
    key, value = (states.repeat_interleave(SERVED, 0) for states in (key, value))
    scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~seen, -math.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(-1, len(seen), 1)], dim=-1)
    return scores.softmax(-1)[..., : value.shape[1]] @ value


@pytest.mark.parametrize("value_width", [WIDTH, 5])
def test_both_ways_of_a_part_are_what_pytorch_computes(value_width):
    """Values of another width take the general way."""
    query, key = normal(3, HEADS * SERVED, 4, WIDTH, seed=1), normal(3, HEADS, 6, WIDTH, seed=2)
    value = normal(3, HEADS, 6, value_width, seed=3)
    bias = normal(3, 1, 4, 6, seed=4)
    out, total = Scoring(0.3, None, None).part(query, key, value, bias)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.3, enable_gqa=True)
    scores = query @ key.repeat_interleave(SERVED, 1).transpose(-1, -2) * 0.3 + bias
    torch.testing.assert_close(out, expected, **CLOSE)
    torch.testing.assert_close(total, scores.logsumexp(-1), **CLOSE)


@torch.inference_mode()
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("sinks", [None, normal(HEADS * SERVED, seed=9)])
@pytest.mark.parametrize("short", [True, False])
def test_each_token_gets_what_its_own_sequence_gives_it(window, softcap, sinks, short):
    """Rows with and without a shared prompt, at one token, at several and at many, one that waits, and two prompts."""
    shape = LayerShape(HEADS, WIDTH, WIDTH)
    layout = Layout((0,), (shape,), torch.float32, torch.device("cpu"))
    shared, fresh, begun = (Strip.empty(layout, length) for length in (7, 6, 9))
    tails = Tails(layout)
    tails.resize(6, 64, [])
    before = {  # what lies there already
        "shared": (normal(HEADS, 7, WIDTH, seed=20), normal(HEADS, 7, WIDTH, seed=21)),
        "begun": (normal(HEADS, 4, WIDTH, seed=22), normal(HEADS, 4, WIDTH, seed=23)),
    }
    shared.keys[0][0], shared.values[0][0] = before["shared"]
    begun.keys[0][0, :, :4], begun.values[0][0, :, :4] = before["begun"]
    counts = [1, 1, 0, 1, 1] if short else [1, 4, 0, 40, 2]
    lengths, prefixes = [0, 3, 2, 5, 1], [shared, None, shared, shared, None]
    for place, length in enumerate(lengths):
        tails.keys[0][place, :, :length] = normal(HEADS, length, WIDTH, seed=30 + place)
        tails.values[0][place, :, :length] = normal(HEADS, length, WIDTH, seed=40 + place)
    old = [
        (tails.keys[0][place, :, :n].clone(), tails.values[0][place, :, :n].clone()) for place, n in enumerate(lengths)
    ]
    rows = [
        RowRead([5] * count, length, prefix) for count, length, prefix in zip(counts, lengths, prefixes, strict=True)
    ]
    strips = [StripRead([5] * 6, fresh, 0), StripRead([5] * 5, begun, 4)]
    packed = Packed(layout, tails, rows, strips)
    size = sum(counts) + 11
    query, key, value = (normal(1, heads, size, WIDTH, seed=50 + heads) for heads in (HEADS * SERVED, HEADS, HEADS))
    packed.update(key, value, 0)
    function = sliding_window_causal_mask_function(window) if window else causal_mask_function
    scoring = Scoring(1 / math.sqrt(WIDTH), softcap, sinks)
    got = packed.attend(query, key, Visible(function), scoring)
    pasts = [
        [before["shared"], past] if prefix is shared else [past] for past, prefix in zip(old, prefixes, strict=True)
    ]
    for number, past in enumerate([*pasts, [], [before["begun"]]]):
        here = slice(int(packed.starts[number]), int(packed.starts[number + 1]))
        keys = torch.cat([*(k for k, _ in past), key[0, :, here]], dim=1)
        values = torch.cat([*(v for _, v in past), value[0, :, here]], dim=1)
        positions = torch.arange(keys.shape[1])
        own = positions[keys.shape[1] - (here.stop - here.start) :]
        assert packed.positions[here].tolist() == own.tolist()
        seen = positions <= own[:, None]
        if window:
            seen &= positions > own[:, None] - window
        expected = reference(query[0, :, here], keys, values, seen, softcap, sinks).transpose(0, 1)
        torch.testing.assert_close(got[here], expected, **CLOSE)


@torch.inference_mode()
def test_tails_keep_what_they_hold_when_they_are_resized_moved_and_taken():
    layout = Layout((0, 3), (LayerShape(1, 2, 2), LayerShape(2, 3, 1)), torch.float32, torch.device("cpu"))
    assert layout.token_bytes == 4 * (4 + 8)
    strip = Strip.empty(layout, 3)
    for number, states in enumerate(strip.keys + strip.values):
        states.copy_(normal(*states.shape, seed=number))
    tails = Tails(layout)
    tails.resize(2, 4, [])
    tails.put(1, strip, 3)
    tails.resize(3, 8, [0, 3])
    tails.move(1, 2, 3)
    tails.wipe(1)
    taken = tails.take(2, 2)
    assert (tails.tokens, taken.length) == (24, 2)
    assert not tails.keys[1][1].any()
    for mine, theirs in zip(taken.keys + taken.values, strip.keys + strip.values, strict=True):
        assert torch.equal(mine, theirs[:, :, :2])
