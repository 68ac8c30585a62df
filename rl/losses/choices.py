"""The names of what a loss may be told to do; here, so that a config is checked without tensors."""

from typing import Literal

LengthNorm = Literal["tokens", "padded", "none"]
"""What a candidate's log-probability is divided by: its own tokens; the padded row, as coded; nothing."""
PairForm = Literal["hinge", "logistic"]
"""``hinge``: a pair costs what it lacks, and nothing once it is in order by the margin; ``logistic``: the negative
log-probability that the better one wins (Bradley and Terry), which never ends to pull."""
PairNorm = Literal["task", "pair", "active"]
"""What the sum over pairs is divided by: the tasks, as RRHF publishes it; the pairs; the pairs that cost something."""
PairChoice = Literal["all", "best_worst"]
"""Every pair whose rewards differ, or of each task the best candidate against the worst."""
Baseline = Literal["group", "own"]
"""What a reward is compared with: the mean of its group, or of those in it that the policy itself wrote, if any."""
Foreign = Literal["topr", "tis", "skip"]
"""What becomes of candidates that the policy did not write, or wrote too long ago.

- ``topr``: good ones are imitated by their advantage; bad ones count by how likely the policy is to write them, as
  against whoever did, at most 1.
- ``tis``: each token counts by that ratio, at most ``cap``.
- ``skip``: nothing.

Where the writer's log-probabilities are not known, good ones are imitated and bad ones are left out.
"""
