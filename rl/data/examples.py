"""From ranked groups to token rows: what the policy sampled is taken as ids; only foreign text is tokenised."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from executors.types import ToolSpec
from rewards.selectivity import LIVE
from rewards.types import Candidate, RankedGroup
from rl.models.load import end_id
from rl.models.pieces import fingerprint
from rollouts.formats import Format


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate as tokens."""

    ids: tuple[int, ...]
    """Everything after the prompt: replies, and the observations between them."""
    mask: tuple[bool, ...]
    """True for the policy's own tokens; observations are never trained on."""
    reward: float
    called: bool
    """Whether it set out to call a tool: the side that it took in the decision."""
    behaviour: tuple[float, ...] = ()
    """Log-probabilities of its own tokens under the weights that wrote them, where its source gave them."""
    sources: tuple[str, ...] = ()
    """Who wrote it: several, where equal candidates were merged."""
    own: bool = False
    """Whether the policy that is trained wrote it, unforced."""
    version: int | None = None
    """Of the weights of that policy that wrote it, forced or not; None where somebody else did."""

    def merged(self, other: "Row") -> "Row":
        """Two equal candidates as one, with this one's reward.

        The log-probabilities are those of one writer: the policy itself before others, whoever tells them before who
        does not, and of the policy's own versions the newest.
        """
        writer = max(self, other, key=lambda row: (row.own and bool(row.behaviour), bool(row.behaviour), row._age))
        return replace(
            self,
            behaviour=writer.behaviour,
            own=writer.own if writer.behaviour else self.own or other.own,
            version=writer.version,
            sources=self.sources + other.sources,
        )

    @property
    def _age(self) -> float:
        return float("-inf") if self.version is None else self.version


@dataclass(frozen=True, slots=True)
class Example:
    """One task's ranked candidates as tokens, best first."""

    task_id: str
    prompt: tuple[int, ...]
    rows: tuple[Row, ...]


class Encoder:
    """Makes examples for one tokenizer and format."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, format: Format, specs: Mapping[str, ToolSpec], *, max_tokens: int
    ) -> None:
        """
        Args:
            tokenizer: the policy's.
            format: how episodes are written.
            specs: the tools by name.
            max_tokens: of prompt and candidate together; longer candidates are left out and counted.
        """
        self.tokenizer = tokenizer
        self.format = format
        self.specs = specs
        self.max_tokens = max_tokens
        self.too_long = 0
        """Candidates left out so far."""
        self._fingerprint = fingerprint(tokenizer)

    def examples(self, groups: Iterable[RankedGroup]) -> list[Example]:
        """The groups that have a candidate left."""
        return [example for group in groups if (example := self.example(group)).rows]

    def example(self, group: RankedGroup) -> Example:
        """One group; equal candidates become one, with the higher reward."""
        specs = [self.specs[name] for name in group.task.tools]
        prompt = tuple(self._ids(self.format.opening(group.task, specs)))
        rows: dict[tuple[int, ...], Row] = {}
        for candidate in group.candidates:
            row = self.row(candidate)
            if not any(row.mask):
                continue  # it was never written: the prompt alone filled the context
            if len(prompt) + len(row.ids) > self.max_tokens:
                self.too_long += 1
                continue
            known = rows.get(row.ids)
            rows[row.ids] = row if known is None else known.merged(row)
        return Example(group.task.id, prompt, tuple(rows.values()))

    def row(self, candidate: Candidate) -> Row:
        """One candidate as tokens, whatever its length."""
        episode = candidate.episode
        ids: list[int] = []
        mask: list[bool] = []
        behaviour: list[float] = []
        for index, turn in enumerate(episode.turns):
            completion = turn.completion
            if completion.token_ids and completion.tokenizer == self._fingerprint:
                own = list(completion.token_ids)
                behaviour += completion.logprobs
            else:
                own = self._ids(completion.text)
                if completion.finish == "end":
                    own = [*own, end_id(self.tokenizer)]
            ids += own
            mask += [True] * len(own)
            if turn.observations and index + 1 < len(episode.turns):
                observed = self._ids(self.format.observed(turn))
                ids += observed
                mask += [False] * len(observed)
        complete = len(behaviour) == sum(mask)
        live = episode.policy == LIVE
        return Row(
            tuple(ids),
            tuple(mask),
            candidate.reward.value,
            episode.called,
            tuple(behaviour) if complete else (),
            (episode.source,),
            own=live and episode.force is None,
            version=episode.version if live else None,
        )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
