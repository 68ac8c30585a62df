"""A checkpoint on GPUs for the endpoint: the engine of ``ray.serve.llm``, asked for tokens by our own replica.

Ray places, scales and restarts the engine; requests, formats, tools and replies are read and written as with any other
engine, so that the surface is the same. It needs GPUs, ``ray[llm]`` and vLLM, which are not among this project's
dependencies: this file was run against a stand-in for that engine on Ray Serve, never against vLLM itself.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.serve.handle import DeploymentHandle

from executors.errors import ConfigError, DataError
from rl.models.load import is_adapter, load_tokenizer
from rl.serving.app import LlmOptions
from rl.serving.vllm import VllmPolicy, require_vllm


def require_llm(path: Path) -> None:
    """See that a checkpoint can be run by ``ray.serve.llm`` on this machine.

    Raises:
        ConfigError: vLLM is not installed, or the checkpoint is an adapter alone.
    """
    if is_adapter(path):
        raise ConfigError(
            f"{path} is an adapter, and --engine llm takes whole models: write one with 'apprentice export', which "
            "merges it, or leave --engine out"
        )
    require_vllm()


def llm_application(name: str, path: Path, options: LlmOptions) -> Any:
    """The Serve application that holds a checkpoint in vLLM; its ``generate`` gives vLLM's outputs as they grow.

    Args:
        name: what clients call the policy.
        path: a model directory that every node has.
        options: how it is run.
    """
    from ray.serve.llm import LLMConfig, LLMServer, build_llm_deployment

    class TokenServer(LLMServer):  # type: ignore[misc, valid-type]
        """Ray's server, asked for tokens rather than for chats."""

        async def generate(self, prompt: Mapping[str, Any], sampling: Any, request: str) -> AsyncIterator[Any]:
            """What is written, whole, again and again as it grows."""
            engine: Any = self.engine
            async for output in engine._engine_client.generate(dict(prompt), sampling, request):
                yield output

    config = LLMConfig(
        model_loading_config={"model_id": name, "model_source": str(path)},
        deployment_config={"num_replicas": options.replicas},
        engine_kwargs=dict(options.engine),
    )
    return build_llm_deployment(config, deployment_cls=TokenServer)


class RemoteEngine:
    """An engine in another process, as ``VllmPolicy`` asks one."""

    def __init__(self, handle: DeploymentHandle, limit: int) -> None:
        """
        Args:
            handle: of what ``llm_application`` makes.
            limit: tokens of prompt and reply together.
        """
        self._handle = handle.options(stream=True)
        self.model_config = SimpleNamespace(max_model_len=limit)

    async def generate(self, prompt: Mapping[str, Any], sampling: Any, request: str) -> AsyncIterator[Any]:
        """See vLLM's ``AsyncLLM.generate``."""
        outputs: Any = self._handle.generate.remote(prompt, sampling, request)
        async for output in outputs:
            yield output


@dataclass(frozen=True, slots=True)
class LlmOpener:
    """Opens the checkpoint that an engine holds; it has no other."""

    name: str
    path: Path
    handle: DeploymentHandle
    limit: int
    """Tokens that it reads; see ``context_of``."""

    def __call__(self, path: Path, version: int) -> VllmPolicy:
        """See ``Opener``.

        Raises:
            DataError: it is another one.
        """
        if path.resolve() != self.path.resolve():
            raise DataError(f"the engine holds {self.path.name} alone; serve {path.name} by itself, with --checkpoint")
        return VllmPolicy(self.name, RemoteEngine(self.handle, self.limit), load_tokenizer(path), version=version)


def context_of(path: Path, options: LlmOptions) -> int:
    """Tokens of prompt and reply together: ``max_model_len`` of the options, else what the model was made for.

    Raises:
        ConfigError: neither says.
    """
    asked = options.engine.get("max_model_len")
    known = json.loads((path / "config.json").read_text()).get("max_position_embeddings")
    limit = asked or known
    if not isinstance(limit, int):
        raise ConfigError(
            f"{path}/config.json does not say how much the model reads (max_position_embeddings is {known!r}); say it "
            "with --engine-option max_model_len=4096"
        )
    return limit
