"""The folder of an evaluation that plays: what it was made by, so that a later sitting goes on with the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executors.errors import ConfigError
from executors.replies import KeptClient
from rl.data.tables import write_text, written
from rl.serving.sources import EndpointConfig, PolicyConfig, VllmConfig

_HOW_IT_IS_ASKED = {
    *("base_url", "key_env", "timeout", "retries", "backoff", "per_second", "concurrency"),
    *("prompt_price", "completion_price", "max_usd"),
}
"""Of a policy: where and how patiently, and not what; it may change between two sittings."""


def claim(kept: Path, policy: PolicyConfig, settings: Mapping[str, Any]) -> None:
    """See that what the folder holds was made in the same way; another folder is for another policy.

    Raises:
        ConfigError: it was made by another policy, or by other settings.
    """
    made = written({"policy": policy.model_dump(mode="json", exclude=_HOW_IT_IS_ASKED), **settings})
    kept.mkdir(parents=True, exist_ok=True)
    place = kept / "settings.json"
    if place.exists() and place.read_text(encoding="utf-8") != made:
        raise ConfigError(f"{kept} holds attempts of another policy, or made by other settings; name another folder")
    write_text(place, made)


def kept_client(config: EndpointConfig | VllmConfig, path: Path, clients: list[KeptClient]) -> KeptClient:
    """What asks an endpoint for no reply twice; it is closed with the others."""
    clients.append(KeptClient(config.endpoint(), path))
    return clients[-1]
