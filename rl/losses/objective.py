"""What the learner minimises, one switch apart.

Here are the settings, and how they put terms together; what counts with tensors is imported where it is first needed,
so that a config is checked without them.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from rl.config import Strict
from rl.losses.choices import Baseline, Foreign, LengthNorm, PairChoice, PairForm, PairNorm

if TYPE_CHECKING:
    from rl.losses.candidates import Candidates, Term
    from rl.losses.policy_gradient import Shares


class _Objective(Strict):
    kl_weight: float = Field(default=0.0, ge=0)
    """Of staying near the weights that the stage began with; see ``kl_loss``."""
    observation_weight: float = Field(default=0.0, ge=0)
    """Of foreseeing what tools say; 0 never trains on it. See ``observation_loss``."""

    @property
    def needs_reference(self) -> bool:
        """Whether candidates are to be scored with the weights of the stage's beginning too."""
        return self.kl_weight > 0

    @property
    def needs_observations(self) -> bool:
        """Whether the tokens of observations are to be scored too."""
        return self.observation_weight > 0

    def terms(self, candidates: "Candidates", padded_length: int) -> "dict[str, Term]":
        """The weighted terms by name; the sum of their values is the loss.

        Args:
            candidates: B tasks.
            padded_length: tokens of a padded row, prompt included; only the as-coded modes read it.
        """
        from rl.losses.reference import kl_loss
        from rl.losses.sft import observation_loss

        terms = self._terms(candidates, padded_length)
        if self.kl_weight and "kl" not in terms:
            terms["kl"] = kl_loss(candidates).weighted(self.kl_weight)
        if self.observation_weight:
            terms["observation"] = observation_loss(candidates).weighted(self.observation_weight)
        return terms

    def metrics(self, candidates: "Candidates") -> "dict[str, Term]":
        """What to log of a batch beside its terms; the same names on every rank. Without gradients."""
        from rl.losses.metrics import candidate_metrics

        return candidate_metrics(candidates)

    def _terms(self, candidates: "Candidates", padded_length: int) -> "dict[str, Term]":
        raise TypeError(f"{type(self).__name__} has to say what it minimises")

    def _leave(self, *names: str, when: str) -> None:
        """Refuse settings that nothing reads under another setting."""
        changed = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        if changed:
            raise ValueError(f"{changed[0]} is not read under {when}; leave it out, or change the latter")


class Sft(_Objective):
    """Imitate the best candidate: behaviour cloning on demonstrations, best-of-n fine-tuning on groups."""

    kind: Literal["sft"] = "sft"
    decision_weight: float = Field(default=0.0, ge=0)
    """See ``sft_loss``."""
    min_reward: float | None = None
    """Reward below which even the best candidate is not imitated."""

    def _terms(self, candidates: "Candidates", padded_length: int) -> "dict[str, Term]":
        from rl.losses.sft import sft_loss

        return {"sft": sft_loss(candidates, self.decision_weight, self.min_reward)}


class Ranking(_Objective):
    """What rankings share: a term on the order of candidates, and one that imitates the best of them."""

    weight: float = Field(default=1.0, ge=0)
    """Of the ranking term."""
    sft_weight: float = Field(default=1.0, ge=0)
    min_reward: float | None = None
    """Reward below which even the best candidate is not imitated; it is ranked all the same."""

    @model_validator(mode="after")
    def _something_to_minimise(self) -> "Ranking":
        if not self.weight and not self.sft_weight:
            raise ValueError("weight and sft_weight are both 0, so there is nothing to minimise; set one of them")
        return self

    def _terms(self, candidates: "Candidates", padded_length: int) -> "dict[str, Term]":
        terms: dict[str, Term] = {}
        if self.weight:
            terms["rank"] = self._rank(candidates, padded_length).weighted(self.weight)
        if self.sft_weight:
            terms["sft"] = self._sft(candidates, padded_length).weighted(self.sft_weight)
        return terms

    def _rank(self, candidates: "Candidates", padded_length: int) -> "Term":
        raise TypeError(f"{type(self).__name__} has to say how it ranks")

    def _sft(self, candidates: "Candidates", padded_length: int) -> "Term":
        from rl.losses.sft import sft_loss

        return sft_loss(candidates, min_reward=self.min_reward)


class Rrhf(Ranking):
    """RRHF as published (TRICE, equations 4 to 6), as its script computes it, or with what was found to help since."""

    kind: Literal["rrhf"] = "rrhf"
    length_norm: LengthNorm = "tokens"
    """What a candidate's log-probability is divided by: its own tokens; the padded row, as coded; nothing."""
    length_penalty: float = 1.0
    """Exponent of that length."""
    form: PairForm = "hinge"
    """How a pair is charged; see ``PairForm``."""
    beta: float = Field(default=1.0, gt=0)
    """What differences of log-probability are multiplied by."""
    margin: float = Field(default=0.0, ge=0)
    """By which the better has to be the likelier."""
    gap_margin: float = Field(default=0.0, ge=0)
    """Added to the margin for each unit that the rewards of a pair are apart."""
    tie_gap: float = Field(default=0.0, ge=0)
    """Rewards that are no further apart are ties."""
    per: PairNorm = "task"
    """What the sum over pairs is divided by; see ``PairNorm``."""

    @model_validator(mode="after")
    def _as_coded_has_no_more_settings(self) -> "Rrhf":
        if self.length_norm == "padded":
            self._leave(
                "form", "beta", "margin", "gap_margin", "tie_gap", "per", "min_reward", when="length_norm: padded"
            )
        return self

    def _rank(self, candidates: "Candidates", padded_length: int) -> "Term":
        from rl.losses.candidates import Term
        from rl.losses.rrhf import rrhf_loss

        sums = candidates.sums()
        if self.length_norm == "padded":
            scores = sums / padded_length**self.length_penalty
            return Term(rrhf_loss(scores, candidates.rewards).total, None)  # as coded: summed over the batch
        lengths = candidates.lengths().clamp(min=1) if self.length_norm == "tokens" else sums.new_ones(sums.shape)
        return rrhf_loss(
            sums / lengths**self.length_penalty,
            candidates.known_rewards(),
            form=self.form,
            beta=self.beta,
            margin=self.margin,
            gap_margin=self.gap_margin,
            tie_gap=self.tie_gap,
            per=self.per,
        )

    def _sft(self, candidates: "Candidates", padded_length: int) -> "Term":
        if self.length_norm == "padded":
            from rl.losses.sft import sft_loss_as_coded

            return sft_loss_as_coded(candidates, padded_length)
        return super()._sft(candidates, padded_length)


class RrhfD(Ranking):
    """RRHF with decisions compared as decisions; see ``rrhf_d_loss``."""

    kind: Literal["rrhf_d"] = "rrhf_d"
    margin: float = Field(default=1.0, ge=0)
    scale: float = Field(default=4.0, gt=0)
    decision_weight: float = Field(default=8.0, ge=0)
    """See ``sft_loss``."""

    def _rank(self, candidates: "Candidates", padded_length: int) -> "Term":
        from rl.losses.rrhf import rrhf_d_loss

        return rrhf_d_loss(candidates, margin=self.margin, scale=self.scale)

    def _sft(self, candidates: "Candidates", padded_length: int) -> "Term":
        from rl.losses.sft import sft_loss

        return sft_loss(candidates, self.decision_weight, self.min_reward)


class Listwise(Ranking):
    """One softmax over all candidates of a task, moved to that of their rewards; see ``listwise_loss``. The default."""

    kind: Literal["listwise"] = "listwise"
    tau: float = Field(default=0.25, gt=0)
    """How much reward is a nat: the smaller, the more of the probability is the best candidate's."""
    score: Literal["mean", "sum", "decision"] = "mean"
    """Choose among all candidates by mean log-probability per token, or by its sum over ``scale``; or decide between
    the modes first, and within each by that sum: see ``listwise_d_loss``."""
    scale: float = Field(default=4.0, gt=0)
    """What whole log-probabilities are divided by; ``score: mean`` does not read it."""
    decision_weight: float = Field(default=0.0, ge=0)
    """See ``sft_loss``."""

    @model_validator(mode="after")
    def _no_idle_setting(self) -> "Listwise":
        if self.score == "mean":
            self._leave("scale", when="score: mean")
        return self

    def _rank(self, candidates: "Candidates", padded_length: int) -> "Term":
        from rl.losses.listwise import listwise_d_loss, listwise_loss

        if self.score == "decision":
            return listwise_d_loss(candidates, tau=self.tau, scale=self.scale)
        divided = candidates.lengths().clamp(min=1) if self.score == "mean" else self.scale
        return listwise_loss(candidates.sums() / divided, candidates.known_rewards(), tau=self.tau)

    def _sft(self, candidates: "Candidates", padded_length: int) -> "Term":
        from rl.losses.sft import sft_loss

        return sft_loss(candidates, self.decision_weight, self.min_reward)


class Dpo(Ranking):
    """Direct preference optimisation over the pairs of each task; see ``dpo_loss``."""

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)
    """How sharply the better is to win; small for what may move far from the reference."""
    gamma: float = Field(default=0.0, ge=0)
    """By which it should win, after ``beta``."""
    pairs: PairChoice = "all"
    """Every pair whose rewards differ, or of each task the best candidate against the worst."""
    length_norm: bool = False
    """Compare means per token instead of sums."""
    reference_free: bool = False
    """Leave the reference out; with ``length_norm`` this is SimPO."""
    tie_gap: float = Field(default=0.0, ge=0)
    """Rewards that are no further apart are ties."""

    @property
    def needs_reference(self) -> bool:
        return not self.reference_free or self.kl_weight > 0

    def _rank(self, candidates: "Candidates", padded_length: int) -> "Term":
        from rl.losses.dpo import dpo_loss

        return dpo_loss(
            candidates,
            beta=self.beta,
            gamma=self.gamma,
            pairs=self.pairs,
            length_norm=self.length_norm,
            reference_free=self.reference_free,
            tie_gap=self.tie_gap,
        )


class Grpo(_Objective):
    """Group-relative policy gradient; what the policy did not write enters through truncated importance weights."""

    kind: Literal["grpo"] = "grpo"
    normalise: Literal["dapo", "dr_grpo"] = "dapo"
    """Divide the sum over tokens by their number, or by ``length`` for each candidate, however long it is."""
    length: int = Field(default=64, gt=0)
    """Read by ``dr_grpo``: best the most tokens that a candidate may have."""
    by_std: bool = False
    """Divide advantages by the spread of their group, as GRPO was published; it favours tasks that are all but tied."""
    baseline: Baseline = "group"
    """What rewards are compared with; see ``Baseline``."""
    eps_low: float = Field(default=0.2, gt=0, lt=1)
    """How far below 1 the ratio to the weights that wrote a token still counts."""
    eps_high: float = Field(default=0.28, gt=0)
    """How far above; higher, so that what was unlikely may become likely."""
    max_clipped_lag: int = Field(default=1, ge=0)
    """Versions behind up to which the policy's own candidates are clipped; older ones count as ``foreign``."""
    foreign: Foreign = "topr"
    """What becomes of the candidates of others; see ``Foreign``."""
    cap: float = Field(default=2.0, gt=0)
    """The most that a token counts under ``tis``."""
    imitation_weight: float = Field(default=1.0, ge=0)
    """Of good candidates whose source gave no log-probabilities; bad ones of that kind are left out."""
    sft_weight: float = Field(default=0.0, ge=0)
    """Of imitating the best candidate as well."""
    min_reward: float | None = None
    """Reward below which even the best candidate is not imitated."""

    @model_validator(mode="after")
    def _no_idle_setting(self) -> "Grpo":
        if self.normalise == "dapo":
            self._leave("length", when="normalise: dapo")
        if self.foreign != "tis":
            self._leave("cap", when=f"foreign: {self.foreign}")
        if self.foreign == "skip":
            self._leave("imitation_weight", when="foreign: skip")
        return self

    def _terms(self, candidates: "Candidates", padded_length: int) -> "dict[str, Term]":
        from rl.losses.candidates import Term
        from rl.losses.policy_gradient import clipped_losses, divisor, importance, token_sum
        from rl.losses.reference import kl_loss
        from rl.losses.sft import sft_loss

        shares = self._share(candidates)
        count = divisor(candidates, shares.part, self.length if self.normalise == "dr_grpo" else None)
        clipped = clipped_losses(shares, eps_low=self.eps_low, eps_high=self.eps_high)
        terms = {"policy": Term(token_sum(candidates, clipped, shares.clipped), count)}
        if self.foreign != "skip":
            weights, _ = importance(shares, foreign=self.foreign, cap=self.cap)
            plain = -shares.ahead[..., None] * candidates.logprobs
            corrected = token_sum(candidates, weights * plain, shares.corrected)
            imitated = self.imitation_weight * token_sum(candidates, plain, shares.imitated)
            terms["foreign"] = Term(corrected + imitated, count)
        if self.sft_weight:
            terms["sft"] = sft_loss(candidates, min_reward=self.min_reward).weighted(self.sft_weight)
        if self.kl_weight:  # over the same as what it holds back
            terms["kl"] = Term(self.kl_weight * kl_loss(candidates, shares.part).total, count)
        return terms

    def metrics(self, candidates: "Candidates") -> "dict[str, Term]":
        import torch

        from rl.losses.policy_gradient import gradient_metrics

        bounds = {"eps_low": self.eps_low, "eps_high": self.eps_high}
        with torch.no_grad():
            shares = self._share(candidates)
        gradient = gradient_metrics(candidates, shares, foreign=self.foreign, cap=self.cap, **bounds)
        return super().metrics(candidates) | gradient

    def _share(self, candidates: "Candidates") -> "Shares":
        from rl.losses.policy_gradient import share

        return share(
            candidates,
            baseline=self.baseline,
            by_std=self.by_std,
            foreign=self.foreign,
            max_clipped_lag=self.max_clipped_lag,
        )


Objective = Annotated[Sft | Rrhf | RrhfD | Listwise | Dpo | Grpo, Field(discriminator="kind")]
