"""How a simulated API answers a call: statuses, bodies that its document allows, and what becomes of its things."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from executors.http.client import Answer
from executors.openapi.operations import Operation
from executors.schemas.vocabulary import plain, words
from executors.simulation.bodies import Body
from executors.simulation.resources import Role, field_of, listed, read_roles
from executors.simulation.world import Thing, World, same

_DONE = {"create": "created", "update": "updated", "delete": "deleted", "act": "completed"}
_NESTED = {"data", "details", "info", "attributes", "properties", "fields", "body"}


class SimulatedApi:
    """Answers the calls of an API from its document alone."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = {operation.name: operation for operation in operations}
        self.roles = read_roles(operations)
        self.nouns = frozenset(role.noun for role in self.roles.values())
        self._validators = {one.name: Draft202012Validator(dict(one.parameters)) for one in operations}

    def answer(self, world: World, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Answer one call, and let it change the world.

        Args:
            world: the episode's.
            name: of the operation.
            arguments: by name, as the operation's schema wants them; what it refuses is answered with 400.
        """
        operation, role = self.operations[name], self.roles[name]
        if (refusal := refused(self._validators[name], arguments)) is not None:
            return refusal
        with world.lock:
            world.calls[name] += 1
            call = _Call(world, operation, role, arguments, self.nouns)
            return call.missing() or getattr(call, role.action)()


def answer_of(status: int, body: Any, media: str = "application/json") -> Answer:
    """An answer with a body of JSON, or of text in a media type of text; without one where the status allows none."""
    if isinstance(body, str) and body and media.startswith("text/") and status not in (204, 205):
        return Answer(status=status, text=body, media=media)
    text = "" if status in (204, 205) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Answer(status=status, text=text, media="application/json")


def refused(validator: Draft202012Validator, arguments: Mapping[str, Any]) -> Answer | None:
    """The refusal of arguments that break an operation's schema; None where they keep it.

    An empty text passes for no choice where the schema names the choices.
    """
    errors = [error for error in validator.iter_errors(dict(arguments)) if not _is_no_choice(error)]
    error = best_match(errors)
    return None if error is None else _refusal(400, _said(error))


def _is_no_choice(error: Any) -> bool:
    return error.validator == "enum" and error.instance == ""


def _refusal(status: int, message: str) -> Answer:
    return answer_of(status, {"error": {"code": status, "message": message}})


def _said(error: Any) -> str:
    """A schema error in the words of an API."""
    where = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "required":
        gone = [name for name in error.validator_value if name not in error.instance]
        inside = f" in {where}" if where else ""
        return f"Missing required parameter{'s' if len(gone) > 1 else ''}{inside}: {', '.join(gone)}"
    if error.validator == "enum":
        return f"Invalid value for {where}: must be one of {', '.join(map(str, error.validator_value))}"
    return f"Invalid value for {where or 'the request'}: {' '.join(error.message.split())[:200]}"


class _Call:
    """One call under way."""

    def __init__(
        self, world: World, operation: Operation, role: Role, arguments: Mapping[str, Any], nouns: frozenset[str]
    ) -> None:
        self.world, self.operation, self.role, self.arguments = world, operation, role, arguments
        self.scope = role.scope
        for name, value in arguments.items():
            self.scope = self.scope.replace(f"{{{name}}}", same(value))
        self.body = Body(world, operation, role, arguments, nouns, self.scope)

    def missing(self) -> Answer | None:
        """The refusal of a call that names something that does not exist."""
        for noun, argument in self.role.parents:
            value = self.arguments.get(argument)
            if isinstance(value, str | int) and self.world.find(noun, field_of(noun, argument), value) is None:
                return _refusal(404, f"No {noun} with {argument} {value} was found.")
        return None

    def list(self) -> Answer:
        return self._answer(self.body.listing())

    def read(self) -> Answer:
        """One thing by its key or by what it is like; or a fact that follows from the arguments."""
        if self.role.key in self.arguments:
            thing = self._keyed()
            return self._unknown() if thing is None else self._shown(thing)
        if listed(self.operation.response) is not None:
            return self._answer(self.body.listing())
        thing = self._sought()
        return self._unknown() if thing is None else self._shown(thing)

    def create(self) -> Answer:
        """Something new; or existing things put into a collection."""
        if self._members():
            return self._shown(self._result())
        noun, fields = self.role.noun, self._fields()
        key = same(fields["id"]) if isinstance(fields.get("id"), str | int) else ""
        fields.pop("id", None)
        if key and self.world.strict and self.world.find(noun, "id", key) is not None:
            return _refusal(409, f"The {noun} {key} exists already.")
        names = ("new", self.world.calls[self.operation.name], self.operation.name)
        thing = self.world.add(noun, *names, key=key, fields=fields, tag=self.scope, created=True)
        return self._shown(thing)

    def update(self) -> Answer:
        """A thing with some fields set anew; without a key, the one thing of its kind."""
        if self._members():
            return self._shown(self._result())
        if self.role.key in self.arguments:
            thing = self._keyed()
            if thing is None:
                return self._unknown()
        else:
            thing = self._sole(self.role.noun, self.scope)
        thing.fields.update({name: value for name, value in self._fields().items() if name != "id"})
        return self._shown(thing)

    def delete(self) -> Answer:
        """A thing that is gone from now on; or things taken out of a collection."""
        if self._members():
            return self._shown(self._result())
        if self.role.key not in self.arguments:
            return self._shown(self._result())
        thing = self._keyed()
        if thing is None:
            return self._unknown()
        thing.alive = False
        return self._shown(thing)

    def act(self) -> Answer:
        """What changes nothing that is known; the thing that it is done to has to exist."""
        if self.role.key in self.arguments and self._keyed() is None:
            return self._unknown()
        return self._shown(self._result())

    def _keyed(self) -> Thing | None:
        """The thing that the call names. One with a number is the thing of that number in its place."""
        value, noun = self.arguments[self.role.key], self.role.noun
        field = field_of(noun, self.role.key)
        if field == "id" or not self.role.parents:
            return self.world.find(noun, field, value)
        place = "/".join(same(self.arguments.get(argument)) for _, argument in self.role.parents)
        thing = self.world.find(noun, "id", f"{place}/{same(value)}")
        if thing is not None:
            thing.fields.setdefault(field, value)
        return thing

    def _sought(self) -> Thing | None:
        """The thing that a call without a key asks for; None where there is none like it."""
        role, world = self.role, self.world
        if role.random:
            world.fill(role.noun, self.scope, 5)
            things = [*world.things(role.noun, self.scope)]
            if (conditions := self.body.conditions(role.noun)) and not role.scope:
                things = self.body.found(role.noun, conditions)
            return things[(world.calls[self.operation.name] - 1) % len(things)] if things else None
        conditions = [] if role.scope else self.body.conditions(role.noun)
        if conditions:
            if found := self.body.found(role.noun, conditions, least=1):
                return found[0]
            return None if role.known else self._result()
        if role.known and not self.arguments and not role.scope:
            world.fill(role.noun, "", 5)
            return next(world.things(role.noun), None)
        return self._result()

    def _result(self) -> Thing:
        """What the operation comes to for these arguments, as a thing that no other operation knows of."""
        role = self.role
        known = role.known and role.action == "read" and not role.parents
        tag = f"{self.operation.name}?{same(self.arguments)}"
        thing = self._sole(role.noun if known else f"{role.noun} of {self.operation.name}", tag)
        for name, value in self._fields().items():
            thing.fields.setdefault(name, value)
        if role.parents and "id" not in thing.fields:
            thing.fields["id"] = self.arguments.get(role.parents[-1][1])
        return thing

    def _sole(self, noun: str, tag: str) -> Thing:
        """The one thing with a tag."""
        found = next((thing for thing in self.world.things(noun, tag or "the one")), None)
        return found or self.world.add(noun, "sole", tag, tag=tag or "the one")

    def _members(self) -> bool:
        """Put the things that the call names into its collection, or take them out; False where it names none."""
        named = [_named(item) for item in _listed(self.arguments.get(self.role.members))]
        if body := self.arguments.get("body"):
            named += [_named(item) for value in _values(body) for item in _listed(value)]
        for value in filter(None, named):
            thing = self.world.find(self.role.noun, "id", value)
            if thing is None:
                continue
            thing.tags -= {self.scope, f"-{self.scope}"}
            thing.tags.add(f"-{self.scope}" if self.role.action == "delete" else self.scope)
        return bool(self.role.members) and any(named)

    def _fields(self) -> dict[str, Any]:
        """The arguments as fields of the thing; what stands in a ``body`` or in ``petData`` are fields too."""
        fields: dict[str, Any] = {}
        for name, value in self.arguments.items():
            if name == self.role.key:
                continue
            if isinstance(value, Mapping) and (words(name) or [""])[-1] in _NESTED:
                fields |= {field_of(self.role.noun, inner): item for inner, item in value.items()}
            if name != "body":
                fields[field_of(self.role.noun, name)] = value
        return fields

    def _shown(self, thing: Thing) -> Answer:
        verb = _DONE.get(self.role.action, "")
        done = "Request" if self.role.action == "act" else self.role.noun.capitalize()
        return self._answer(self.body.of(thing, f"{done} {verb} successfully." if verb else ""))

    def _answer(self, body: Any) -> Answer:
        status = self.operation.status if 200 <= self.operation.status < 300 else 200
        return answer_of(status, body, self.operation.answers_in)

    def _unknown(self) -> Answer:
        named = (
            f" with {self.role.key} {self.arguments[self.role.key]}"
            if self.role.key in self.arguments
            else " like that"
        )
        return _refusal(404, f"No {self.role.noun}{named} was found.")


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.split(",")
    return value if isinstance(value, list) else []


def _values(body: Any) -> list[Any]:
    return list(body.values()) if isinstance(body, Mapping) else [body]


def _named(item: Any) -> str:
    """The key in an id, in a URI such as ``spotify:track:4u``, or in an object that has one of them."""
    if isinstance(item, Mapping):
        item = next((item[name] for name in item if plain(name) in ("id", "uri")), "")
    return str(item).strip().rpartition(":")[2] if isinstance(item, str | int) else ""
