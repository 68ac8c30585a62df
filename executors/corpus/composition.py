"""An OpenAPI document for an entry, composed without a model: things and services that fit what the entry says.

What an API is about follows from its category and its description. How it is written (names, paths, envelopes, which
operations it has) is drawn anew for each, so that no two of a category look the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from executors.corpus.entries import Entry
from executors.corpus.kinds import Field, Kind, all_kinds, kinds_of
from executors.schemas.vocabulary import Draw, singular, words

_UNSEARCHED = {"text", "sentence", "quote", "definition", "question", "code", "hash", "url", "message", "expression"}
_EXTRA = ("create", "update", "delete", "random", "second", "service", "nested", "second details")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one API is written."""

    prefix: str
    """Of every path."""
    search: str
    """The verb for finding things."""
    read: str
    create: str
    snake: bool
    """Whether arguments and fields are written with underscores."""
    envelope: str
    """The field that holds a list; empty where the list is the whole answer."""
    own_id: bool
    """Whether a thing's key is called ``id`` in answers, or after the thing."""
    id_type: str
    limit: bool
    """Whether searches can be limited."""

    @classmethod
    def of(cls, draw: Draw) -> "Manner":
        """The manner that a draw settles."""
        return cls(
            prefix=draw.at("prefix").pick(["", "", "/v1", "/api", "/v2"]),
            search=draw.at("search").pick(["search", "find", "list", "search"]),
            read=draw.at("read").pick(["get", "get", "fetch", "show"]),
            create=draw.at("create").pick(["create", "add", "submit"]),
            snake=draw.at("case").share() < 0.3,
            envelope=draw.at("envelope").pick(["", "", "results", "data", "items"]),
            own_id=draw.at("id").share() < 0.5,
            id_type=draw.at("type").pick(["string", "integer"]),
            limit=draw.at("limit").share() < 0.6,
        )

    def name(self, *parts: str) -> str:
        """Words as the name of an argument or a field."""
        flat = [word for part in parts for word in part.replace("_", " ").split()]
        return "_".join(flat) if self.snake else _camel(flat)


def compose(entry: Entry, seed: int = 0) -> dict[str, Any]:
    """A valid OpenAPI 3.0 document of three to seven operations; the same for the same entry and seed."""
    draw = Draw.of("corpus", seed, entry.name, entry.category, entry.description)
    return _Composer(entry, draw).document()


def subjects(entry: Entry, draw: Draw) -> tuple[Kind, Kind, Kind | None]:
    """What an API is about: a thing, another one, and a service where there is one that fits."""
    said = {singular(word) for word in words(f"{entry.name} {entry.description}")}
    own = kinds_of(entry.category)

    def fit(kind: Kind) -> float:
        named = len(said & set(kind.noun.split())) + 0.6 * len(said & {field.name for field in kind.fields})
        return named + 1.4 * (kind in own) + draw.at("fit", kind.noun).share()

    ranked = sorted(all_kinds(), key=fit, reverse=True)
    things = [kind for kind in ranked if not kind.is_service]
    services = [kind for kind in ranked if kind.is_service and fit(kind) > 1.4]
    return things[0], things[1], services[0] if services else None


class _Composer:
    """Composes one document."""

    def __init__(self, entry: Entry, draw: Draw) -> None:
        self.entry, self.draw, self.manner = entry, draw, Manner.of(draw)
        self.paths: dict[str, dict[str, Any]] = {}
        self.named: set[str] = set()

    def document(self) -> dict[str, Any]:
        thing, second, service = subjects(self.entry, self.draw)
        self.find(thing)
        self.details(thing)
        extras = sorted(_EXTRA, key=lambda name: self.draw.at("extra", name).key)
        for name in extras[: 1 + self.draw.at("extras").below(5)]:
            match name:
                case "second":
                    self.find(second)
                case "second details":
                    self.find(second)
                    self.details(second)
                case "nested":
                    self.nested(thing, second)
                case "service":
                    self.serve(service or second)
                case _:
                    getattr(self, name)(thing)
        return {
            "openapi": "3.0.0",
            "info": {"title": self.entry.name, "version": "1.0.0", "description": self.entry.description},
            "servers": [{"url": _server(self.entry)}],
            "paths": self.paths,
        }

    def find(self, kind: Kind) -> None:
        parameters = [
            self.query(field, f"Only {_plural(kind.noun)} of this {_said(field)}") for field in self.asked(kind)
        ]
        if parameters and self.draw.at("must", kind.noun).share() < 0.4:
            parameters[0]["required"] = True
        if self.manner.limit:
            limit = {"type": "integer", "minimum": 1, "maximum": 50}
            parameters.append(self.parameter("limit", limit, f"How many {_plural(kind.noun)} are returned at most"))
        name = f"{self.manner.search} {_plural(kind.noun)}"
        self.add(
            self.collection(kind),
            "get",
            name,
            f"Find {_plural(kind.noun)} by {self.by(kind)}.",
            parameters,
            self.listed(kind),
        )

    def details(self, kind: Kind) -> None:
        name = f"{self.manner.read} {kind.noun}{self.draw.at('details').pick(['', ' details', ' by id'])}"
        told = f"Retrieve all that is known about one {kind.noun}."
        self.add(self.one(kind), "get", name, told, [self.key(kind)], self.thing(kind))

    def random(self, kind: Kind) -> None:
        told = f"Retrieve {_a(kind.noun)} chosen at random."
        self.add(
            f"{self.collection(kind)}/random",
            "get",
            f"{self.manner.read} random {kind.noun}",
            told,
            [],
            self.thing(kind),
        )

    def create(self, kind: Kind) -> None:
        body = self.body(kind, required=2)
        told = f"{self.manner.create.capitalize()} {_a(kind.noun)}."
        self.add(self.collection(kind), "post", f"{self.manner.create} {kind.noun}", told, [], self.thing(kind), body)

    def update(self, kind: Kind) -> None:
        told = f"Change fields of {_a(kind.noun)} that exists."
        body = self.body(kind, required=0)
        method = self.draw.at("method").pick(["put", "patch"])
        self.add(self.one(kind), method, f"update {kind.noun}", told, [self.key(kind)], self.thing(kind), body)

    def delete(self, kind: Kind) -> None:
        gone = _object({"message": {"type": "string", "description": "What was done"}})
        told = f"Remove {_a(kind.noun)}."
        self.add(self.one(kind), "delete", f"delete {kind.noun}", told, [self.key(kind)], gone)

    def nested(self, kind: Kind, inner: Kind) -> None:
        """Things that belong to one thing."""
        path = f"{self.one(kind)}/{_plural(inner.noun).replace(' ', '-')}"
        told = f"List the {_plural(inner.noun)} that belong to one {kind.noun}."
        self.add(
            path,
            "get",
            f"{self.manner.read} {kind.noun} {_plural(inner.noun)}",
            told,
            [self.key(kind)],
            self.listed(inner),
        )

    def serve(self, kind: Kind) -> None:
        """A service; of a thing, a count of things like it."""
        if not kind.is_service:
            counted = _object({"count": {"type": "integer", "description": f"How many {_plural(kind.noun)} there are"}})
            parameters = [
                self.query(field, f"Only {_plural(kind.noun)} of this {_said(field)}") for field in self.asked(kind)[:1]
            ]
            told = f"Count the {_plural(kind.noun)}."
            self.add(f"{self.collection(kind)}/count", "get", f"count {_plural(kind.noun)}", told, parameters, counted)
            return
        verb, _, rest = kind.noun.partition(" ")
        path = (
            f"{self.manner.prefix}/{verb}"
            if self.draw.at("short").share() < 0.5
            else f"{self.manner.prefix}/{rest.replace(' ', '-')}/{verb}"
        )
        parameters = [self.query(field, f"The {_said(field)} to {verb}") for field in kind.fields]
        for parameter in parameters:
            parameter["required"] = True
        answer = _object({self.manner.name(field.name): self.schema(field, kind) for field in kind.gives})
        self.add(
            path, "get", kind.noun, f"{verb.capitalize()} {_a(rest)}, and say what comes of it.", parameters, answer
        )

    def add(
        self,
        path: str,
        method: str,
        name: str,
        description: str,
        parameters: Sequence[Mapping[str, Any]],
        answer: Mapping[str, Any],
        body: Mapping[str, Any] | None = None,
    ) -> None:
        """An operation, unless its place or its name is taken."""
        name = _camel(name.replace("-", " ").split())
        if name in self.named or method in self.paths.get(path, {}):
            return
        self.named.add(name)
        told = self.draw.at("answer", name).pick(
            ["Successful response.", "What was asked for.", "The request succeeded."]
        )
        operation: dict[str, Any] = {"operationId": name, "description": description}
        if parameters:
            operation["parameters"] = list(parameters)
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        status = "201" if method == "post" and self.draw.at("created").share() < 0.5 else "200"
        operation["responses"] = {status: {"description": told, "content": {"application/json": {"schema": answer}}}}
        self.paths.setdefault(path, {})[method] = operation

    def collection(self, kind: Kind) -> str:
        return f"{self.manner.prefix}/{_plural(kind.noun).replace(' ', '-')}"

    def one(self, kind: Kind) -> str:
        return f"{self.collection(kind)}/{{{self.key_name(kind)}}}"

    def key_name(self, kind: Kind) -> str:
        return self.manner.name(kind.noun, "id")

    def key(self, kind: Kind) -> dict[str, Any]:
        schema = {"type": self.manner.id_type}
        told = f"The identifier of the {kind.noun}."
        return {"name": self.key_name(kind), "in": "path", "required": True, "description": told, "schema": schema}

    def query(self, field: Field, description: str) -> dict[str, Any]:
        return self.parameter(self.manner.name(field.name), _typed(field), description)

    def parameter(self, name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
        return {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"{description}.",
            "schema": dict(schema),
        }

    def asked(self, kind: Kind) -> list[Field]:
        """The fields that a search may name: two or three."""
        fields = [field for field in kind.fields if field.type in ("string", "date") and field.name not in _UNSEARCHED]
        drawn = sorted(fields, key=lambda field: self.draw.at("asked", kind.noun, field.name).key)
        kept = drawn[: 2 + self.draw.at("asked", kind.noun).below(2)]
        return [field for field in fields if field in kept]

    def by(self, kind: Kind) -> str:
        named = [_said(field) for field in self.asked(kind)]
        return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named) or "what they are like"

    def schema(self, field: Field, kind: Kind) -> dict[str, Any]:
        told = (
            f"Whether the {kind.noun} is {_said(field)}"
            if field.type == "boolean"
            else f"The {_said(field)} of the {kind.noun}"
        )
        return {**_typed(field), "description": told}

    def thing(self, kind: Kind) -> dict[str, Any]:
        key = "id" if self.manner.own_id else self.key_name(kind)
        identifier = {"type": self.manner.id_type, "description": f"The identifier of the {kind.noun}"}
        return _object({key: identifier} | {self.manner.name(one.name): self.schema(one, kind) for one in kind.fields})

    def listed(self, kind: Kind) -> dict[str, Any]:
        things = {"type": "array", "items": self.thing(kind)}
        if not self.manner.envelope:
            return things
        return _object(
            {self.manner.envelope: things, "total": {"type": "integer", "description": "How many there are"}}
        )

    def body(self, kind: Kind, required: int) -> dict[str, Any]:
        body = _object({self.manner.name(field.name): self.schema(field, kind) for field in kind.fields})
        names = [self.manner.name(field.name) for field in kind.fields[:required]]
        return {**body, "required": names} if names else body


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties)}


def _typed(field: Field) -> dict[str, Any]:
    if field.type == "date":
        return {"type": "string", "format": "date"}
    return {"type": field.type, "enum": list(field.choices)} if field.choices else {"type": field.type}


def _said(field: Field) -> str:
    said = field.name.replace("_", " ")
    return f"{said} date" if field.type == "date" and said not in ("date", "start", "end") else said


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun if noun.endswith("series") else f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"


def _camel(parts: Sequence[str]) -> str:
    return parts[0] + "".join(part[0].upper() + part[1:] for part in parts[1:])


def _server(entry: Entry) -> str:
    """The entry's own address where it is one; else one that leads nowhere."""
    link = entry.link
    if link.startswith(("https://", "http://")) and " " not in link:
        return link.split("#")[0].split("?")[0].rstrip("/")
    return f"https://{'-'.join(words(entry.name)) or 'api'}.example.com"
