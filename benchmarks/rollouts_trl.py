"""Our engine and episode loop against TRL's ``GRPOTrainer(tools=...)``: ``python -m benchmarks.rollouts_trl``.

Both play the same groups of episodes with the same weights in one process, in alternating order: the same prompts, the
same tool, the same chat template (TRL's prefix-preserving version of Qwen3's), all episodes of a workload at once. TRL
plays them by its own ``_generate``: its prompts, ``model.generate`` and its tool loop, without scoring or a step. Ours
is a ``RolloutWorker``: engine, chat format, episode loop, schema validation and executor.

So that both do the same work, the policy, a Qwen3 of 4 million parameters, is first taught by heart what to reply: as
many calls as its question asks for, each with the key that the last result named, and then an answer. Replies are drawn
with a temperature at which it keeps to that; a repetition in which any token of any episode differs between the two is
an error, so a figure is never of unequal work.

- ``turns/P``: groups of 8 with prompts of P tokens, three calls and an answer. ``wide/P`` has eight groups, not two.
- ``single/P``: an answer at once.
- ``wait/P``: as ``turns/P``, with a tool that takes 200 ms; what counts is the wall time above that of ``turns``.

CPU-seconds of one thread; medians with minimum and maximum over repetitions.
"""

import argparse
import asyncio
import copy
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import trl
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import get_json_schema

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tool import Tool
from executors.types import Observation, ToolCall, ToolSpec
from rl.models.chat_template import build_chat_format
from rl.models.tiny import build_tokenizer
from rl.serving.engine import TransformersPolicy
from rollouts.policy import Source
from rollouts.types import Completion, Sampling, Task, Turn
from rollouts.worker import RolloutWorker, WorkerConfig

SIBLINGS = 8
CALLS = 3
"""Of an episode of four turns."""
TEMPERATURE = 0.3
VOCABULARY = 2048
LONGEST = 2048
"""Tokens that the model reads."""
ANSWER = "All of it was found and the record is complete."
CLOSE = 5e-3
"""Loss a token down to which the policy learns its replies."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Groups of episodes that are played at once."""

    name: str
    groups: int
    prompt: int
    """Tokens."""
    calls: int = CALLS
    wait: float = 0.0
    """Seconds that the tool takes."""

    @property
    def episodes(self) -> int:
        return self.groups * SIBLINGS


WORKLOADS = (
    Workload("single/330", 2, 330, calls=0),
    Workload("single/1024", 2, 1024, calls=0),
    Workload("turns/330", 2, 330),
    Workload("turns/1024", 2, 1024),
    Workload("wide/330", 8, 330),
    Workload("wide/1024", 8, 1024),
    Workload("wait/330", 2, 330, wait=0.2),
)


WAYS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-continuous": {"use_transformers_continuous_batching": True},
    "trl-static": {"cache_implementation": "static"},
}
"""Of generating that ``GRPOTrainer`` offers without another server, as settings of it."""


class Archive:
    """The tool, as both call it."""

    seconds = 0.0
    """That a call takes."""

    @staticmethod
    def said(key: int) -> str:
        """The key to go on with, or that there is none."""
        return f"The next key is {key - 1}." if key > 1 else "There is no further key."


def look_up(key: str) -> str:
    """
    Read a record from the archive by its key.

    Args:
        key: what the record is found by
    """
    if Archive.seconds:
        time.sleep(Archive.seconds)
    return Archive.said(int(key))


@dataclass(frozen=True, slots=True)
class Played:
    """What a workload's episodes wrote and took."""

    replies: list[list[int]]
    """By episode, the token ids of all its replies."""
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        """Tokens written by the policy a CPU-second."""
        return sum(map(len, self.replies)) / self.cpu


class Lesson:
    """The task: questions, and how their episodes are to go."""

    def __init__(self) -> None:
        schema: dict[str, Any] = get_json_schema(look_up)["function"]  # as TRL tells a policy of a function
        self.tool = Tool(ToolSpec(schema["name"], schema["description"], schema["parameters"]), look_up)
        self.tokenizer = self._tokenizer()
        self.format = build_chat_format(self.tokenizer)

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        """One that has Qwen3's template and its special tokens, and merges for the texts of the lesson."""
        template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
        texts = [template, ANSWER, json.dumps(self.tool.spec.as_openai()), Archive.said(2), Archive.said(1)]
        tokenizer = build_tokenizer(texts * 3, vocab_size=1800, max_length=LONGEST)
        special = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>"]
        tokenizer.add_special_tokens({"additional_special_tokens": special[:2]})
        tokenizer.add_tokens(special[2:])
        tokenizer.eos_token = "<|im_end|>"
        tokenizer.chat_template = template
        return tokenizer

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def question(self, number: int, size: int, calls: int) -> str:
        """A question whose prompt takes so many tokens."""
        draw = random.Random(f"{number} {size}")
        end = f" Begin with key {calls}." if calls else " Answer at once."
        empty = len(self.encode(self.script(f"Record {number}:{end}", calls)[0][0]))
        digits = "".join(draw.choice("0123456789") for _ in range(size - empty))
        return f"Record {number}:{digits}{end}"

    def script(self, question: str, calls: int) -> list[tuple[str, bool]]:
        """An episode as it is to go: its texts, and whether the policy writes them."""
        parts = [(self.format.opening(Task(id="", prompt=question), (self.tool.spec,)), False)]
        for key in range(calls, 0, -1):
            call = ToolCall(self.tool.name, {"key": str(key)})
            reply = self.format.write_call(call, ())
            turn = Turn(Completion(text=reply), (call,), (Observation(Archive.said(key)),))
            parts += [(reply, True), (self.format.observed(turn), False)]
        return [*parts, (self.format.write_answer(ANSWER), True)]

    def example(self, number: int, size: int, calls: int) -> tuple[list[int], list[int]]:
        """An episode's token ids, and the same as labels: -100 where the policy does not write."""
        ids: list[int] = []
        labels: list[int] = []
        for text, own in self.script(self.question(number, size, calls), calls):
            tokens = self.encode(text)
            ids += tokens
            labels += tokens if own else [-100] * len(tokens)
        return ids, labels


def small_qwen(end: int) -> Qwen3ForCausalLM:
    """A decoder of 4 million parameters."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config)


def taught(lesson: Lesson, most: int) -> Qwen3ForCausalLM:
    """A policy that has learned by heart how episodes go, on other questions than it will be asked.

    Raises:
        RuntimeError: so many steps were too few.
    """
    model = small_qwen(lesson.encode("<|im_end|>")[0]).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 10))
    low = 0
    for step in range(most):
        asked = [(170 + 7 * (step % 40), CALLS), (170 + 11 * (step % 23), 0)]
        if step % 8 == 7:
            asked.append((1024, CALLS * (step // 8 % 2)))
        losses = []
        for size, calls in asked:
            ids, labels = lesson.example(1000 + step, size, calls)
            start = 0 if size == 1024 else 53 * step % 900
            positions = torch.arange(start, start + len(ids))[None]
            logits = model(torch.tensor([ids]), position_ids=positions, use_cache=False).logits
            losses.append(cross_entropy(logits[0, :-1], torch.tensor(labels[1:])))
        loss = torch.stack(losses).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        low = low + 1 if loss.item() < CLOSE else 0
        if low >= 10:
            return model.eval()
    raise RuntimeError(f"the policy had not learned its replies by heart after {most} steps; give it more")


class Ours:
    """Engine and episode loop."""

    name = "ours"

    def __init__(self, lesson: Lesson, model: Qwen3ForCausalLM) -> None:
        self.lesson = lesson
        self.model = model

    def play(self, workload: Workload, questions: Sequence[str]) -> Played:
        """All episodes at once, by an engine that has read nothing yet."""
        policy = TransformersPolicy("live", self.model.eval(), self.lesson.tokenizer)
        catalog = Catalog([self.lesson.tool])
        config = WorkerConfig(
            policies={"live": lambda: policy},
            executor=lambda: Executor(catalog),
            format=self.lesson.format,
            max_turns=CALLS + 2,
        )
        worker = RolloutWorker(config)
        tasks = [
            Task(id=f"{n}", prompt=question, tools=(self.lesson.tool.name,)) for n, question in enumerate(questions)
        ]
        sampling = Sampling(temperature=TEMPERATURE, max_tokens=512)
        source = Source(name="own", policy="live", count=SIBLINGS, sampling=sampling)
        wall, cpu = time.perf_counter(), time.process_time()
        groups = asyncio.run(worker.play(tasks, [source], "round"))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        replies = [
            [token for turn in episode.turns for token in turn.completion.token_ids]
            for group in groups
            for episode in group.episodes
        ]
        return Played(replies, wall, cpu)


class Trl:
    """``GRPOTrainer``'s own generation: 32 bits, no checkpointing."""

    def __init__(self, lesson: Lesson, model: Qwen3ForCausalLM, episodes: int, folder: str, way: str) -> None:
        """Make a trainer that plays so many episodes at once, at most, in one of the ``WAYS``."""
        from trl import GRPOConfig, GRPOTrainer

        self.name = way
        settings = GRPOConfig(
            **WAYS[way],
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            per_device_train_batch_size=episodes,
            num_generations=SIBLINGS,
            max_completion_length=512,
            temperature=TEMPERATURE,
        )
        rows = [{"prompt": [{"role": "user", "content": "?"}]}] * episodes
        self.trainer: Any = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=copy.deepcopy(lesson.tokenizer),
            tools=[look_up],
        )
        self.model = model

    def play(self, workload: Workload, questions: Sequence[str]) -> Played:
        """All episodes in one batch, as ``_generate_and_score_completions`` begins."""
        self.model.train()  # as a trainer has it; there is no dropout
        prompts = [[{"role": "user", "content": question}] for question in questions for _ in range(SIBLINGS)]
        wall, cpu = time.perf_counter(), time.process_time()
        self.trainer._sync_tool_dicts = [{look_up.__name__: look_up} for _ in prompts]
        self.trainer._async_tool_dicts = [{} for _ in prompts]
        _, ids, mask, *_ = self.trainer._generate(prompts)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        replies = [
            [token for token, own in zip(row, owned, strict=True) if own] for row, owned in zip(ids, mask, strict=True)
        ]
        return Played(replies, wall, cpu)


def measure(players: Sequence[Ours | Trl], lesson: Lesson, workload: Workload, repetitions: int) -> list[list[Played]]:
    """A workload's repetitions, by player; the first, which warms them up, is left out.

    Raises:
        RuntimeError: a player wrote anything else than what the policy has learned.
    """
    Archive.seconds = workload.wait
    played: list[list[Played]] = [[] for _ in players]
    for repetition in range(repetitions + 1):
        numbers = range(repetition * workload.groups, (repetition + 1) * workload.groups)
        questions = [lesson.question(number, workload.prompt, workload.calls) for number in numbers]
        wanted = [text for text, own in lesson.script(questions[0], workload.calls) if own]
        expected = [token for text in wanted for token in lesson.encode(text)]
        order = list(enumerate(players))
        for index, player in order[:: -1 if repetition % 2 else 1]:
            result = player.play(workload, questions)
            wrong = sum(reply != expected for reply in result.replies)
            if wrong or len(result.replies) != workload.groups * SIBLINGS:
                raise RuntimeError(
                    f"{wrong} of {len(result.replies)} episodes of {player.name} in {workload.name} are not as the "
                    "policy learned them; teach it for longer"
                )
            if repetition:
                played[index].append(result)
    return played


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):8.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Teach the policy, measure every workload and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=",".join(workload.name for workload in WORKLOADS))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400, help="of learning by heart, at most")
    parser.add_argument(
        "--policy", type=Path, help="folder that the taught policy is kept in, and read from if it is there"
    )
    parser.add_argument("--ways", default="trl", help=f"that TRL generates in: {', '.join(WAYS)}, with commas")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lesson = Lesson()
    if arguments.policy and arguments.policy.is_dir():
        model = Qwen3ForCausalLM.from_pretrained(arguments.policy)
    else:
        model = taught(lesson, arguments.steps)
        if arguments.policy:
            model.save_pretrained(arguments.policy)
    chosen = [workload for workload in WORKLOADS if workload.name in arguments.workloads.split(",")]
    walls: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        largest = max(workload.groups for workload in chosen) * SIBLINGS
        theirs = [Trl(lesson, model, largest, folder, way) for way in arguments.ways.split(",")]
        players = (Ours(lesson, model), *theirs)
        for workload in chosen:
            played = measure(players, lesson, workload, arguments.repetitions)
            walls[workload.name] = [[result.wall for result in results] for results in played]
            report(workload, [player.name for player in players], played, walls)


def report(
    workload: Workload,
    names: Sequence[str],
    played: Sequence[Sequence[Played]],
    walls: dict[str, list[list[float]]],
) -> None:
    """Print a workload's figures; for one with a slow tool, how long it was waited for."""
    print(workload.name)
    for name, results in zip(names, played, strict=True):
        print(f"  {name}, tokens a CPU-second {spread([result.rate for result in results])}")
        print(f"  {name}, wall seconds {spread([result.wall for result in results])}")
    ours = played[0]
    for name, theirs in zip(names[1:], played[1:], strict=True):
        pairs = list(zip(ours, theirs, strict=True))
        print(f"  ours / {name}, tokens a CPU-second {spread([a.rate / b.rate for a, b in pairs])}")
        print(f"  {name} / ours, wall {spread([b.wall / a.wall for a, b in pairs])}")
    if workload.wait and (without := walls.get(workload.name.replace("wait", "turns"))):
        for name, some, less in zip(names, walls[workload.name], without, strict=True):
            print(f"  {name}, waited, seconds {spread([wall - statistics.median(less) for wall in some])}")
    print(flush=True)


if __name__ == "__main__":
    main()
