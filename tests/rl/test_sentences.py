"""Sentence encoders for retrieval: their mechanics, with random weights; what they mean is their own affair."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from executors.errors import DataError
from executors.types import Observation, ToolCall
from rl.data.retrieved import Demonstrations
from rl.models.sentences import SentenceEncoder
from rollouts.types import Completion, Episode, Task, Turn

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pay", "the", "baker", "ring", "home", "now", "please", "1", "2"]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def test_vectors_are_means_of_hidden_states_whatever_else_is_in_the_batch(path):
    encode = SentenceEncoder(path)
    texts = ["pay the baker 1", "ring home", "ring home now please 2"]
    together = encode(texts)
    assert together.shape == (3, 16)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(encode([text])[0], vector, atol=1e-5)
    ids = encode._tokenizer("ring home", return_tensors="pt")
    with torch.no_grad():
        mean = encode._model(**ids).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(together[1], mean, atol=1e-5)
    assert encode([]).shape == (0, 16) and len(encode(["ring home"] * 70)) == 70


def test_demonstrations_are_found_by_it(path):
    texts = ["pay the baker 1", "ring home now", "pay the baker 2"]
    call = Turn(Completion(text="x"), (ToolCall("pay", {}),), (Observation("1"),))
    pairs = [
        (
            Task(id=text, prompt=text),
            Episode(task_id=text, source="s", policy="p", version=0, turns=(call,), answer=None, stop="turn_limit"),
        )
        for text in texts
    ]
    found = Demonstrations(pairs, encode=SentenceEncoder(path))
    assert [task.prompt for task, _ in found.search("the baker pay 1", 1)] == ["pay the baker 1"]


def test_a_directory_without_a_model_is_told(tmp_path):
    with pytest.raises(DataError, match="holds no sentence encoder"):
        SentenceEncoder(tmp_path)
