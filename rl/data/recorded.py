"""A search that others recorded as ranked attempts at one task."""

from collections.abc import Iterator, Mapping

from rl.data.conversations import UNREADABLE, Message, call_id
from rl.data.ranked import recorded_candidate, recorded_row
from rl.data.rows import Row
from rl.data.trees import FINISH, Made, Searched, Step, calls_of
from rl.data.ways import CLEAN, Kept, as_json, final_answer, is_kept
from rollouts.formats.react import ACTION, ACTION_INPUT, FINAL_ANSWER, OBSERVATION, THOUGHT


def recorded_search(one: Searched, id: str) -> Row:
    """A search as a ranked row: each way is an attempt in the words of ReAct, with reward 1 where nothing is wrong.

    A way that answers after a call that failed has 0.5; one that answers nothing, or with an excuse, 0. The best is
    ``way_1``.

    Args:
        one: the search.
        id: of its task.

    Raises:
        ValueError: it has no way at all.
    """
    scored = sorted(((_worth(way), -place, way) for place, way in enumerate(one.ways())), key=lambda way: way[:2])
    if not scored:
        raise ValueError("nothing was tried")
    candidates = [_candidate(way, worth, f"way_{number}") for number, (worth, _, way) in enumerate(scored[::-1], 1)]
    tools = [{"type": "function", "function": dict(tool)} for tool in one.tools if tool.get("name") != FINISH]
    best = scored[-1][2]
    answer = final_answer(best[-1].text) if best[-1].ends else None
    return recorded_row(id, one.query, candidates, tools=tools, format="react", answer=answer or None)


def _worth(way: tuple[Step, ...]) -> float:
    if not way or not is_kept(way, Kept(excuses=False)):
        return 0.0
    return 1.0 if is_kept(way, CLEAN) else 0.5


def _candidate(way: tuple[Step, ...], worth: float, source: str) -> Row:
    replies: list[str] = []
    messages: list[Message] = []
    thoughts: list[str] = []
    calls = calls_of(way)
    for number, made in enumerate(calls):
        thoughts += [made.thought] if made.thought else []
        if not made.tool and number < len(calls) - 1:
            continue
        thought = "\n".join(thoughts)
        before = f"{THOUGHT}{thought}\n" if thought else ""
        if made.tool and made.tool != FINISH:
            replies.append(f"{before}{ACTION} {made.tool}\n{ACTION_INPUT} {made.arguments}\n{OBSERVATION}")
            messages += _called(made, thought, number)
        else:
            answer = final_answer(made.arguments) if made.tool else ""
            replies.append(f"{before}{FINAL_ANSWER} {answer}")
            messages.append({"role": "assistant", "content": "\n".join(filter(None, [thought, answer]))})
        thoughts = []
    return recorded_candidate(source, worth, replies, messages)


def _called(made: Made, thought: str, number: int) -> Iterator[Message]:
    arguments = as_json(made.arguments)
    if not isinstance(arguments, Mapping):
        yield {"role": "assistant", "content": f"{thought}\n{made.tool}\n{made.arguments}".strip()}
        yield {"role": "tool", "name": UNREADABLE, "content": made.observation, "status": "malformed"}
        return
    function = {"name": made.tool, "arguments": dict(arguments)}
    call = {"id": call_id(number, 0), "type": "function", "function": function}
    yield {"role": "assistant", "content": thought, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "name": made.tool, "content": made.observation}
    yield result | {"status": "tool_error" if made.failed else "ok"}
