"""A model in vLLM's offline engine as a policy: token ids in, token ids out, as with the transformers engine.

vLLM needs a GPU and is not among this project's dependencies. This file has been run against a stand-in for vLLM's
interface alone, never against vLLM itself. A vLLM server needs nothing of this: it is an endpoint (``kind: vllm``).
"""

import importlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from executors.errors import ConfigError, DataError
from rl.models.load import load_tokenizer
from rl.models.pieces import Pieces, fingerprint
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, Request
from rollouts.types import Completion


@dataclass(frozen=True, slots=True)
class VllmEngine:
    """Builds a ``VllmPolicy`` in the process that uses it."""

    name: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of vLLM's ``AsyncEngineArgs``, such as ``tensor_parallel_size``."""

    def __call__(self) -> "VllmPolicy":
        vllm = require_vllm()
        engine = vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(model=self.path, **self.options))
        return VllmPolicy(self.name, engine, load_tokenizer(Path(self.path)))


class VllmPolicy:
    """A policy over ``vllm.AsyncLLMEngine``, which batches whatever is asked at once and keeps prefixes by itself."""

    def __init__(self, name: str, engine: Any, tokenizer: PreTrainedTokenizerBase, *, version: int = 0) -> None:
        """
        Args:
            name: of the policy.
            engine: vLLM's.
            tokenizer: the model's.
            version: of the weights.
        """
        self.name = name
        self.version = version
        self.engine = engine
        self.tokenizer = tokenizer
        self._vllm = require_vllm()
        self._pieces = Pieces(tokenizer)
        self._fingerprint = fingerprint(tokenizer)
        self._requests = itertools.count()

    async def complete(self, request: Request) -> Completion:
        """See ``Policy.complete``.

        Raises:
            PromptTooLongError: the episode fills the model's context.
            PolicyUnavailableError: the engine failed, or the request asks for what this policy cannot do.
        """
        if request.constraint is not None or request.adapter:
            raise PolicyUnavailableError(f"{self.name} runs in vLLM here, without constraints and adapters")
        forced = self._encode(request.prefix)
        ids = [token for part in request.segments for token in self._ids(part)] + forced
        limit = int(self.engine.model_config.max_model_len)
        if len(ids) >= limit:
            raise PromptTooLongError(
                f"task {request.task.id!r} takes {len(ids)} tokens and {self.name} reads {limit} at most"
            )
        name = f"{self.name}-{next(self._requests)}"
        try:
            written = self.engine.generate({"prompt_token_ids": ids}, self._parameters(request, limit - len(ids)), name)
            output = None
            async for output in written:
                if request.on_text is not None:
                    request.on_text(request.prefix + output.outputs[0].text)
        except (RuntimeError, ValueError) as error:
            raise PolicyUnavailableError(f"{self.name} failed: {type(error).__name__}: {error}") from error
        if output is None:
            raise PolicyUnavailableError(f"{self.name} gave nothing: vLLM ended the request without an output")
        return self._completion(request, output, forced, len(ids) - len(forced))

    def release(self, session: str) -> None:
        pass

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        raise DataError(f"{self.name} runs in vLLM, which takes no published weights here; play them by another policy")

    def _parameters(self, request: Request, room: int) -> Any:
        sampling = request.sampling
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            min_p=sampling.min_p,
            logit_bias=dict(sampling.logit_bias) or None,
            max_tokens=min(sampling.max_tokens, room),
            stop=list(request.stop) or None,
            stop_token_ids=list(request.stop_ids) or None,
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            seed=request.seed,
            logprobs=sampling.top_logprobs,
            prompt_logprobs=0 if request.prefix else None,
        )

    def _completion(self, request: Request, output: Any, forced: Sequence[int], prompt: int) -> Completion:
        written, top = output.outputs[0], request.sampling.top_logprobs
        sampled = [int(token) for token in written.token_ids]
        ids = [*forced, *sampled]
        told = output.prompt_logprobs[-len(forced) :] if forced else []
        chances = [*told, *(written.logprobs or [])]
        text = b""
        for end in range(1, len(ids) + 1):
            text = self._pieces.append(text, ids[:end])
        whole = text.decode(errors="replace")
        stops = [whole.index(stop) + len(stop) for stop in request.stop if stop in whole]
        stopped = stops or (ids and ids[-1] in request.stop_ids)
        finish = "length" if written.finish_reason == "length" else "stop" if stopped else "end"
        return Completion(
            text=whole[: min(stops)] if stops else whole,
            finish=finish,
            token_ids=tuple(ids),
            mask=(False,) * len(forced) + (True,) * len(sampled),
            logprobs=tuple(float(chance[token].logprob) for chance, token in zip(chances, ids, strict=True)),
            tokenizer=self._fingerprint,
            prompt_tokens=prompt,
            top_logprobs=tuple(_likeliest(chance, top) for chance in chances) if top else (),
        )

    def _ids(self, part: str | Completion) -> list[int]:
        """A segment's tokens: as they were sampled, or encoded where another kind of policy wrote it."""
        if isinstance(part, Completion):
            own = part.token_ids and part.tokenizer == self._fingerprint
            return list(part.token_ids) if own else self._encode(part.text)
        return self._encode(part)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False) if text else []


def _likeliest(chance: Mapping[int, Any], count: int) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens of one place with their log-probabilities, best first."""
    every = sorted(((int(token), float(one.logprob)) for token, one in chance.items()), key=lambda pair: -pair[1])
    return tuple(every[:count])


def require_vllm() -> Any:
    """vLLM's package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise ConfigError(
            f"vLLM cannot be imported ({error}); install it on a machine with a GPU, or start a vLLM server elsewhere "
            "and name it as a policy of kind 'vllm', with its base_url"
        ) from error
