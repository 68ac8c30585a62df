"""Replies that follow a JSON schema, whatever the tokenizer and the format are."""

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from rl.models.tiny import build_model, build_tokenizer
from rl.serving.chat import ChatServer
from rl.serving.engine import TransformersPolicy
from rl.serving.protocol import ask
from rl.serving.structured import Structures
from rl.serving.wire import ChatError, read
from rollouts.formats import Format
from rollouts.formats.chat import ChatFormat
from rollouts.formats.inline import InlineFormat
from rollouts.formats.react import ReactFormat
from rollouts.formats.toolken import ToolkenFormat
from tests.rollouts.chat_templates import ChatMl

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "é": {"enum": ["ü a", 'b  "c"']},
        "tags": {"type": "array", "items": {"type": ["boolean", "null"]}, "maxItems": 2},
    },
    "required": ["name", "age", "é"],
    "additionalProperties": False,
}


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    texts = ['{"name": "Ann", "age": 3, "tags": [true]}', "What is 2 plus 3?"] * 3
    return build_tokenizer(texts, markers=("Answer: ", "<|im_end|>"), vocab_size=330)


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """As SentencePiece has it: spaces are letters, texts begin with one, and rare letters are bytes."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    for letter in '▁{}[]":,.->()AW?0123456789abcdefghijklmnopqrstuvwxyz':
        vocabulary[letter] = len(vocabulary)
    merges = [("▁", "a"), ('"', ":"), ('"', ","), ("n", "a"), ("▁", '"')]
    vocabulary |= {left + right: len(vocabulary) + place for place, (left, right) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<unk>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def chat(schema: dict[str, Any] = SCHEMA, **fields: Any):
    wanted = {"type": "json_schema", "json_schema": {"name": "wanted", "schema": schema}}
    body = {"model": "m", "messages": [{"role": "user", "content": "What is 2 plus 3?"}], "response_format": wanted}
    return read(json.dumps(body | fields).encode(), None)


@pytest.mark.parametrize("tokenizer", [bytes_tokenizer(), pieces_tokenizer()], ids=["bytes", "pieces"])
@pytest.mark.parametrize("format", [InlineFormat(), ChatFormat(ChatMl())], ids=["inline", "chat"])
async def test_what_random_weights_write_follows_the_schema(tokenizer: Any, format: Format):
    model = build_model(len(tokenizer), width=32, max_length=512, pad_id=tokenizer.pad_token_id, end_id=2)
    server = ChatServer(TransformersPolicy("m", model, tokenizer), format, ())
    for seed in range(3):
        response = await server.complete(chat(temperature=1.5, seed=seed, max_tokens=300))
        (choice,) = response["choices"]
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


class Writer:
    """What Structures ask of a policy."""

    name = "writer"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *ends: int) -> None:
        self.tokenizer = tokenizer
        self.ends = frozenset(ends)


def test_every_way_of_cutting_the_text_into_tokens_may_be_taken_and_none_that_breaks_the_schema():
    tokenizer = bytes_tokenizer()
    (constraint,) = Structures(Writer(tokenizer, 2)).constraints({"const": {"name": 1}}, 1)  # type: ignore[arg-type]
    ids = tokenizer.encode('{"name":1}')
    begun = tokenizer.encode("Answer: ")
    for place, id in enumerate(ids):
        allowed = {tokenizer.decode([each]) for each in constraint.allowed([*begun, *ids[:place]])}
        assert tokenizer.decode([id]) in allowed
        rest = '{"name":1}'[len(tokenizer.decode(ids[:place])) :]
        assert all(rest.startswith(text) or text == " " for text in map(str.lstrip, allowed) if text)
    assert list(constraint.allowed([*begun, *ids])) == [2]


def test_several_replies_to_one_schema_do_not_know_of_each_other():
    tokenizer = bytes_tokenizer()
    one, other = Structures(Writer(tokenizer, 2)).constraints({"enum": ["ab", "cd"]}, 2)  # type: ignore[arg-type]
    first = [list(each.allowed([])) for each in (one, other)]
    assert first[0] == first[1]
    one.allowed(tokenizer.encode('"ab'))
    assert np.array_equal(other.allowed(tokenizer.encode('"c')), tokenizer.encode("d"))


def test_a_policy_without_an_end_of_its_own_is_refused():
    with pytest.raises(ChatError, match="cannot be held to 'response_format'"):
        Structures(Writer(bytes_tokenizer()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True},
        {"not": {"type": "string"}},
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "object", "x-guidance": {"lenient": True}, "not": {}},
        {"type": "string", "format": "nonsense"},
    ],
)
def test_what_cannot_be_enforced_is_refused(schema):
    with pytest.raises(ChatError, match="the schema cannot be enforced") as caught:
        Structures(Writer(bytes_tokenizer(), 2)).constraints(schema, 1)  # type: ignore[arg-type]
    assert caught.value.status == 400


def test_a_schema_nested_without_end_is_refused():
    schema: dict[str, Any] = {}
    for _ in range(3000):
        schema = {"items": schema}
    with pytest.raises(ChatError, match="the schema cannot be enforced"):
        Structures(Writer(bytes_tokenizer(), 2)).constraints(schema, 1)  # type: ignore[arg-type]


def test_a_format_whose_answers_have_to_be_found_in_running_text_is_refused_and_one_that_marks_them_is_not():
    asked = ask(chat(), ReactFormat(), (), session="s")
    assert asked.schema == SCHEMA and asked.request.prefix
    assert asked.request.stop == ()
    with pytest.raises(ChatError, match="cannot be made to write an answer and nothing else") as caught:
        ask(chat(), ToolkenFormat(marker="The answer is"), (), session="s")
    assert caught.value.param == "response_format"
