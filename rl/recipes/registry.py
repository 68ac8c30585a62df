"""The recipes by name: the config of each, and how those are trained that need no cluster."""

import importlib
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from executors.errors import ConfigError

_CLUSTER = {"trice": ("rl.recipes.trice", "TriceConfig")}
"""Recipes that are trained on Ray, by the parts that ``rl.recipes.session`` starts."""
_ALONE = {
    "toolkengpt": ("rl.recipes.toolkengpt", "ToolkenGptConfig"),
    "toolgen": ("rl.recipes.toolgen", "ToolGenConfig"),
    "toolalpaca": ("rl.recipes.toolalpaca", "ToolAlpacaConfig"),
}
"""Recipes that are trained in one process: their module's ``train`` takes the config, the run and the progress."""


def config_class(recipe: object, origin: str, *, alone: bool) -> type[BaseModel]:
    """The config of a recipe.

    Args:
        recipe: its name, as the config has it.
        origin: of the config, for the message.
        alone: whether recipes that need no cluster are taken too.

    Raises:
        ConfigError: there is no such recipe, or it is not taken here.
    """
    known = _CLUSTER | (_ALONE if alone else {})
    if recipe in _ALONE and not alone:
        raise ConfigError(
            f"{origin}: this command takes recipes of kind {', '.join(_CLUSTER)}; {recipe} has 'apprentice train' alone"
        )
    if not isinstance(recipe, str) or recipe not in known:
        raise ConfigError(f"{origin}: no recipe {recipe!r}; 'recipe' is one of: {', '.join(known)}")
    module, name = known[recipe]
    return getattr(importlib.import_module(module), name)


def trained_alone(recipe: str) -> Callable[..., dict[str, Any]] | None:
    """How a recipe is trained in this process; None where it takes a cluster."""
    if recipe not in _ALONE:
        return None
    return importlib.import_module(_ALONE[recipe][0]).train
