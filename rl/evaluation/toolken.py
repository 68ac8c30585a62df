"""ToolkenGPT's metrics: as its scripts compute them, and as they should be.

Published: an integer never has a sign, the relation ``P17`` is found in ``P175``, and an answer ``2`` in any number
that has the digit. Here those are called legacy and stand beside figures that are not so.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rl.data.spans import whole_places
from rl.data.tasks.virtualhome import END, Scene
from rl.evaluation.intervals import Ratio

_LEGACY_NUMBER = re.compile(r"[-+]?\d*\.\d+|\d+")
_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d+(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d)\.?)(?:[eE][-+]?\d+)?")
_PLAN_LINES = 8
"""Of a plan that the published evaluation carries out."""

Verdict = Literal["relation", "false_relation", "object", "nothing"]


def legacy_answer(text: str, marker: str) -> float:
    """The answer as published: the last number after the last marker; whole numbers lose their sign; 0 for none."""
    said = text.rpartition(marker)[2].replace(",", "") if marker in text else text.replace(",", "")
    found = _LEGACY_NUMBER.findall(said)
    return float(found[-1]) if found else 0.0


def answer_of(text: str, marker: str) -> float | None:
    """The first number after the last marker, its sign and its exponent with it; None where there is none."""
    if marker not in text:
        return None
    found = _NUMBER.search(text.rpartition(marker)[2])
    if found is None or not any(character.isdigit() for character in found[0]):
        return None
    return float(found[0].replace(",", "").replace("−", "-"))


def exact_match(predicted: float | None, gold: float) -> bool:
    """Equal when both are rounded to two decimals, or to none where the gold answer is whole (published as ``em``)."""
    if predicted is None or not math.isfinite(predicted):
        return False
    digits = 0 if float(gold).is_integer() else 2
    return legacy_round(predicted, digits) == legacy_round(gold, digits)


def approximate(predicted: float | None, gold: float, share: float = 0.001) -> bool:
    """Within a share of the gold answer, a thousandth by default (published as ``approx``)."""
    return predicted is not None and math.isfinite(predicted) and abs(predicted - gold) <= share * abs(gold)


def same_rounded(predicted: float | None, gold: float) -> bool:
    """Equal as published results are rounded, see ``legacy_rounding`` (published as ``round``)."""
    return (
        predicted is not None
        and math.isfinite(predicted)
        and legacy_rounding(predicted) == legacy_rounding(float(gold))
    )


def legacy_round(value: float, digits: int) -> float:
    """Rounded with halves away from zero: 0.125 is 0.13."""
    scaled = abs(value) * 10**digits
    return math.copysign(math.floor(scaled + 0.5 + 1e-9) / 10**digits, value)


def legacy_rounding(value: float) -> float:
    """What the published operations answer: two decimals, and of numbers below 1 two digits after the zeros.

    Numbers near 0 lose digits so that most of a right caller's answers are no longer within a thousandth.
    """
    if value == 0 or not math.isfinite(value):
        return value
    digits = 2
    if abs(value) < 1:
        zeros = -math.floor(math.log10(abs(value))) - 1
        digits = zeros + 2 if zeros else 2
    return round(value, digits)


def answer_ratios(texts: Sequence[str], golds: Sequence[str | float], marker: str) -> dict[str, Ratio]:
    """Accuracy of generated texts by each published metric, and by the corrected reading of the answer.

    Args:
        texts: what was generated.
        golds: the expected answers.
        marker: what stands before an answer: ``####`` or ``answer is``.
    """
    values = [float(str(gold).replace(",", "")) for gold in golds]
    legacy = [legacy_answer(text, marker) for text in texts]
    read = [answer_of(text, marker) for text in texts]
    metrics = {"em": exact_match, "approx": approximate, "round": same_rounded}
    ratios = {
        f"legacy_{name}": Ratio([float(metric(p, g)) for p, g in zip(legacy, values, strict=True)])
        for name, metric in metrics.items()
    }
    return ratios | {
        name: Ratio([float(metric(p, g)) for p, g in zip(read, values, strict=True)])
        for name, metric in metrics.items()
    }


def legacy_relation(text: str, gold: str, answers: Iterable[str]) -> Verdict:
    """KAMEL as published: the gold id anywhere in the text, else any ``<P``, else any answer anywhere."""
    if gold in text:
        return "relation"
    if "<P" in text:
        return "false_relation"
    return "object" if any(answer in text for answer in answers) else "nothing"


def relation(called: str | None, text: str, gold: str, answers: Iterable[str]) -> Verdict:
    """KAMEL by what was called: the very relation; without a call, an answer that stands by itself in the text."""
    if called is not None:
        return "relation" if called == gold else "false_relation"
    return "object" if any(answer and whole_places(text, answer) for answer in answers) else "nothing"


def colliding(names: Sequence[str]) -> list[tuple[str, str]]:
    """Ordered pairs of names of which the first is a part of the second: where ``legacy_relation`` is fooled."""
    return [(one, other) for one in names for other in names if one != other and one in other]


PlanFault = Literal["PARSE-ACTION", "ACTION-NOT-FOUND", "OBJ-NOT-FOUND", "NUM-PARAMS", "REPEATED", "UNFINISHED"]
"""What is wrong with a plan, in the published words where there is one. What only carrying it out would show
(INTERNAL-ERROR, EXCEPTION, WRONG-STATE, EMPTY-STATE, MISSED) is not told: that takes the scenes' graphs."""


@dataclass(frozen=True, slots=True)
class PlanVerdict:
    """What can be said of a plan without its scene's graph."""

    fault: PlanFault | None
    """The first; None for a legal plan."""
    grounded: bool
    """Whether every object is one of the scene's."""
    steps: int
    """Before the end."""


def plan_steps(text: str) -> list[str]:
    """The lines of a plan up to its end, eight at most, as the published evaluation takes them."""
    lines = [line.strip() for line in text.partition(END)[0].splitlines()]
    return [line for line in lines if line][:_PLAN_LINES]


def judge_plan(tokens: Sequence[str], scene: Scene, verbs: Iterable[str]) -> PlanVerdict:
    """Whether a plan is legal in its scene: verb and object by turns, objects that are there, nothing twice in a row.

    Args:
        tokens: ``[WALK]``, ``<desk>`` and so on, in order; ``[END]`` last.
        scene: what the prompt says is there.
        verbs: all that there are, ``[END]`` apart.
    """
    known = frozenset(verbs)
    steps = list(tokens[: tokens.index(END)] if END in tokens else tokens)
    objects = [token.strip("<>") for token in steps if token.startswith("<")]
    grounded = all(object in scene.objects for object in objects)
    return PlanVerdict(_fault(steps, END in tokens, scene, known), grounded, (len(steps) + 1) // 2)


def _fault(steps: Sequence[str], ended: bool, scene: Scene, verbs: frozenset[str]) -> PlanFault | None:
    before: tuple[str, str] | None = None
    for place in range(0, len(steps), 2):
        verb, object = steps[place], steps[place + 1] if place + 1 < len(steps) else ""
        if not verb.startswith("["):
            return "PARSE-ACTION"
        if verb not in verbs:
            return "ACTION-NOT-FOUND"
        if not object.startswith("<"):
            return "NUM-PARAMS"
        if object.strip("<>") not in scene.objects:
            return "OBJ-NOT-FOUND"
        if (verb, object) == before and verb != "[WALK]":
            return "REPEATED"
        before = verb, object
    return None if ended else "UNFINISHED"
