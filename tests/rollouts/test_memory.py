"""What exploring remembers, what it makes of it, and the words it finds."""

import asyncio
import random
from typing import Any

from executors.catalog import Catalog
from executors.errors import ToolError
from executors.executor import Executor
from executors.tool import tool
from executors.types import Observation, Status, ToolCall, ToolSpec
from rollouts.formats.react import ReactFormat
from rollouts.imagine import ModelImaginer, SchemaImaginer, imagining
from rollouts.memory import Memory, Trial, named_values, recalling, shingles, similarity
from rollouts.phrasing import phrase, purpose_of, rephrased
from rollouts.types import Completion, Episode, Task, Turn
from rollouts.values import varied


@tool(instant=True)
def pay(amount: int, coin: str, gift: bool = False) -> str:
    """Pay an amount of money.

    Args:
        amount: how much, such as 100.
        coin: the currency.
        gift: whether it is one.
    """
    if coin not in ("PESOS", "EUROS"):
        raise ToolError(f"coin {coin!r} is not known; it is one of PESOS, EUROS")
    return f"paid {amount} {coin}"


def attempt(arguments: dict[str, Any], content: str = "paid", status: Status = "ok", name: str = "pay") -> Episode:
    turn = Turn(Completion(text="..."), (ToolCall(name, arguments),), (Observation(content, status),))
    return Episode(task_id="t", source="s", policy="p", version=0, turns=(turn,), answer=None, stop="turn_limit")


def trial(query: str, *attempts: Episode, number: int = 0, solved: bool | None = True) -> Trial:
    task = Task(id=f"t{number}", prompt=query, tools=("pay",))
    return Trial(tool="pay", episode=0, number=number, task=task, attempts=attempts, solved=solved)


def imagine(memory: Memory, seeds: range, **options: Any) -> list[tuple[str, ToolCall, Observation]]:
    """Queries one after the other, each call really made and remembered."""
    imaginer, executor, found = SchemaImaginer(**options), Executor(Catalog([pay])), []
    for seed in seeds:
        imagined = asyncio.run(imaginer.imagine(pay.spec, memory, [], seed))
        if imagined is not None and imagined.call is not None:
            seen = executor.run(imagined.call)
            memory.add(trial(imagined.query, attempt(dict(imagined.call.arguments), seen.content, seen.status)))
            found.append((imagined.query, imagined.call, seen))
    return found


def test_near_duplicates_are_told_by_words_and_their_neighbours():
    assert similarity(shingles("Pay 5 EUROS."), shingles("pay 5 euros")) == 1
    assert similarity(shingles("pay 5 euros"), shingles("what day is it")) == 0
    memory = Memory(pay.spec, [trial("Pay 5 EUROS, please.")])
    assert memory.nearest("Pay 5 EUROS, please!") == 1 > memory.nearest("Pay 7 EUROS, please!") > 0.3
    assert Memory(pay.spec).nearest("anything") == 0


def test_coverage_counts_what_was_given_left_out_chosen_and_refused():
    memory = Memory(pay.spec, [trial("a", attempt({"amount": 1, "coin": "PESOS"}))])
    first = memory.coverage()
    assert first.missing == ("!", "+gift", "gift=false", "gift=true")
    assert (first.given, first.left_out, first.statuses) == ({"amount": 1, "coin": 1}, {"gift": 1}, {"ok": 1})
    assert first.share == 1 - 4 / first.total
    refused = attempt({"amount": 1, "coin": "YEN", "gift": True}, "no", "tool_error")
    later = memory.with_trials([trial("b", refused, attempt({}, name="other"))]).coverage()
    assert later.missing == ("gift=false",)
    assert later.statuses == {"ok": 1, "tool_error": 1, "other_tool": 1}
    assert len(memory) == 1  # it stays as it was
    assert Memory(ToolSpec("now", "")).coverage().share == 1


def test_memory_tells_what_worked_what_failed_and_what_errors_offered():
    memory = Memory(
        pay.spec,
        [
            trial("a", attempt({"amount": 1, "coin": "YEN"}, "no; it is one of PESOS, DOLARES or EUROS", "tool_error")),
            trial("b", attempt({"amount": 2, "coin": "PESOS"})),
            trial("c", attempt({"amount": 1, "coin": "PESOS"}), number=2, solved=False),
        ],
    )
    assert memory.worked("coin") == ["PESOS"] and memory.worked("amount") == [1, 2]
    assert memory.failed("coin") == ["YEN"] and memory.failed("amount") == []
    assert memory.offered() == ["PESOS", "DOLARES", "EUROS"]
    assert memory.block(2) == "Query: b | Solved: Yes\nQuery: c | Solved: No"
    assert named_values("such as km, feet or m2.") == ["km", "feet", "m2"]


def test_imagined_queries_are_valid_new_and_have_every_value():
    found = imagine(Memory(pay.spec), range(40))
    assert len({query for query, _, _ in found}) == len(found) >= 38
    for query, call, _ in found:
        assert "pay(" not in query and call.arguments.keys() >= {"amount", "coin"}
        assert str(call.arguments["amount"]) in query and str(call.arguments["coin"]) in query
    again = imagine(Memory(pay.spec), range(40))
    assert [query for query, _, _ in again] == [query for query, _, _ in found]


def test_imagining_learns_from_what_the_tool_says_when_it_refuses():
    """With its memory it finds the two currencies; without, it hardly ever does."""
    with_memory = imagine(Memory(pay.spec), range(60))[30:]
    without = [imagine(Memory(pay.spec), range(seed, seed + 1))[0] for seed in range(30, 60)]
    solved, blind = (sum(seen.ok for _, _, seen in found) for found in (with_memory, without))
    assert solved > 20 > 3 > blind
    assert {call.arguments["coin"] for _, call, seen in with_memory if seen.ok} == {"PESOS", "EUROS"}


def test_imagining_goes_for_what_was_not_seen_and_stops_where_nothing_is_new():
    memory = Memory(pay.spec)
    imagine(memory, range(40))
    assert memory.coverage().share == 1
    now = Memory(ToolSpec("now", "Tell the time."))
    queries = []
    for seed in range(40):
        imagined = asyncio.run(SchemaImaginer(max_similarity=0.5).imagine(now.spec, now, [], seed))
        if imagined is not None:
            queries.append(imagined.query)
            now.add(trial(imagined.query))
    assert len(set(queries)) == len(queries) < 15


def test_a_query_says_what_the_tool_is_for():
    spec = ToolSpec("x", "Converts an amount, from one unit to another. Exact. Very.")
    assert purpose_of(spec) == "convert an amount, from one unit to another"
    assert purpose_of(ToolSpec("get_time", "")) == "get time"
    words = {phrase(spec, {"amount": 5, "to_unit": "km"}, random.Random(seed)) for seed in range(60)}
    assert len(words) > 50
    assert all("5" in query and "km" in query and "unit" in query.lower() for query in words)


def test_a_paraphrase_keeps_what_is_asked():
    call = ToolCall("pay", {"amount": 5, "coin": "EUROS"})
    for seed in range(30):
        said = rephrased("Pay 5 EUROS.", call, pay.spec, random.Random(seed))
        assert "5" in said and "EUROS" in said and said != "Pay 5 EUROS."
    assert "Pay five." in rephrased("Pay five.", call, pay.spec, random.Random(1))


def test_values_are_varied_and_keep_their_look():
    draw = random.Random(0)
    assert all(len(varied("2024-01-31", draw)) == 10 for _ in range(20))
    assert all(varied("AB-1000", draw).startswith("AB-") for _ in range(20))
    assert varied(True, draw) is True and varied(None, draw) is None
    assert isinstance(varied(3, draw), int) and isinstance(varied(2.5, draw), float)


def test_a_model_imagines_with_its_memory_shown_for_one_question_only():
    chats = []

    async def model(messages: list[dict[str, str]], **options: Any) -> str:
        chats.append(messages)
        return 'User Query: "Pay 5 EUROS."' if len(chats) < 3 else "User Query: Give Ann 7 PESOS as a gift."

    recent = [trial("Pay 1 EUROS.", attempt({"amount": 1, "coin": "EUROS"}))]
    memory = Memory(pay.spec, [trial("Pay 5 EUROS.", number=7), *recent])
    imagined = asyncio.run(ModelImaginer(model).imagine(pay.spec, memory, recent, seed=1))
    assert imagined is not None and imagined.query == "Give Ann 7 PESOS as a gift." and imagined.tokens > 0
    assert len(chats) == 3  # the first two were tried before
    assert [message["role"] for message in chats[0]] == ["user", "assistant", "user"]
    assert "Pay 5 EUROS. | Solved: Yes" in chats[0][-1]["content"]
    assert "Pay 5 EUROS." not in chats[0][0]["content"]
    alone = imagining(pay.spec, Memory(pay.spec, recent), recent)
    assert "Solved:" not in alone[-1]["content"]


def test_short_term_memory_stands_before_the_prompt_word_for_word():
    format = ReactFormat(describe_tools=False)
    task = Task(id="1", prompt="Pay 1 EUROS.")
    text = format.write_call(ToolCall("pay", {"amount": 1}), ())
    turn = Turn(Completion(text=text), (ToolCall("pay", {"amount": 1}),), (Observation("paid"),))
    before = Episode(task_id="1", source="s", policy="p", version=0, turns=(turn,), answer=None, stop="turn_limit")
    told = recalling(format, [(task, before)], ())
    opening = told.opening(Task(id="2", prompt="Pay 2 EUROS."), ())
    assert opening == f"User Query: Pay 1 EUROS.\n{text} paid\n\nUser Query: Pay 2 EUROS.\n"
    assert told.parse(text, ()) == format.parse(text, ()) and told.stop == format.stop
