"""API records as ToolAlpaca keeps them: all that is known of one API, from its entry to its instances."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from executors.corpus.composition import compose
from executors.corpus.documentation import describe
from executors.corpus.entries import Entry
from executors.errors import DataError
from executors.openapi.operations import Operation
from executors.openapi.tools import read_openapi

Record = dict[str, Any]


def write_embedded(entry: Entry, seed: int = 0) -> Record:
    """The record of an API that is made up without a model; the same for the same entry and seed."""
    document = compose(entry, seed)
    operations = read_openapi(document).operations
    return api_record(entry, _introduction(entry, operations), _functions(operations), document)


def write_corpus(entries: Sequence[Entry], seed: int = 0) -> Iterator[Record]:
    """The records of some entries, one after the other, without a model."""
    for entry in entries:
        yield write_embedded(entry, seed)


def api_record(entry: Entry, introduction: str, functions: str, document: Mapping[str, Any]) -> Record:
    """A record with the keys of the published corpus, in their order.

    Args:
        entry: of the list.
        introduction: a paragraph on what the API is for.
        functions: the numbered list of its functions.
        document: its OpenAPI 3 document.
    """
    told = describe(document)
    return {
        "Name": entry.name,
        "Description": entry.description,
        "Link": entry.link,
        "Category": entry.category,
        "Introduction": introduction,
        "Functions": functions,
        "Documentation": json.dumps(document, ensure_ascii=False),
        "NLDocumentation": told.text,
        "Function_Description": dict(told.functions),
        "Function_Projection": {name: list(place) for name, place in told.projection.items()},
    }


def read_records(path: Path) -> list[Record]:
    """The API records of a file.

    Raises:
        DataError: the file cannot be read, or is no list of records with a Name and a Documentation.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(records, list):
        raise DataError(f"{path} is a list of API records, not {type(records).__name__}")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict) or not {"Name", "Documentation"} <= record.keys():
            raise DataError(f"{path}: record {number} has no Name or no Documentation; build it from its entry first")
    return records


def _introduction(entry: Entry, operations: Sequence[Operation]) -> str:
    about = entry.description.rstrip(". ") or f"a service for {entry.category.lower() or 'programs'}"
    does = " ".join(f"{number}) {_first(one)}" for number, one in enumerate(operations, start=1))
    category = entry.category or "Open Data"
    return f"The {entry.name} API is a service of the category {category}: {about}. Its users can do this: {does}"


def _functions(operations: Sequence[Operation]) -> str:
    return "\n\n".join(_function(number, one) for number, one in enumerate(operations, start=1))


def _function(number: int, operation: Operation) -> str:
    required = operation.parameters.get("required", ())
    inputs = {
        name: f"{'Required' if name in required else 'Optional'}. {_kind(schema)}. {schema.get('description', '')}"
        for name, schema in operation.parameters.get("properties", {}).items()
    }
    shown = (operation.response or {}).get("type", "object")
    return (
        f"{number}. Name: {operation.name}\n   Description: {_first(operation)}\n"
        f"   Input: {json.dumps(inputs, ensure_ascii=False)}\n   Output: A JSON {shown}."
    )


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "string")
    return str(kind if isinstance(kind, str) else kind[0]).capitalize()


def _first(operation: Operation) -> str:
    return operation.description.splitlines()[0] if operation.description else operation.name
