"""How each kind of policy is built; every builder can be sent to another process and builds there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from executors.catalog import Catalog
from executors.endpoint import Endpoint, EndpointClient
from rl.models.load import load_model, load_tokenizer
from rl.serving.endpoint import EndpointPolicy, Mode
from rl.serving.engine import TransformersPolicy
from rl.serving.random_agent import Habits, RandomPolicy
from rollouts.formats import Format
from rollouts.policy import PolicyUnavailableError, ScriptedPolicy, derive_seed
from rollouts.types import Task


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """A model directory behind the transformers engine."""

    name: str
    path: str
    version: int = 0
    gpu: bool = False
    """Whether it runs on the process's GPU; else on one core."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Directories of LoRA adapters in PEFT's format, by the names that sources ask for them by."""

    def __call__(self) -> TransformersPolicy:
        path = Path(self.path)
        model: Any = load_model(path)
        if self.gpu:
            model = model.cuda()
        else:
            torch.set_num_threads(1)
        policy = TransformersPolicy(self.name, model, load_tokenizer(path), version=self.version)
        for name, folder in self.adapters.items():
            policy.load_adapter(name, folder)
        return policy


@dataclass(frozen=True, slots=True)
class RecordedPolicy:
    """Replies that were recorded, by task."""

    name: str
    replies: Mapping[str, Sequence[str]]

    def __call__(self) -> ScriptedPolicy:
        return ScriptedPolicy(self.name, self._script)

    def _script(self, task: Task) -> Sequence[str]:
        if task.id not in self.replies:
            raise PolicyUnavailableError(f"{self.name} has no recording of task {task.id!r}")
        return self.replies[task.id]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointModel:
    """A model behind an OpenAI-compatible endpoint."""

    name: str
    endpoint: Endpoint
    format: Format
    catalog: Catalog
    mode: Mode = "tools"
    system: str = ""
    logprobs: bool = False

    def __call__(self) -> EndpointPolicy:
        return EndpointPolicy(
            self.name,
            EndpointClient(self.endpoint),
            self.format,
            self.catalog,
            mode=self.mode,
            system=self.system,
            logprobs=self.logprobs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomAgent:
    """An agent without a model, for a look at an environment."""

    name: str
    format: Format
    catalog: Catalog
    habits: Habits = Habits()

    def __call__(self) -> RandomPolicy:
        return RandomPolicy(self.name, self.format, self.catalog, self.habits)


@dataclass(frozen=True, slots=True)
class GoldPolicy:
    """Writes the expected attempt: the gold call and then the answer, or, where a draw says so, the answer alone.

    With ``call_rate`` it is an annotator who calls at random; without, it calls wherever a gold call is known.
    """

    name: str
    catalog: Catalog
    format: Format
    call_rate: Mapping[str, float] | None = None
    """Probability of a call by the task's level."""
    seed: int = 0

    def __call__(self) -> ScriptedPolicy:
        return ScriptedPolicy(self.name, self._script)

    def _script(self, task: Task) -> Sequence[str]:
        answer = [self.format.write_answer(task.answer)] if task.answer is not None else []
        if task.gold is None or not self._calls(task):
            return answer
        return [self.format.write_call(task.gold, self.catalog.specs(task.tools)), *answer]

    def _calls(self, task: Task) -> bool:
        if self.call_rate is None or task.answer is None:
            return True
        draw = derive_seed(self.seed, self.name, task.id) / 2**53
        return draw < self.call_rate.get(task.labels.get("level", ""), 0.5)
