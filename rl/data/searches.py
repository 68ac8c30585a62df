"""This project's searches as ToolBench's files, and ToolBench's files as what a policy learns attempts from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from executors.errors import DataError
from executors.tools.describe import documentation
from executors.types import MalformedCall, Observation, Status, ToolCall, ToolSpec
from rl.data.conversations import UNREADABLE, said
from rl.data.trees import (
    ANSWERED,
    FINISH,
    GAVE_UP,
    GIVE_ANSWER,
    GIVE_UP,
    Searched,
    Step,
    answer_details,
    named,
    pairs_of,
    read_searched,
    ways_of,
    written,
)
from rl.data.ways import Kept, as_json, final_answer, kept_ways
from rl.run import write_json
from rollouts.formats import Format
from rollouts.formats.atomic import DESCRIBE
from rollouts.policy import Source
from rollouts.search import Node, Search, Searching
from rollouts.types import Episode, Task

_CODES: Mapping[Status, int] = {
    "ok": 0,
    "bad_call": 2,
    "tool_error": 11,
    "timeout": 5,
    "blocked": 8,
    "unavailable": 12,
}
"""ToolBench's code for each status."""
_NO_SUCH_TOOL = 1
_FINISH_TOOL: Mapping[str, Any] = {
    "name": FINISH,
    "description": "Ends the attempt: with the answer for the user, or without one, so that another way is tried.",
    "parameters": {
        "type": "object",
        "properties": {
            "return_type": {"type": "string", "enum": [GIVE_ANSWER, GIVE_UP]},
            "final_answer": {"type": "string", "description": f"What the user reads, with {GIVE_ANSWER}."},
        },
        "required": ["return_type"],
    },
}


def searched(found: Search, format: Format, specs: Sequence[ToolSpec]) -> Searched:
    """A search as ToolBench writes it.

    Args:
        found: the search.
        format: in which it was played; of ToolGen's agent, the naming of a tool and its input are one action.
        specs: of the task's tools.
    """
    told = [spec for spec in specs if spec.name != DESCRIBE]
    writer = _Writer(format, told)
    best = found.best()
    valid = bool(best) and best[-1].answered
    answer = _finish(best[-1].answer) if valid else ""
    made = Searched(
        query=found.task.prompt,
        tools=(*({**spec.as_openai()["function"]} for spec in told), _FINISH_TOOL),
        method=found.searching.name,
        steps=writer.steps(found.children, ""),
        answer=answer,
        valid=valid,
        queries=found.queries,
        tokens=sum(_tokens(node) for node in found.children),
    )
    return replace(made, rest=_rest(made, found))


def searched_attempt(task: Task, episode: Episode, format: Format, specs: Sequence[ToolSpec]) -> Searched:
    """An attempt as ToolBench writes a search: a chain of one way.

    Args:
        task: what was attempted.
        episode: the attempt.
        format: in which it was played.
        specs: of the task's tools.
    """
    below: tuple[Node, ...] = ()
    last = len(episode.turns) - 1
    for order, turn in reversed(list(enumerate(episode.turns))):
        ended = {"stop": episode.stop, "answer": episode.answer} if order == last else {}
        below = (Node(turn=turn, order=order, children=below, **ended),)
    found = Search(
        id=episode.id,
        task=task,
        source=Source(name=episode.source, policy=episode.policy),
        policy=episode.policy,
        version=episode.version,
        seed=episode.seed,
        searching=Searching(method="chain", width=1, depth=max(1, len(episode.turns))),
        children=below,
        stop="answer" if below and episode.stop == "answer" and episode.answer else "exhausted",
        queries=len(episode.turns),
        seconds=episode.seconds,
    )
    return searched(found, format, specs)


def write_searches(folder: Path, made: Mapping[str, Searched], name: str = "answers") -> Path:
    """Write one file for each query, and ``<name>.json`` with the ``answer_details`` of all.

    Args:
        folder: where.
        made: by the query's id.
        name: of the file for all.

    Returns:
        That file.
    """
    for id, one in made.items():
        write_json(folder / f"{id.replace('/', '-')}_{one.method}.json", written(one))
    write_json(folder / f"{name}.json", {id: answer_details(one) for id, one in made.items()})
    return folder / f"{name}.json"


def read_trees(folder: Path) -> dict[str, Searched]:
    """Every tree and chain in a folder and the folders in it, in the order of their names, by the query's id.

    Those are the files ``ID_METHOD.json``. Of several with the same id the later ones go by their whole path.

    Args:
        folder: a file will do too.

    Raises:
        DataError: one of them cannot be read, or there is none.
    """
    files = sorted(folder.rglob("*_*.json")) if folder.is_dir() else [folder]
    found: dict[str, Searched] = {}
    for path in files:
        id, _ = named(path)
        found[id if id not in found else str(path.relative_to(folder).with_suffix(""))] = read_searched(path)
    if not found:
        raise DataError(
            f"{folder} has no tree or chain of ToolBench's, which are files such as 588_DFS_woFilter_w2.json"
        )
    return found


def are_trees(path: Path) -> bool:
    """Whether a path is one of ToolBench's trees or chains, or a folder of them, rather than a run's."""
    inside = path.is_dir() and not (path / "config.resolved.yaml").is_file() and any(path.rglob("*_*.json"))
    return inside or (path.is_file() and path.suffix == ".json")


Form = Literal["answers", "agent", "sharegpt"]
"""``answer_details`` by query for the evaluation; rows of ``agent_tuning.json``; rows of ToolGen's own form."""


def converted(made: Mapping[str, Searched], form: Form, kept: Kept = Kept()) -> Any:
    """What searches say in another form.

    Args:
        made: by the query's id.
        form: which.
        kept: of ``agent`` and ``sharegpt``, the ways that are learned from.
    """
    if form == "agent":
        return agent_rows(made.values(), kept=kept)
    if form == "sharegpt":
        return sharegpt_rows(made.values(), kept=kept)
    return {id: answer_details(one) for id, one in made.items()}


def agent_rows(
    made: Iterable[Searched],
    texts: Mapping[str, str] | None = None,
    max_observation: int = 1024,
    kept: Kept = Kept(),
) -> list[dict[str, Any]]:
    """What ``agent_tuning.json`` holds: the calls of each search's ways that are learned from.

    Each step has its ``documentation`` and ``observation`` too, which ``rl.data.toolgen`` lets the policy read.

    Args:
        made: searches.
        texts: by the tool's name, what stands for it, such as its token; its name by default.
        max_observation: characters of what came back.
        kept: which ways; by default the last that ends with an answer.
    """
    rows = []
    for found, way in ((one, way) for one in made for way in kept_ways(one, kept)):
        specs = _specs(found)
        steps = [
            {
                "thought": thought,
                "action": (texts or {}).get(tool, tool),
                "action_input": as_json(arguments),
                "documentation": documentation(specs[tool]) if tool in specs else "",
                "observation": observation[:max_observation],
            }
            for thought, tool, arguments, observation in pairs_of(way)
            if tool and tool != FINISH
        ]
        rows.append({"query": found.query, "plan_sequence": steps, "final_answer": final_answer(way[-1].text)})
    return rows


def sharegpt_rows(
    made: Iterable[Searched],
    texts: Mapping[str, str] | None = None,
    max_observation: int = 1024,
    kept: Kept = Kept(),
) -> list[dict[str, Any]]:
    """The same in ToolGen's form: a message each for thought, action and input, with a flag for what is learned."""
    rows = []
    for row in agent_rows(made, texts, max_observation, kept):
        messages = [_message("user", row["query"], False)]
        for step in row["plan_sequence"]:
            messages += [
                _message("assistant", step["thought"] or "On to the next step.", bool(step["thought"])),
                _message("user", "Name the action.", False),
                _message("assistant", step["action"], True),
                _message("user", f"Now its input. What is known of it:\n{step['documentation']}", False),
                _message("assistant", json.dumps(step["action_input"], ensure_ascii=False), True),
                _message("function", step["observation"], False),
            ]
        messages += [
            _message("assistant", f"<<{FINISH}>>", True),
            _message("user", "Now its input.", False),
            _message("assistant", _finish(row["final_answer"]), True),
        ]
        rows.append({"conversations": messages})
    return rows


class _Writer:
    """Writes the nodes of one search as steps."""

    def __init__(self, format: Format, specs: Sequence[ToolSpec]) -> None:
        self._format = format
        self._specs = specs
        self._known = {spec.name for spec in specs}

    def steps(self, nodes: Sequence[Node], named: str) -> tuple[Step, ...]:
        """Nodes and what follows them.

        Args:
            nodes: the replies that were tried in one place.
            named: the tool that was named before, whose input they are.
        """
        return tuple(self._node(node, named) for node in nodes)

    def _node(self, node: Node, named: str) -> Step:
        turn = node.turn
        pairs = list(zip(turn.calls, turn.observations, strict=True))
        call = turn.call
        naming = isinstance(call, ToolCall) and call.tool == DESCRIBE
        asked = str(call.arguments.get("tool", "")) if isinstance(call, ToolCall) and naming else ""
        below = self.steps(node.children, asked)
        finished = any(child.finished for child in below) or node.answered
        ended = replace(_PLAIN, finished=finished, pruned=node.stop is not None and not node.answered)
        if not turn.calls:
            code = ANSWERED if node.answered else GAVE_UP
            seen = json.dumps({"response": "answered" if node.answered else "given up"})
            given = replace(ended, kind="Action Input", text=_finish(node.answer), observation=seen, code=code)
            made = replace(_PLAIN, kind="Action", text=FINISH, finished=finished, children=(given,))
        elif naming:
            made = replace(ended, kind="Action", text=asked, children=below)
        else:
            made = self._calls(pairs, ended, below, named)
        thought = self._thought(node)
        return made if not thought else replace(_PLAIN, text=thought, finished=finished, children=(made,))

    def _calls(
        self,
        pairs: Sequence[tuple[ToolCall | MalformedCall, Observation]],
        ended: Step,
        below: tuple[Step, ...],
        named: str,
    ) -> Step:
        """The calls of one reply, one below the other."""
        made: Step | None = None
        for place, (call, seen) in reversed(list(enumerate(pairs))):
            tool = named or (call.tool if isinstance(call, ToolCall) else UNREADABLE)
            text = json.dumps(dict(call.arguments)) if isinstance(call, ToolCall) else call.text
            code = _CODES[seen.status]
            if seen.status == "bad_call" and tool not in self._known:
                code = _NO_SUCH_TOOL
            last = place == len(pairs) - 1
            given = replace(
                ended if last else replace(_PLAIN, finished=ended.finished),
                kind="Action Input",
                text=text,
                observation=seen.content,
                code=code,
                children=below if made is None else (made,),
            )
            alone = bool(named) and place == 0
            made = given if alone else Step(kind="Action", text=tool, finished=ended.finished, children=(given,))
        assert made is not None
        return made

    def _thought(self, node: Node) -> str:
        """What a reply says before its call or its answer."""
        text = node.turn.completion.text
        if node.turn.calls:
            unread = any(isinstance(call, MalformedCall) for call in node.turn.calls)
            return "" if unread else said(node.turn, self._format, self._specs).content
        mark = self._format.forced("direct", self._specs).strip()
        return text.partition(mark)[0].strip() if mark and mark in text else ""


_PLAIN = Step(kind="Thought", text="")


def _finish(answer: str | None) -> str:
    given = answer.strip() if answer else ""
    made = {"return_type": GIVE_ANSWER, "final_answer": given} if given else {"return_type": GIVE_UP}
    return json.dumps(made, ensure_ascii=False)


def _specs(one: Searched) -> dict[str, ToolSpec]:
    return {
        str(tool["name"]): ToolSpec(str(tool["name"]), str(tool.get("description", "")), tool.get("parameters", {}))
        for tool in one.tools
        if tool.get("name") != FINISH
    }


def _message(role: str, content: str, loss: bool) -> dict[str, Any]:
    return {"role": role, "content": content, "loss": loss}


def _tokens(node: Node) -> int:
    """Read and written, in all replies from a node on."""
    completion = node.turn.completion
    own = completion.prompt_tokens + (len(completion.token_ids) or completion.written_tokens)
    return own + sum(map(_tokens, node.children))


def _rest(made: Searched, found: Search) -> dict[str, Any]:
    """What ToolBench's file has beside the steps."""
    searching = found.searching
    limits: dict[str, Any] = {"single_chain_max_step": searching.depth, "answer": searching.answers}
    generation = {
        "valid_data": made.valid,
        "query_count": made.queries,
        "total_tokens": made.tokens,
        "final_answer": made.answer,
        "function": [dict(tool) for tool in made.tools],
        "chain": [],
        "train_messages": [_messages(made)] if made.valid else [],
        "query": made.query,
    }
    common = {"win": made.valid, "compare_candidates": [], "answer_generation": generation}
    if searching.method == "chain":
        limits |= {"pass_at": searching.width}
        won = [{"chain": 1, "win": any(way[-1].ends for way in ways_of([step]))} for step in made.steps]
        return {**common, "try_count": len(won), "trys": won, "forward_args": limits}
    limits |= {"tree_beam_size": searching.width, "max_query_count": searching.queries, "with_filter": False}
    root = {"is_terminal": False, "pruned": False, "finished": False, "depth": 0, "node_type": "Action Input"}
    root |= {"description": "", "Elo": 1000.0, "child_count": len(made.steps), "expand_num": 0, "io_state": {}}
    sizes = [_size(step) for step in made.steps]
    lengths = [len(way) for way in made.ways()]
    tree = {"size": 1 + sum(sizes), "max_length": 1 + max(lengths, default=0), "tree": root}
    return {**common, "tree": tree, "forward_args": limits}


def _size(step: Step) -> int:
    return 1 + sum(map(_size, step.children))


def _messages(made: Searched) -> list[dict[str, Any]]:
    """The best way as a chat with functions, as ToolBench trains on it."""
    chat: list[dict[str, Any]] = [{"role": "system", "content": ""}, {"role": "user", "content": made.query}]
    for thought, tool, arguments, observation in pairs_of(made.best()):
        if thought:
            chat.append({"role": "assistant", "content": thought})
        if tool:
            chat.append({"role": "assistant", "function_call": {"name": tool, "arguments": arguments}})
        if tool and tool != FINISH:
            chat.append({"role": "function", "name": tool, "content": observation})
    return chat
