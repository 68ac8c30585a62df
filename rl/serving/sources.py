"""How a config names the policies that sources play, beside the live one, the peers, gold and the recordings."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from executors.catalog import Catalog
from executors.endpoint import Endpoint, EndpointClient
from executors.errors import ConfigError
from rl.config import ModelPath, Strict
from rl.serving.endpoint import Mode
from rl.serving.random_agent import Habits
from rollouts.formats import Format
from rollouts.policy import Policy


class Placement(Strict):
    """Workers of their own, where what they need is."""

    workers: int = Field(default=1, gt=0)
    """Processes."""
    cpus: float = Field(default=1, ge=0)
    """Of each."""
    gpus: float = Field(default=0, ge=0)
    """Of each."""
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Custom resources of Ray that each takes, such as ``{big_gpu: 1}``."""


class _Endpoint(Strict):
    """What is said of an endpoint, whatever serves it."""

    base_url: str
    """Up to and including ``/v1``."""
    model: str
    """What the endpoint calls it."""
    key_env: str | None = None
    """The environment variable that holds the key, or several with commas between, which are used in turns; none is
    sent by default."""
    mode: Mode = "tools"
    """``tools`` asks with messages and tools; ``text`` with the format's own text."""
    system: str = ""
    """The system message."""
    logprobs: bool = False
    """Whether to ask for log-probabilities; not every endpoint gives them."""
    concurrency: int = Field(default=16, gt=0)
    """Episodes that are played with it at once."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds for one try."""
    retries: int = Field(default=4, ge=0)
    """Further tries after 429, 5xx, a time-out, a lost connection or a reply that cannot be read."""
    backoff: float = Field(default=0.5, ge=0)
    """Seconds before the first further try; doubled each time."""
    per_second: float | None = Field(default=None, gt=0)
    """Requests started each second."""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the limit of a reply."""
    prompt_price: float = Field(default=0.0, ge=0)
    """US dollars for a million tokens read."""
    completion_price: float = Field(default=0.0, ge=0)
    """US dollars for a million tokens written."""
    max_usd: float | None = Field(default=None, gt=0)
    """What the process that asks it may spend; once that is gone its episodes fail, and say so."""

    @model_validator(mode="after")
    def _works(self) -> "_Endpoint":
        try:
            self.endpoint()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def endpoint(self) -> Endpoint:
        """As the client takes it."""
        shared = ("base_url", "model", "key_env", "timeout", "retries", "backoff", "per_second", "length_field")
        money = ("prompt_price", "completion_price", "max_usd")
        return Endpoint(**{name: getattr(self, name) for name in (*shared, *money)})

    def build(self, name: str, format: Format, catalog: Catalog, *, gpu: bool = False) -> Callable[[], Policy]:
        """What builds the policy in the process that plays it."""
        from rl.serving.policies import EndpointModel

        return EndpointModel(
            name=name,
            endpoint=self.endpoint(),
            format=format,
            catalog=catalog,
            mode=self.mode,
            system=self.system,
            logprobs=self.logprobs,
        )

    def check(self) -> None:
        """See that the key is there. Raises ConfigError."""
        EndpointClient(self.endpoint())


class EndpointConfig(_Endpoint):
    """A model behind an OpenAI-compatible endpoint: hosted, or a server of one's own."""

    kind: Literal["endpoint"] = "endpoint"


class VllmConfig(_Endpoint):
    """A vLLM server: an endpoint that reads and writes calls once it is told how.

    Start it with ``vllm serve MODEL --enable-auto-tool-choice --tool-call-parser hermes``, the parser being that of
    the model's family; in mode ``text`` it needs neither option.
    """

    kind: Literal["vllm"] = "vllm"
    base_url: str = "http://127.0.0.1:8000/v1"
    concurrency: int = Field(default=128, gt=0)


class VllmEngineConfig(Strict):
    """A model directory in vLLM's engine, inside the rollout worker; needs a GPU and vLLM."""

    kind: Literal["vllm_engine"] = "vllm_engine"
    path: ModelPath
    options: dict[str, Any] = {}
    """Of vLLM's ``AsyncEngineArgs``."""
    place: Placement | None = None
    """Its own workers; without, every rollout worker holds it."""

    def build(self, name: str, format: Format, catalog: Catalog, *, gpu: bool = False) -> Callable[[], Policy]:
        """What builds the policy in the process that plays it."""
        from rl.serving.vllm import VllmEngine

        return VllmEngine(name, self.path, self.options)

    def check(self) -> None:
        """See that vLLM and the model are there. Raises ConfigError or DataError."""
        from rl.models.load import require_model
        from rl.serving.vllm import require_vllm

        require_model(Path(self.path))
        require_vllm()


class LocalConfig(Strict):
    """Another model from a local directory in Hugging Face's format, behind the transformers engine."""

    kind: Literal["huggingface"] = "huggingface"
    path: ModelPath
    adapters: dict[str, ModelPath] = {}
    """Directories of LoRA adapters in PEFT's format, by the names that sources ask for them by."""
    place: Placement | None = None
    """Its own workers; without, every rollout worker holds it."""

    def build(self, name: str, format: Format, catalog: Catalog, *, gpu: bool = False) -> Callable[[], Policy]:
        """What builds the policy in the process that plays it."""
        from rl.serving.policies import LocalPolicy

        return LocalPolicy(name, self.path, gpu=gpu, adapters=self.adapters)

    def check(self) -> None:
        """See that the model and its adapters are there. Raises DataError."""
        from rl.models.load import require_model

        for path in (self.path, *self.adapters.values()):
            require_model(Path(path))


class RandomConfig(Strict):
    """An agent without a model that calls at random: to try tools and rewards before anything is trained."""

    kind: Literal["random"] = "random"
    call: float = Field(default=Habits().call, ge=0, le=1)
    """Share of its replies that call; of those,"""
    wrong_arguments: float = Field(default=Habits().wrong_arguments, ge=0, le=1)
    """have an argument left out, of another type, or that there is not,"""
    unknown_tool: float = Field(default=Habits().unknown_tool, ge=0, le=1)
    """name a tool that there is not,"""
    malformed: float = Field(default=Habits().malformed, ge=0, le=1)
    """are cut in the middle."""
    right: float = Field(default=Habits().right, ge=0, le=1)
    """Share of its answers that are the expected one."""

    @model_validator(mode="after")
    def _shares(self) -> "RandomConfig":
        try:
            self.habits()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def habits(self) -> Habits:
        """As the agent takes them."""
        return Habits(**self.model_dump(exclude={"kind"}))

    def build(self, name: str, format: Format, catalog: Catalog, *, gpu: bool = False) -> Callable[[], Policy]:
        """What builds the policy in the process that plays it."""
        from rl.serving.policies import RandomAgent

        return RandomAgent(name=name, format=format, catalog=catalog, habits=self.habits())

    def check(self) -> None:
        """It needs nothing."""


PolicyConfig = Annotated[
    EndpointConfig | VllmConfig | VllmEngineConfig | LocalConfig | RandomConfig, Field(discriminator="kind")
]
