"""StableToolBench's queries: which of some two thousand web APIs answers a request (ToolGen, ToolBench).

These are a benchmark's test queries. Where they are learned from they are split by query first, and no figure is set
beside a published one.
"""

import json
import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from executors.errors import DataError
from executors.foreign import ForeignTool, read_toolbench
from executors.names import Identity
from rl.config import Strict
from rl.data.tasks.benchmark import data_folder
from rl.data.tasks.funcqa import read_json
from rl.data.tasks.tool_requests import Query, Retrieval, Split, split_of


class ToolBench(Strict):
    """StableToolBench's solvable queries and the APIs that they are offered."""

    kind: Literal["toolbench"] = "toolbench"
    groups: tuple[str, ...] = ()
    """Files to read, such as ``G1_tool``; all by default."""
    test_share: float = Field(default=0.25, gt=0, lt=1)
    validation_share: float = Field(default=0.05, gt=0, lt=1)

    def load(self) -> Retrieval:
        """Read the data set.

        Raises:
            DataError: it is not there or cannot be read.
        """
        folder = data_folder("stabletoolbench")
        files = [folder / f"{group}.json" for group in self.groups] or sorted(folder.glob("*.json"))
        tools = _tools(files)
        names: dict[tuple[str, str], str] = {}
        for name, tool in tools.items():
            names.setdefault((tool.identity.owner, tool.identity.raw), name)
        splits: dict[Split, list[Query]] = {"train": [], "validation": [], "test": []}
        rejected = []
        for file in files:
            for number, row in enumerate(read_json(file)):
                wanted = dict.fromkeys(names[pair] for api in row["relevant APIs"] if (pair := _pair(api)) in names)
                if not wanted:
                    rejected.append(f"{file.stem}, item {number}: none of its relevant APIs is described")
                    continue
                offered = (names[api["tool_name"], api["api_name"]] for api in row["api_list"])
                query = Query(
                    id=f"{file.stem}-{row['query_id']}",
                    text=str(row["query"]),
                    wanted=tuple(wanted),
                    offered=tuple(dict.fromkeys(offered)),
                    group=file.stem,
                )
                splits[split_of(query.text, self.test_share, self.validation_share)].append(query)
        return Retrieval(
            tools=tools,
            train=tuple(splits["train"]),
            validation=tuple(splits["validation"]),
            test=tuple(splits["test"]),
            rejected=tuple(rejected),
        )


def _pair(api: object) -> tuple[str, str]:
    if not isinstance(api, list) or len(api) != 2:
        raise DataError(f"a relevant API is {api!r}, and should be a tool and an API of it")
    return str(api[0]), str(api[1])


def _tools(files: list[Path]) -> dict[str, ForeignTool]:
    """The APIs of all files, each once, under names of the whole set: what differs in words only is one tool."""
    first: dict[tuple[str, str], ForeignTool] = {}
    for file in files:
        for tool in read_toolbench(file):
            first.setdefault((tool.identity.owner, tool.identity.raw), tool)
    return {tool.spec.name: tool for tool in first.values()}


def virtual_tokens(path: Path) -> list[Identity]:
    """ToolGen's list of tool tokens: ``<<tool&&api>>`` a line, of which the API may have ``&&`` in it too.

    Raises:
        DataError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    parts = [line.removeprefix("<<").removesuffix(">>").split("&&", 1) for line in lines if line]
    return [Identity(part[-1], part[0] if len(part) == 2 else "") for part in parts]


_UNUSABLE = re.compile(r"[^\u4e00-\u9fa5a-zA-Z0-9_^]")
_KEYWORDS = frozenset({"from", "class", "return", "false", "true", "id", "and"})


def legacy_name(tool: str, api: str) -> str:
    """What ToolGen calls a tool when it runs it, of which 154 stand for several tools each."""
    name = _standard(api)
    return f"{f'is_{name}' if name in _KEYWORDS else name}_for_{_standard(tool)}"[-64:]


def _standard(text: str) -> str:
    text = re.sub(r"_+", "_", _UNUSABLE.sub("_", text)).lower().strip("_")
    return f"get_{text}" if text[:1].isdigit() else text


def document(tool: ForeignTool) -> str:
    """What a tool is found by, as ToolGen writes it."""
    about = {"category_name": tool.category, "tool_name": tool.identity.owner, "api_name": tool.identity.raw}
    return json.dumps({**about, "api_description": tool.spec.description, "parameters": tool.spec.parameters})
