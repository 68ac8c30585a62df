"""ToolAlpaca's instances: read as tasks and episodes, and written again just as they were.

An instance is ``{"input", "output", "Final Thought", "intermediate_steps": [[[action, input, text], observation]]}``.
Almost all of it is an episode. What an episode would be written otherwise (an input that its text spells in another
way, a key of somebody's own) is kept beside it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executors.arguments import read_arguments
from executors.errors import BadCallError, DataError
from executors.types import MalformedCall, Observation, Status, ToolCall
from rl.data.rows import read_rows
from rl.data.tables import write_text, written
from rollouts.formats.toolalpaca import ToolAlpacaFormat
from rollouts.types import Completion, Episode, Task, Turn

SOURCE = "toolalpaca"
"""The policy that recorded instances are said to be of."""
LIMIT = "Agent stopped due to iteration limit or time limit."
"""The output of an attempt that was still calling at its limit."""
KEYS = ("input", "output", "Final Thought", "intermediate_steps")

_STEP = re.compile(
    r"(?:ASSISTANT\s*)?Action\s*\d*\s*:(.*?)\n\s*(?:ASSISTANT\s*)?Action\s*\d*\s*Input\s*\d*\s*:\s*(.*)", re.DOTALL
)
_FINAL = re.compile(r"\n(ASSISTANT Response|Final Answer):(.*)", re.DOTALL)
_STATUS_CODE = re.compile(r"Status Code: (\d)")
_REFUSALS = ("Parameter type error", "Missing required parameters", "Invalid JSON", "'Action Input' cannot be a list")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance: a task, the attempt at it, and what the two would be written otherwise."""

    task: Task
    episode: Episode
    keys: tuple[str, ...] = KEYS
    """Those of the instance, in their order; none where it was a text: what its author's agent failed with."""
    kept: Mapping[str, Any] = field(default_factory=dict)
    """By key, what the episode would be written otherwise, as it was."""
    api: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The record of the API that it belongs to, its instances left out; empty for an instance that stands alone."""


def read_instances(path: Path, rejected: list[str] | None = None) -> list[Instance]:
    """The instances of a file: a list or lines of instances, or of API records with their ``Instances``.

    Args:
        path: of the file.
        rejected: where given, rows and instances that are none are left out and named here.

    Raises:
        DataError: the file cannot be read, or an instance is none; with its place.
    """
    instances: list[Instance] = []
    for place in read_rows(path, rejected):
        api = {key: value for key, value in place.row.items() if key != "Instances"} if _is_api(place.row) else {}
        records = place.row.get("Instances", [] if api else [place.row])
        name = str(api.get("Name") or api.get("API") or path.stem)
        if not isinstance(records, list):
            _reject(place.error("its Instances are a list"), rejected)
            continue
        for number, record in enumerate(records, start=1):
            try:
                instances.append(_instance(record, f"{name}-{number if api else place.number}", api))
            except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                where = f"instance {number} of {name}: " if api else ""
                _reject(place.error(f"{where}this is no instance of ToolAlpaca's: {error}"), rejected)
    return instances


def _reject(error: DataError, rejected: list[str] | None) -> None:
    """Name what is wrong, or raise it."""
    if rejected is None:
        raise error
    rejected.append(str(error))


def write_instances(path: Path, instances: Iterable[Instance]) -> None:
    """Write instances as one list, in the layout of the published files; each as it was read, byte by byte.

    Raises:
        ConfigError: the file cannot be written.
    """
    records = [record(instance) for instance in instances]
    written(records)  # what JSON cannot say is found before the file is touched
    write_text(path, json.dumps(records, indent=4, ensure_ascii=False))


def record(instance: Instance) -> dict[str, Any] | str:
    """An instance as JSON; of an episode that this project played, too."""
    if not instance.keys:
        return instance.episode.error
    told = _told(instance.task, instance.episode)
    return {key: instance.kept[key] if key in instance.kept else told[key] for key in instance.keys}


def _is_api(row: Mapping[str, Any]) -> bool:
    return "Instances" in row or "Function_Description" in row or "Documentation" in row


def _instance(record: Any, id: str, api: Mapping[str, Any]) -> Instance:
    if isinstance(record, str):
        return Instance(task=Task(id=id, prompt=""), episode=_episode({"error": record}, id), keys=(), api=api)
    if not isinstance(record, Mapping) or not record.keys() & {"input", "error"}:
        raise ValueError(f"it is an object with an input, not {str(record)[:80]}")
    task = Task(id=id, prompt=_text(record, "input"), tools=tuple(dict.fromkeys(_actions(record))))
    episode = _episode(record, id)
    told = _told(task, episode)
    kept = {key: value for key, value in record.items() if key not in told or told[key] != value}
    return Instance(task=task, episode=episode, keys=tuple(record), kept=kept, api=api)


def _actions(record: Mapping[str, Any]) -> Iterator[str]:
    for step in record.get("intermediate_steps", ()):
        yield step[0][0]


def _episode(record: Mapping[str, Any], id: str) -> Episode:
    turns = [_turn(*step) for step in record.get("intermediate_steps", ())]
    output = record.get("output")
    limited = output == LIMIT and "Final Thought" not in record
    if output is not None and not limited:
        marker = "ASSISTANT Response" if _chats(turns) else "Final Answer"
        turns.append(Turn(Completion(text=f"{_text(record, 'Final Thought')}\n{marker}: {_text(record, 'output')}")))
    failed = output is None
    return Episode(
        task_id=id,
        source=SOURCE,
        policy=SOURCE,
        version=0,
        turns=tuple(turns),
        answer=None if failed or limited else output,
        stop="failed" if failed else "turn_limit" if limited else "answer",
        error=str(record.get("error", "it has no output")) if failed else "",
    )


def _turn(action: Any, observation: Any) -> Turn:
    tool, arguments, text = action
    for part in (tool, arguments, text, observation):
        if not isinstance(part, str):
            raise ValueError(f"a step is [[action, input, text], observation], all texts, and has {part!r}")
    try:
        call: ToolCall | MalformedCall = ToolCall(tool, read_arguments(arguments))
    except BadCallError as error:
        call = MalformedCall(text, str(error))
    seen = Observation(observation, _status(observation), recorded=True)
    return Turn(Completion(text=text, finish="stop"), (call,), (seen,))


def _status(observation: str) -> Status:
    if observation.startswith(_REFUSALS) or "is not a valid action" in observation:
        return "bad_call"
    code = _STATUS_CODE.match(observation)
    return "tool_error" if code and code[1] != "2" else "ok"


def _told(task: Task, episode: Episode) -> dict[str, Any]:
    """What an episode says of an instance."""
    told: dict[str, Any] = {"input": task.prompt, "intermediate_steps": [], "output": LIMIT}
    for turn in episode.turns:
        text = turn.completion.text
        if turn.calls:
            told["intermediate_steps"].append([_action(turn), turn.observations[0].content])
        elif final := _FINAL.search(text):
            told["Final Thought"], told["output"] = text[: final.start()], final[2].removeprefix(" ")
        else:
            told["Final Thought"], told["output"] = "", episode.answer or text
    if episode.stop == "failed":
        del told["output"]
        told["error"] = episode.error
    return told


def _action(turn: Turn) -> list[str]:
    """Action, input and text of a turn that calls, as its text spells them."""
    text = turn.completion.text
    for stop in ToolAlpacaFormat().stop + ToolAlpacaFormat(variant="train_v2").stop:
        text = text.removesuffix(stop)
    found = _STEP.search(text)
    call = turn.calls[0]
    if found is not None:
        return [found[1].strip(), found[2].strip(" ").strip('"'), text]
    if isinstance(call, MalformedCall):
        return ["", call.text, text]
    return [call.tool, json.dumps(dict(call.arguments), ensure_ascii=False), text]


def _chats(turns: Iterable[Turn]) -> bool:
    """Whether the steps are written as a chat between a user and an assistant, as ``test_v1`` has it."""
    texts = [turn.completion.text for turn in turns]
    return not texts or any("ASSISTANT Action" in text for text in texts)


def _text(record: Mapping[str, Any], key: str) -> str:
    text = record.get(key, "")
    if not isinstance(text, str):
        raise ValueError(f"its {key} is a text, not {text!r}")
    return text
