"""Settings that are checked at birth: no unknown key, and no yes or no for a number."""

import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """A frozen model that takes no unknown key, and no yes or no for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        for name, field in cls.model_fields.items():
            taken = members(field.annotation)
            if isinstance(content.get(name), bool) and bool not in taken and {int, float} & set(taken):
                raise ValueError(f"{name}: a number is wanted, got {content[name]}")
        return content


def members(annotation: Any) -> list[Any]:
    """What a field may hold, one by one: the members of a union, without what annotations add."""
    if typing.get_origin(annotation) is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in members(part)]
    return [annotation]
