"""Which ways of a recorded search are learned from."""

import json
import re
from typing import Any

from pydantic import Field

from rl.config import Strict
from rl.data.trees import FINISH, Searched, Step, calls_of

_INVENTED = 1
"""ToolBench's code of a call of a tool that there is not."""
_EXCUSES = re.compile(r"\b(?:i'm sorry|i am sorry|apologi[sz]e|unable to)\b", re.IGNORECASE)


class Kept(Strict):
    """What a way has to be like to be learned from; that it ends with an answer is asked in any case."""

    every: bool = False
    """All ways of a search that are like this, rather than the last one."""
    failures: float = Field(default=1.0, ge=0, le=1)
    """Share of its calls that may have failed."""
    invented: bool = True
    """Whether it may call tools that there are not."""
    excuses: bool = True
    """Whether its answer may be sorry that there is none."""


CLEAN = Kept(every=True, failures=0.0, invented=False, excuses=False)
"""Ways without a fault."""


def kept_ways(one: Searched, kept: Kept = Kept()) -> list[tuple[Step, ...]]:
    """The ways of a search that are learned from, in order; without ``every`` the last of them alone."""
    found = [way for way in one.ways() if way and is_kept(way, kept)]
    return found if kept.every else found[-1:]


def final_answer(arguments: str) -> str:
    """The answer in the arguments of ``Finish``; of broken JSON, all that stands there."""
    read = as_json(arguments)
    return str(read.get("final_answer", "")) if isinstance(read, dict) else str(read)


def as_json(text: str) -> Any:
    """What a text says as JSON; the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def is_kept(way: tuple[Step, ...], kept: Kept) -> bool:
    """Whether a way is like this; it has one step at least."""
    if not way[-1].ends:
        return False
    calls = [made for made in calls_of(way) if made.tool and made.tool != FINISH]
    if sum(made.failed for made in calls) > kept.failures * len(calls):
        return False
    if not kept.invented and any(made.code == _INVENTED for made in calls):
        return False
    return kept.excuses or not _EXCUSES.search(final_answer(way[-1].text))
