"""ToolkenGPT's two modes as a policy for the one episode loop.

In reasoning mode an engine writes words until a tool is likelier than any of them; in tool mode the same engine writes
the arguments, behind demonstrations of that tool. The reply that the loop sees is the words and the call. What was read
in reasoning mode is kept for the next reply, since the tool's token is none of it; replies of many episodes are decoded
together in either mode.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from executors.types import MalformedCall, ToolCall, ToolSpec
from rl.data.tasks.virtualhome import END, scene_of, step_name
from rl.models.tool_head import token_of
from rl.serving.engine import TransformersPolicy
from rollouts.formats.toolken import QUESTION, ToolkenFormat, call_of, with_calls
from rollouts.policy import Request
from rollouts.types import Completion, Sampling, Task, Turn

HEAD = "tool_head"
"""The name under which a head's rows are published."""
_NEVER = -math.inf


class Rule(Protocol):
    """Says which tools may come next, such as in a plan."""

    def allowed(self, task: Task, turns: Sequence[Turn]) -> Sequence[str] | None:
        """Names of tools, one of which has to come now; None where words may come as well."""
        ...


class First:
    """A constraint on the first token of a reply alone."""

    def __init__(self, ids: Sequence[int] | np.ndarray) -> None:
        self.ids = np.asarray(ids, dtype=np.int64)

    def allowed(self, ids: Sequence[int]) -> np.ndarray | None:
        """The tokens that may come; None behind the first."""
        return None if ids else self.ids


class ToolkenPolicy:
    """An engine whose model has tools as tokens, see ``rl.models.tool_head.merged``."""

    def __init__(
        self,
        engine: TransformersPolicy,
        tokens: Mapping[str, int],
        specs: Sequence[ToolSpec],
        format: ToolkenFormat,
        *,
        demonstrations: Mapping[str, str] | None = None,
        bias: float = 0.0,
        max_arguments: int = 32,
        max_seconds: float = 120.0,
        candidates: int = 5,
        rule: Rule | None = None,
    ) -> None:
        """
        Args:
            engine: of the merged model.
            tokens: the id of each tool's token.
            specs: what the tools take; one without parameters needs no tool mode.
            format: how a task is written.
            demonstrations: by tool, a template with ``[QUESTION]``; the format's own for one without.
            bias: added to the logit of every tool that may come.
            max_arguments: tokens of a call's arguments.
            max_seconds: after which an episode makes no further call.
            candidates: tokens that are told of each place, and tried in turn after a call that fails.
            rule: which tools may come; any of the task's, or words, by default.
        """
        self.name = engine.name
        self.version = engine.version
        self.engine = engine
        self.format = format
        self.tokens = dict(tokens)
        self.specs = {spec.name: spec for spec in specs}
        self.demonstrations = dict(demonstrations or {})
        self.bias = bias
        self.max_arguments = max_arguments
        self.max_seconds = max_seconds
        self.candidates = candidates
        self.rule = rule
        self._names = {id: name for name, id in self.tokens.items()}
        self._began: dict[str, float] = {}
        words = set(range(len(engine.tokenizer))) - _digits(engine)
        self._no_digit = np.array(sorted(words), dtype=np.int64)

    def release(self, session: str) -> None:
        self.engine.release(session)
        self._began.pop(session, None)

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        """Take a head's rows, in the order of the tools; everything else is the frozen model's and stays."""
        self.version = version
        if set(weights) != {HEAD}:
            self.engine.load(weights, version)
            return
        parameters = {name: p.detach().cpu().numpy() for name, p in self.engine.model.named_parameters()}
        name = output_name(self.engine.model)
        rows = parameters[name].copy()
        rows[list(self.tokens.values())] = np.asarray(weights[HEAD])
        self.engine.load({**parameters, name: rows}, version)

    async def complete(self, request: Request) -> Completion:
        """See ``Policy.complete``: the words up to a tool, and the call of it, or the words alone."""
        began = self._began.setdefault(request.session, time.monotonic())
        may_call = time.monotonic() - began < self.max_seconds
        constraint = self._first(request)
        if constraint is not None and not len(constraint.ids):
            return Completion(text="", finish="end", calls=())
        tools = set(request.task.tools) if may_call else set()
        bias = {id: self.bias if name in tools else _NEVER for name, id in self.tokens.items()}
        sampling = dataclasses.replace(request.sampling, logit_bias={**request.sampling.logit_bias, **bias})
        sampling = dataclasses.replace(sampling, top_logprobs=max(self.candidates, request.sampling.top_logprobs))
        stops = tuple(self.tokens.values())
        asked = dataclasses.replace(request, sampling=sampling, stop_ids=stops, constraint=constraint)
        reasoned = await self.engine.complete(asked)
        if not reasoned.token_ids or reasoned.token_ids[-1] not in self._names:
            return dataclasses.replace(reasoned, calls=())
        tool = self._names[reasoned.token_ids[-1]]
        words = _without_last(reasoned, token_of(tool))
        return await self._called(request, words, tool)

    async def _called(self, request: Request, words: Completion, tool: str) -> Completion:
        """Tool mode: the arguments, in a context of their own."""
        spec = self.specs.get(tool)
        if spec is None or not spec.parameters.get("properties"):
            return dataclasses.replace(words, calls=(ToolCall(tool, {}),))
        template = self.demonstrations.get(tool, self.format.template)
        so_far = with_calls((*request.turns, Turn(words)))
        session = f"{request.session}/{len(request.turns)}"
        asked = Request(
            task=request.task,
            segments=(f"{template.replace(QUESTION, request.task.prompt)}{so_far}<{tool}>(",),
            session=session,
            sampling=Sampling(max_tokens=self.max_arguments, logit_bias=dict.fromkeys(self.tokens.values(), _NEVER)),
            stop=(")", "\n"),
            seed=request.seed,
        )
        written = await self.engine.complete(asked)
        self.engine.release(session)
        call = call_of(tool, written.text.partition(")")[0], spec)
        return dataclasses.replace(words, calls=(call,), seconds=words.seconds + written.seconds)

    def _first(self, request: Request) -> First | None:
        """What the reply may begin with.

        After a result no digit, which would make it longer; after a call that failed the next candidate of its place;
        where a rule says so, one of the tools that it names.
        """
        if self.rule is not None and (named := self.rule.allowed(request.task, request.turns)) is not None:
            return First([self.tokens[name] for name in named])
        if not request.turns or request.turns[-1].observation is None:
            return None
        if request.turns[-1].observation.ok:
            return First(self._no_digit) if request.turns[-1].observation.content else None
        return First(self._next(request))

    def _next(self, request: Request) -> list[int]:
        """The candidate after those that have failed at this place; none where all have."""
        failed: list[Turn] = []
        for turn in reversed(request.turns):
            if turn.observation is None or turn.observation.ok or (failed and failed[-1].completion.text):
                break
            failed.append(turn)
        ranked = failed[-1].completion.top_logprobs[-1:]
        if not ranked:
            return []
        scores = {id: value + (self.bias if id in self._names else 0.0) for id, value in ranked[0]}
        tried = {self.tokens[turn.call.tool] for turn in failed if isinstance(turn.call, ToolCall)}
        tried |= {self.tokens[name] for turn in failed if (name := _named(turn)) in self.tokens}
        order = [id for id in sorted(scores, key=lambda id: -scores[id]) if id not in tried]
        may = set(request.task.tools)
        return [id for id in order if id not in self._names or self._names[id] in may][:1]


class PlanRule:
    """A plan's grammar: verb and object by turns, objects of the scene, no verb but WALK twice in a row, then the end.

    The scene is what the prompt says of it.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        """
        Args:
            tokens: all verbs and objects, and the end.
        """
        self._verbs = [token for token in tokens if token.startswith("[")]
        self._objects = [token for token in tokens if token.startswith("<")]

    def allowed(self, task: Task, turns: Sequence[Turn]) -> list[str]:
        """See ``Rule``."""
        said = [call.tool for turn in turns for call in turn.calls if isinstance(call, ToolCall)]
        if said and said[-1] == step_name(END):
            return []
        if len(said) % 2:
            there = scene_of(task.prompt).objects
            return [step_name(token) for token in self._objects if token.strip("<>") in there]
        last = said[-2] if len(said) > 1 else ""
        again = {last} - {step_name("[WALK]")}
        return [name for name in map(step_name, self._verbs) if name not in again]


def output_name(model: Any) -> str:
    """The name of a model's output matrix among its parameters."""
    matrix = model.get_output_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is matrix)


def _named(turn: Turn) -> str:
    """The tool of a malformed call."""
    return turn.call.text.partition(">")[0].removeprefix("<") if isinstance(turn.call, MalformedCall) else ""


def _without_last(completion: Completion, token: str) -> Completion:
    """A reply without the tool's token that ended it, which no later reply reads; the log of its place stays."""
    return dataclasses.replace(
        completion,
        text=completion.text.removesuffix(token),
        token_ids=completion.token_ids[:-1],
        mask=completion.mask[:-1],
        logprobs=completion.logprobs[:-1],
    )


def _digits(engine: TransformersPolicy) -> set[int]:
    """Tokens that would make a number longer that stands before them."""
    tokens = range(len(engine.tokenizer))
    texts = engine.tokenizer.batch_decode([[token] for token in tokens])
    return {token for token, text in zip(tokens, texts, strict=True) if text[:1].isdigit()}
