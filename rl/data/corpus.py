"""A run's corpus on disk: API records, and for each its requests, their expected calls and the attempts at them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.corpus.records import read_records
from executors.openapi.tools import Api, read_openapi
from executors.schemas.vocabulary import words
from rewards.process import Instruction as Told
from rewards.process import Step, read_gold
from rl.data.tables import write_text, written
from rl.data.toolalpaca import Instance, read_instances, record
from rollouts.instructions import Instruction
from rollouts.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusApi:
    """One API of the corpus, with its requests and the attempts at them."""

    record: Mapping[str, Any]
    api: Api
    instances: tuple[Instance, ...]

    @property
    def name(self) -> str:
        return str(self.record["Name"])

    @property
    def told(self) -> dict[str, tuple[str, ...]]:
        """By function, the parameters that it requires."""
        return {one.name: tuple(one.parameters.get("required", ())) for one in self.api.operations}

    def gold(self, number: int) -> tuple[list[Step], Told]:
        """The expected calls of a request, and what its text and the documentation say."""
        calls = self.record["Golden_Answers"][number]
        steps = [read_gold(call["Action"], call["Action_Input"]) for call in calls]
        return steps, Told(text=self.record["Instructions"][number], required=self.told)


def instance_path(folder: Path, number: int, name: str) -> Path:
    """The file of one API."""
    slug = "-".join(words(name)) or "api"
    return folder / f"{number:04d}-{re.sub(r'[^a-z0-9-]', '', slug)[:60] or 'api'}.json"


def write_instances_of(
    path: Path, api: Mapping[str, Any], instructions: Sequence[Instruction], groups: Sequence[Group]
) -> None:
    """Write an API's record with its requests, their expected calls and the attempts, as ToolAlpaca's files have them.

    Raises:
        ConfigError: the file cannot be written.
    """
    whole = {
        **api,
        "Instructions": [one.text for one in instructions],
        "Golden_Answers": [one.gold for one in instructions],
        "Instances": [record(Instance(task=group.task, episode=group.episodes[0])) for group in groups],
    }
    written(whole)
    write_text(path, json.dumps([whole], ensure_ascii=False, indent=1))


def read_corpus_api(path: Path) -> CorpusApi:
    """An API with its requests and attempts.

    Raises:
        DataError: the file cannot be read, or is no such file.
    """
    content = read_records(path)[0]
    api = read_openapi(content["Documentation"])
    kept = {key: value for key, value in content.items() if key != "Instances"}
    return CorpusApi(record=kept, api=api, instances=tuple(read_instances(path)))
