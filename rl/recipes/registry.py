"""The recipes by name: the config of each, and how those are trained that need no cluster."""

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from executors.errors import ConfigError

_CLUSTER = {"trice": ("rl.recipes.parts", "TriceConfig")}
"""Recipes that are trained on Ray, by the parts that ``rl.recipes.session`` starts: where their config is, which says
nothing of tensors, so that it is checked at once."""
_ALONE = {
    "ste": ("rl.recipes.ste_config", "SteConfig"),
    "toolkengpt": ("rl.recipes.toolkengpt_config", "ToolkenGptConfig"),
    "toolgen": ("rl.recipes.toolgen_config", "ToolGenConfig"),
    "toolalpaca": ("rl.recipes.toolalpaca_config", "ToolAlpacaConfig"),
}
"""Recipes whose ``train``, of the module of their name, takes the config, the run and the progress and does all of it:
in this process, or on ranks of a cluster that it starts itself."""


def any_config_class(recipe: object, origin: str) -> type[BaseModel]:
    """The config of a recipe, whichever command runs it.

    Raises:
        ConfigError: there is no such recipe.
    """
    known = _CLUSTER | _ALONE
    if not isinstance(recipe, str) or recipe not in known:
        close = difflib.get_close_matches(str(recipe), known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{origin}: no recipe {recipe!r}; 'recipe' is one of: {', '.join(known)}{hint}")
    module, name = known[recipe]
    return getattr(importlib.import_module(module), name)


def every_config_class() -> dict[str, type[BaseModel]]:
    """The configs of all recipes, by name."""
    return {recipe: any_config_class(recipe, recipe) for recipe in _CLUSTER | _ALONE}


def config_class(recipe: object, origin: str, *, alone: bool) -> type[BaseModel]:
    """The config of a recipe that is trained.

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
    if recipe not in known:
        any_config_class(recipe, origin)
    module, name = known[str(recipe)]
    return getattr(importlib.import_module(module), name)


def trained_alone(recipe: str) -> Callable[..., dict[str, Any]] | None:
    """How a recipe is trained in this process; None where it takes a cluster."""
    if recipe not in _ALONE:
        return None
    return importlib.import_module(f"rl.recipes.{recipe}").train
