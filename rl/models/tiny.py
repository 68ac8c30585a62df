"""The embedded default: a decoder of a fraction of a million parameters, and a tokenizer made for its texts."""

from collections.abc import Iterable, Sequence

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BOS, END = "<pad>", "<bos>", "<end>"


def build_tokenizer(
    texts: Iterable[str], *, markers: Sequence[str] = (), vocab_size: int = 512, max_length: int = 256
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that loses nothing of any text and keeps every digit apart.

    Args:
        texts: what its merges are learned from; training texts only.
        markers: pieces of grammar that are one token each, such as ``calculator(``.
        vocab_size: tokens at most, the 256 bytes included unless ``vocab_size`` is smaller than what they need.
        max_length: tokens that the model reads.
    """
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r"\d| ?[A-Za-z_]+| ?[^\sA-Za-z_\d]+|\s"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(markers),
        special_tokens=[PAD, BOS, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(marker, normalized=False, special=False) for marker in markers])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def build_model(
    vocab_size: int,
    *,
    width: int = 96,
    layers: int = 2,
    heads: int = 4,
    max_length: int = 256,
    seed: int = 0,
    pad_id: int = 0,
    bos_id: int = 1,
    end_id: int = 2,
) -> LlamaForCausalLM:
    """A LLaMA-shaped decoder with tied embeddings and random weights."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        pad_token_id=pad_id,
        bos_token_id=bos_id,
        eos_token_id=end_id,
        initializer_range=0.02,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
