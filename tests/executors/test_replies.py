"""Replies that are kept: nothing is paid for twice, and a crash loses at most the reply under way."""

import asyncio

import pytest

from executors.budget import BudgetError
from executors.endpoint import Endpoint
from executors.errors import DataError
from executors.replies import KeptClient
from executors.types import MalformedCall, ToolCall
from tests.executors.endpoints import endpoint

ASKED = [{"role": "user", "content": "Who?"}]
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}
BROKEN = {"id": "2", "type": "function", "function": {"name": "find", "arguments": "{"}}


def client(fake, path, **settings):
    return KeptClient(Endpoint(base_url=fake.url, model="m", retries=0, **settings), path)


def ask(kept, **options):
    async def closing():
        try:
            return await kept.chat(ASKED, **options)
        finally:
            await kept.close()

    return asyncio.run(closing())


def test_the_same_request_is_asked_once_and_another_seed_is_another_request(tmp_path):
    path = tmp_path / "deep" / "replies.jsonl"
    with endpoint("I.", {"content": None, "tool_calls": [CALL, BROKEN]}) as fake:
        first = client(fake, path, prompt_price=10.0)
        said, called = ask(first, seed=1), ask(first, seed=2)
        again = client(fake, path, prompt_price=10.0)
        assert (ask(again, seed=1), ask(again, seed=2)) == (said, called)
        assert len(fake.asked) == 2 and again.recalled == 2
        assert asyncio.run(again(ASKED, seed=1)) == "I."
    assert called.tool_calls[0] == ToolCall("find", {"a": 1})
    assert isinstance(called.tool_calls[1], MalformedCall)
    assert again.spent.usd == first.spent.usd == pytest.approx(2 * 100 * 10 / 1e6)
    assert again.spent.usage == first.spent.usage


def test_the_same_request_twice_at_once_is_asked_once(tmp_path):
    async def both(kept):
        replies = await asyncio.gather(kept.chat(ASKED, seed=1), kept.chat(ASKED, seed=1))
        await kept.close()
        return replies

    with endpoint("I.") as fake:
        one, other = asyncio.run(both(client(fake, tmp_path / "replies.jsonl")))
        assert one == other and len(fake.asked) == 1


def test_a_budget_counts_what_was_spent_before(tmp_path):
    settings = {"prompt_price": 10.0, "max_usd": 0.0032, "max_tokens": 20}
    with endpoint("I.") as fake:
        first = client(fake, tmp_path / "replies.jsonl", **settings)
        for seed in range(3):
            ask(first, seed=seed)
        with pytest.raises(BudgetError):
            ask(client(fake, tmp_path / "replies.jsonl", **settings), seed=3)
        assert len(fake.asked) == 3


def test_a_line_that_a_crash_cut_is_asked_again_and_spoils_no_other(tmp_path):
    path = tmp_path / "replies.jsonl"
    with endpoint("I.") as fake:
        for seed in range(2):
            ask(client(fake, path), seed=seed)
        path.write_bytes(path.read_bytes()[:-9])
        kept = client(fake, path)
        assert [ask(kept, seed=seed).text for seed in range(2)] == ["I.", "I."]
        assert len(fake.asked) == 3
        assert [ask(client(fake, path), seed=seed).text for seed in range(2)] == ["I.", "I."]
        assert len(fake.asked) == 3


def test_a_place_that_cannot_be_read_or_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with endpoint("I.") as fake:
        with pytest.raises(DataError, match="cannot be read"):
            client(fake, tmp_path)
        with pytest.raises(DataError, match="cannot be written"):
            ask(client(fake, tmp_path / "file" / "replies.jsonl"))
