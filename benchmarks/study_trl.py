"""TRL's own trainers as arms of ``benchmarks.study``: DPO on pairs of the start's attempts, and GRPO on rollouts.

Both begin with the same cloned policy and take AdamW at 1e-3, the schedule of the other arms, and TRL's defaults for
the rest. DPO sees text, so what tools said is trained on as if the policy had said it; it is offline: the start plays
all rounds, and of each group the best candidate is preferred to the worst, and to the best that chose otherwise whether
to call. GRPO is given our rollouts by its ``rollout_func`` (attempts of the policy alone, observations masked), and our
rewards.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.desk import Desk, LocalPool, judge_checkpoints
from rewards.selectivity import LIVE
from rewards.types import Candidate, RankedGroup
from rl.learner import checkpoint
from rl.learner.learner import weights_of
from rl.learner.work import epochs
from rl.models.load import load_model
from rollouts.types import Snapshot, Task

RATE = 1e-3
GENERATIONS = 8


class Keeper(TrainerCallback):
    """Writes checkpoints as the learner does, and what the steps until each took."""

    def __init__(self, session: Desk, every: int, last: int) -> None:
        self._session = session
        self._every = every
        self._last = last
        self._began = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep a step that is to be judged."""
        if state.global_step % self._every and state.global_step != self._last:
            return
        spent = time.process_time() - self._began
        session = self._session
        step = session.config.cloning.steps + state.global_step
        checkpoint.save(
            session.run.path / "checkpoints", step, kwargs["model"], session.tokenizer, {"stage": "improve"}
        )
        session.run.log({"stage": "improve", "step": step - 1, "cpu_seconds": spent})
        self._began = time.process_time()


def train(name: str, session: Desk, pool: LocalPool) -> None:
    """Run one of the arms, and judge its checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "trl_dpo":
            _dpo(session, pool, folder)
        else:
            _grpo(session, pool, folder)
    judge_checkpoints(session)


def _options(session: Desk, folder: str) -> dict[str, Any]:
    optimiser = session.config.improvement.optimiser
    return {
        "output_dir": folder,
        "learning_rate": RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": round(optimiser.warmup * session.config.improvement.steps),
        "max_steps": session.config.improvement.steps,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "seed": session.config.seed,
        "dataloader_num_workers": 0,
    }


def _rounds(session: Desk) -> Iterator[tuple[Task, ...]]:
    """The tasks of each round, as the other arms have them."""
    config = session.config
    tasks, improvement = session.benchmark.train, config.improvement
    return epochs(tasks, improvement.tasks_per_round, improvement.rounds, config.seed)


def _start(session: Desk) -> Any:
    return load_model(session.checkpoint_at(session.config.cloning.steps))


def _keeper(session: Desk) -> Keeper:
    improvement = session.config.improvement
    return Keeper(session, improvement.validate_every * improvement.steps_per_round, improvement.steps)


def _dpo(session: Desk, pool: LocalPool, folder: str) -> None:
    model = _start(session)
    began = time.process_time()
    sources = [source.build() for source in session.config.sources]
    snapshot = {LIVE: Snapshot(0, weights_of(model))}
    rows = []
    for round, tasks in enumerate(_rounds(session)):
        for group in pool.play(tasks, sources, f"improve/{round}", snapshot):
            rows += _pairs(session, session.config.rewards.rank(group))
    session.run.log({"stage": "rollouts", "round": 0, "cpu_seconds": time.process_time() - began})
    batch = session.config.improvement.batch_size
    trainer = DPOTrainer(
        model=model,
        ref_model=_start(session),
        args=DPOConfig(
            per_device_train_batch_size=2 * batch,
            max_length=session.config.model.max_length,
            **_options(session, folder),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=session.tokenizer,
        callbacks=[_keeper(session)],
    )
    trainer.train()


def _pairs(session: Desk, group: RankedGroup) -> list[dict[str, str]]:
    """The best candidate over the worst, and over the best that chose otherwise whether to call."""
    best = group.candidates[0]
    worse = [candidate for candidate in group.candidates if candidate.reward.value < best.reward.value]
    others = [candidate for candidate in worse if candidate.episode.called != best.episode.called]
    chosen = {id(candidate): candidate for candidate in (*worse[-1:], *others[:1])}
    specs = [session.encoder.specs[name] for name in group.task.tools]
    prompt = session.format.opening(group.task, specs)
    return [
        {"prompt": prompt, "chosen": _text(session, best), "rejected": _text(session, candidate)}
        for candidate in chosen.values()
    ]


def _text(session: Desk, candidate: Candidate) -> str:
    return str(session.tokenizer.decode(list(session.encoder.row(candidate).ids), skip_special_tokens=True))


def _grpo(session: Desk, pool: LocalPool, folder: str) -> None:
    config = session.config
    specs = session.encoder.specs
    known: dict[str, Task] = {}
    rows = []
    for tasks in _rounds(session):
        for task in tasks:
            prompt = session.format.opening(task, [specs[name] for name in task.tools])
            known[prompt] = task
            rows.append({"prompt": prompt})
    sources = [source.build() for source in config.sources]
    plays = Counter[str]()

    def rollouts(prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        plays["rounds"] += 1
        tasks = [known[prompt] for prompt in dict.fromkeys(prompts)]
        snapshot = {LIVE: Snapshot(plays["rounds"], weights_of(trainer.accelerator.unwrap_model(trainer.model)))}
        groups = pool.play(tasks, sources, f"improve/{plays['rounds']}", snapshot)
        ranked = {group.task.id: config.rewards.rank(group) for group in groups}
        told: dict[str, list[Any]] = {
            name: [] for name in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "score")
        }
        for prompt, number in _numbered(prompts):
            own = [c for c in ranked[known[prompt].id].candidates if c.episode.force is None]
            own.sort(key=lambda candidate: candidate.episode.id)
            _tell(session, prompt, own[number % len(own)], told)
        return told

    def score(prompts: list[str], completions: list[str], **told: Any) -> list[float | None]:
        return told["score"]

    improvement = config.improvement
    trainer = GRPOTrainer(
        model=_start(session),
        reward_funcs=score,
        args=GRPOConfig(
            per_device_train_batch_size=improvement.batch_size * GENERATIONS,
            num_generations=GENERATIONS,
            steps_per_generation=improvement.steps_per_round,
            shuffle_dataset=False,
            **_options(session, folder),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=session.tokenizer,
        callbacks=[_keeper(session)],
        rollout_func=rollouts,
    )
    trainer.train()


def _numbered(prompts: list[str]) -> Iterator[tuple[str, int]]:
    """Each prompt, and how often it came before."""
    seen = Counter[str]()
    for prompt in prompts:
        yield prompt, seen[prompt]
        seen[prompt] += 1


def _tell(session: Desk, prompt: str, candidate: Candidate, told: dict[str, list[Any]]) -> None:
    """What GRPO asks of one attempt."""
    row = session.encoder.row(candidate)
    written = iter(row.behaviour)
    told["prompt_ids"].append(session.tokenizer.encode(prompt, add_special_tokens=False))
    told["completion_ids"].append(list(row.ids))
    told["env_mask"].append([int(own) for own in row.mask])
    told["logprobs"].append([next(written) if own else 0.0 for own in row.mask])
    told["score"].append(candidate.reward.value)
