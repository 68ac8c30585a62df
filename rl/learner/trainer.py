"""A trainer in TRL's shape for ranked candidates: a Hugging Face model, a dataset of ranked rows, and any objective.

    trainer = RRHFTrainer("path/of/model", RRHFConfig("out", objective="rrhf"), train_dataset=rows)
    trainer.train()

It is ``transformers.Trainer`` with another loss: accelerate, callbacks, ``report_to``, checkpoints and resuming are its
own. It stands beside ``trl.SFTTrainer`` and ``trl.DPOTrainer``, which take what ``apprentice export`` writes.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isnan
from typing import Any

import torch
from accelerate import DistributedType
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from executors.errors import ConfigError
from rl.data.batch import Batch
from rl.data.examples import Example
from rl.learner import ranks
from rl.learner.rank import MAX_SKIPPED, DivergedError
from rl.learner.ranked_dataset import RankedCollator, RankedDataset, RowEncoder
from rl.learner.reference import Reference
from rl.learner.scoring import Scorer
from rl.learner.trainer_config import RRHFConfig, read_objective
from rl.learner.watch import Watch, objective_warnings
from rl.losses.candidates import Candidates, Term
from rl.losses.objective import Dpo, Grpo, Listwise, Objective, Rrhf, Sft
from rl.models.load import pad_id

Rows = Sequence[Mapping[str, Any] | Example]
"""A dataset: a list, a ``datasets.Dataset``, or a ``RankedDataset``; see ``rl.learner.ranked_dataset``."""

_ALL = 1 << 60
"""Positions of a pass: a micro-batch is read at once."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What micro-batches have to know of the update that they are part of, all ranks together."""

    padded_length: int
    """Tokens of the longest candidate, prompt included."""
    counts: Mapping[str, Tensor] | None
    """[] by term, what it is divided by; None where a single micro-batch finds out for itself."""
    share: float
    """Of the update that one micro-batch of one rank is."""


class Figures:
    """Sums and counts of what is logged, until it is."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, terms: Mapping[str, Term]) -> None:
        """Add to the figures; a term without a count is a sum that stays one."""
        for name, term in terms.items():
            total = term.total.detach().float()
            count = torch.full_like(total, torch.nan) if term.count is None else term.count.to(total)
            self._sums[name] = torch.stack([total, count]) + self._sums.get(name, 0.0)

    def read(self) -> dict[str, float]:
        """The figures of all ranks together, and begin anew; rates of nothing are left out, and losses of it are 0."""
        sums, self._sums = self._sums, {}
        told = {name: table.tolist() for name, table in ranks.summed(sums).items()}
        return {
            name: total if isnan(count) else total / (count or 1.0)
            for name, (total, count) in told.items()
            if count or name.startswith("loss/")
        }


class FiniteUpdates(TrainerCallback):
    """Leaves out updates whose gradient is not finite, and ends a training that has nothing else."""

    def __init__(self) -> None:
        self.skipped = 0
        """In a row."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Forget the gradient where it is not finite; in half precision the scaler sees to that.

        Raises:
            DivergedError: there were too many in a row.
        """
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if args.fp16 or not gradients or torch.nn.utils.get_total_norm(gradients).isfinite():
            self.skipped = 0
            return
        model.zero_grad(set_to_none=True)
        self.skipped += 1
        log.warning("update %d is skipped: its loss or its gradient is not finite", state.global_step + 1)
        if self.skipped >= MAX_SKIPPED:
            raise DivergedError(
                f"{self.skipped} updates in a row, the last of them update {state.global_step + 1}, had a loss or a "
                "gradient that is not finite; look for rows with odd scores, or lower learning_rate or max_grad_norm"
            )


class RRHFTrainer(Trainer):
    """Trains a causal language model on ranked candidates.

    The loss is that of the whole update, however it is split over micro-batches and processes: every term is divided by
    what all of them hold together. Logged are ``loss/TERM`` for each term of the objective, and what the objective
    tells of the candidates, such as ``rank_accuracy``; the same stands in evaluations, after ``eval_``.
    """

    loss_is_scaled_for_ga = True
    model: Any
    model_wrapped: Any

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: RRHFConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | Mapping[str, Rows] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, Any] = (None, None),
        peft_config: PeftConfig | None = None,
    ) -> None:
        """
        Args:
            model: or the name or directory of one.
            args: see ``RRHFConfig``.
            train_dataset: ranked rows; see ``rl.learner.ranked_dataset``.
            eval_dataset: the same, or several by name.
            processing_class: the tokenizer; by default that of the model's directory.
            callbacks: as of ``transformers.Trainer``.
            optimizers: as of ``transformers.Trainer``.
            peft_config: adapters to train in place of the model's own weights.

        Raises:
            ConfigError: these do not go together.
            DataError: a row cannot be read.
        """
        name = model if isinstance(model, str) else str(getattr(model.config, "name_or_path", None) or "")
        args = args or RRHFConfig(f"{name.rstrip('/').rpartition('/')[2] or 'model'}-RRHF")
        if not isinstance(args, RRHFConfig):
            raise ConfigError(f"args of RRHFTrainer are an RRHFConfig, not {type(args).__name__}")
        self.objective = read_objective(args.objective or "rrhf")
        self._encoder_options = {"max_length": args.max_length, "truncation_mode": args.truncation_mode}
        self.tokenizer = _tokenizer(processing_class, name)
        set_seed(args.seed)  # adapters begin with random weights
        super().__init__(
            model=_prepared(model, args, peft_config),
            args=args,
            train_dataset=self._ranked(train_dataset, "train_dataset"),
            eval_dataset=self._ranked(eval_dataset, "eval_dataset"),
            processing_class=self.tokenizer,
            callbacks=[FiniteUpdates(), *(callbacks or ())],
            optimizers=optimizers,
        )
        self._require_processes()
        packing: Any = args.packing
        self.scorer = Scorer(self.model, pad_id(self.tokenizer), packing=packing)
        layout = replace(self.scorer.layout, pass_tokens=_ALL)
        observations = self.objective.needs_observations
        self.data_collator = RankedCollator(pad_id=self.scorer.pad_id, layout=layout, observations=observations)
        self.reference = self._begun_with() if self.objective.needs_reference else None
        self._figures, self._eval_figures, self._watch = Figures(), Figures(), Watch()
        for warning in objective_warnings(self.objective):
            log.warning(warning)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's part of the update's loss, times the number of processes, whose gradients are averaged."""
        batch: Batch = inputs["batch"]
        whole: Whole = self._whole([batch]) if num_items_in_batch is None else num_items_in_batch
        candidates = self._candidates(model, batch)
        terms = self.objective.terms(candidates, whole.padded_length)
        counts = ranks.summed(_counts(terms)) if whole.counts is None else whole.counts
        values = {
            name: term.total if term.count is None else term.total / counts[name].clamp(min=1)
            for name, term in terms.items()
        }
        loss = torch.stack(list(values.values())).sum()
        share = loss.new_tensor(whole.share)
        self._figures.add({f"loss/{name}": Term(value, share) for name, value in values.items()})
        self._figures.add(self.objective.metrics(candidates))
        loss = loss * ranks.count()
        return (loss, {"logprobs": candidates.logprobs}) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of an update, and what each has to know of all of them."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return samples, self._whole([sample["batch"] for sample in samples]) if samples else None

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, None, None]:
        """Add a batch to what an evaluation tells."""
        batch: Batch = inputs["batch"]
        with torch.no_grad(), self.compute_loss_context_manager():
            candidates = self._candidates(model, batch)
        candidates = _first(candidates, self._unrepeated(len(batch.rewards)))
        terms = self.objective.terms(candidates, batch.padded_length)
        self._eval_figures.add({f"loss/{name}": term for name, term in terms.items()})
        self._eval_figures.add(self.objective.metrics(candidates))
        return None, None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """The same, and the figures of all batches and processes together: the loss is that of the whole dataset."""
        self._eval_figures = Figures()
        output: Any = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **options)
        figures = self._eval_figures.read()
        figures["loss"] = sum(value for name, value in figures.items() if name.startswith("loss/"))
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in figures.items()})
        return output

    def evaluate(self, eval_dataset: Any = None, *args: Any, **options: Any) -> dict[str, float]:
        """The same, on rows too."""
        named = isinstance(eval_dataset, str)
        rows: Any = eval_dataset if named else self._ranked(eval_dataset, "eval_dataset")
        return super().evaluate(rows, *args, **options)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The same, with the figures since the last log, and loud words about known collapses."""
        if "loss" in logs:
            logs |= self._figures.read()
            for warning in self._watch.notice(logs):
                log.warning(warning)
        super().log(logs, start_time)

    def _ranked(self, rows: Any, name: str) -> Any:
        if rows is None or isinstance(rows, RankedDataset):
            return rows
        if isinstance(rows, Mapping):
            return {key: self._ranked(value, f"{name}[{key!r}]") for key, value in rows.items()}
        return RankedDataset(rows, RowEncoder(self.tokenizer, **self._encoder_options), name=name)

    def _require_processes(self) -> None:
        """See that processes share rows and gradients as they were asked to, for accelerate does not say otherwise."""
        if self.args.n_gpu > 1:
            raise ConfigError(
                "RRHFTrainer does not run on several GPUs from one process; start it with 'accelerate launch' or "
                "torchrun, or show it one GPU with CUDA_VISIBLE_DEVICES=0"
            )
        if self.args.deepspeed and self.accelerator.distributed_type != DistributedType.DEEPSPEED:
            taken = self.accelerator.distributed_type.value
            raise ConfigError(
                f"deepspeed was asked for, and accelerate took {taken} in its place; unset ACCELERATE_USE_CPU"
            )
        if ranks.count() != (known := self.accelerator.num_processes):
            raise ConfigError(
                f"{ranks.count()} processes are connected and accelerate knows of {known}, so all would read the same "
                "rows; on a CPU set use_cpu, and connect them (torch.distributed.init_process_group) before the trainer"
            )

    def _begun_with(self) -> Reference:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ConfigError(
                f"objective {self.objective.kind} compares with the weights that training began with, which are not "
                "kept of a model in shards (DeepSpeed, FSDP); take an objective without a reference, such as rrhf with "
                "kl_weight 0, dpo with reference_free, or train without shards"
            )
        return Reference(self.model)

    def _candidates(self, model: nn.Module, batch: Batch) -> Candidates:
        """The candidates of a batch as the model, and where it is needed the reference, finds them."""
        reference = None
        if self.reference is not None:
            self.scorer.reads = self.model
            with self.reference.in_place():
                reference = self.scorer.score(batch)
        self.scorer.reads = model  # which accelerate may have wrapped, so that processes meet in its gradient
        return batch.candidates(self.scorer.score(batch), reference=reference)

    def _whole(self, batches: Sequence[Batch]) -> Whole:
        """What there is to know of an update before it is taken; the same on every rank."""
        longest = ranks.most(max(batch.padded_length for batch in batches), self.args.device)
        counts = ranks.summed(self._counted(batches, longest)) if len(batches) > 1 else None
        return Whole(padded_length=longest, counts=counts, share=1 / (len(batches) * ranks.count()))

    @torch.no_grad()
    def _counted(self, batches: Sequence[Batch], longest: int) -> dict[str, Tensor]:
        """What the terms of some micro-batches are divided by; where scores decide that, they are read once more."""
        model, device = self.model_wrapped, self.args.device
        model.train()
        found: list[dict[str, Tensor]] = []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # dropout will draw the same
            for batch in batches:
                if _counts_scores(self.objective):
                    candidates = self._candidates(model, batch)
                else:
                    unread = torch.zeros(batch.mask.shape, device=device)
                    candidates = batch.candidates(unread, reference=unread)
                found.append(_counts(self.objective.terms(candidates, longest)))
        return {name: torch.stack([counts[name] for counts in found]).sum() for name in found[0]}

    def _unrepeated(self, size: int) -> int:
        """Tasks of an evaluation's batch that are not there again only to give every rank as many."""
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return size
        return min(size, max(0, state.remainder - self.accelerator.process_index * self.args.eval_batch_size))


def _loaded(kind: Any, name: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name!r} has no model and tokenizer to train: {error}") from error


def _tokenizer(given: Any, name: str) -> PreTrainedTokenizerBase:
    if given is None and not name:
        raise ConfigError("processing_class is missing, and the model has no name to find it by; give its tokenizer")
    tokenizer: Any = _loaded(AutoTokenizer, name) if given is None else given
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(f"processing_class is a tokenizer, not a {type(tokenizer).__name__}")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _prepared(model: Any, args: RRHFConfig, peft_config: PeftConfig | None) -> Any:
    """The model, loaded where it is a name, with its adapters and without dropout."""
    if isinstance(model, str):
        options = args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}
        model = _loaded(AutoModelForCausalLM, model, **{"dtype": torch.float32, **options})
    if peft_config is not None:
        if isinstance(model, PeftModel):
            raise ConfigError("the model has adapters already; leave peft_config out, or merge_and_unload() them first")
        model = get_peft_model(model, peft_config)
    if isinstance(model, PeftModel):
        virtual = [name for name, config in model.peft_config.items() if config.is_prompt_learning]
        if virtual:
            raise ConfigError(
                f"adapter {virtual[0]!r} puts virtual tokens before each prompt, which candidates behind one prompt "
                "cannot share; take LoRA or another adapter of weights"
            )
        if args.activation_checkpointing:
            model.enable_input_require_grads()
    for module in model.modules() if args.disable_dropout else ():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _counts_scores(objective: Objective) -> bool:
    """Whether what a term is divided by depends on how likely candidates are, as the number of wrong pairs does."""
    known = isinstance(objective, Sft | Listwise | Dpo | Grpo) or (
        isinstance(objective, Rrhf) and objective.per != "active"
    )
    return not known


def _counts(terms: Mapping[str, Term]) -> dict[str, Tensor]:
    return {name: term.count.detach().float() for name, term in terms.items() if term.count is not None}


def _first(candidates: Candidates, tasks: int) -> Candidates:
    """The candidates of the first tasks."""
    values: Iterable[Tensor | None] = (getattr(candidates, each.name) for each in fields(candidates))
    return Candidates(*(None if value is None else value[:tasks] for value in values))  # pyright: ignore
