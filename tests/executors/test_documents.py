"""Texts that are documents, and texts that are not."""

import pytest

from executors.errors import DataError
from executors.openapi.documents import MAX_BYTES, load_document
from tests.executors.effort import effort


def test_json_and_yaml_give_the_same():
    assert (
        load_document('{"a": [1, true, null]}') == load_document("a:\n- 1\n- true\n- null\n") == {"a": [1, True, None]}
    )


def test_yaml_is_read_as_json_would_say_it():
    text = "on: {200: yes, no: 2020-01-02, x: !!set {a}}\nb: &b {c: 1}\nd: {<<: *b, e: *b}"
    assert load_document(text) == {
        "on": {"200": "yes", "no": "2020-01-02", "x": ["a"]},
        "b": {"c": 1},
        "d": {"c": 1, "e": {"c": 1}},
    }


def test_a_file_is_read_with_its_byte_order_mark(tmp_path):
    path = tmp_path / "api.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert load_document(path) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("<!doctype html><html></html>", "HTML"),
        ("[1, 2]", "a list of 2"),
        ("petstore.yaml", "give a Path"),
        ("42", "a single value, '42'"),
        ('{"a": ', "no JSON"),
        ('{"a": NaN}', "no JSON number"),
        ("a: .inf", "no JSON number"),
        ("a: [1", "no YAML"),
        ("a: !!python/object/apply:os.system [id]", "no YAML"),
        ("\x00\x01", "no YAML"),
        ("[" * 100_000, "nested deeper"),
        ("a: " + "[" * 900, "nested deeper"),
        ("a: " + "{b: " * 900, "nested deeper"),
        ("".join("  " * depth + "- a:\n" for depth in range(300)), "nested deeper"),
        ("a: &a [*a]", "contains itself"),
        ('{"a": ' + "9" * 5_000 + "}", "no JSON"),
        ("a" * (MAX_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_document_is_named_for_what_it_is(text, told):
    with pytest.raises(DataError, match=told):
        load_document(text)


def test_aliases_that_multiply_are_stopped():
    lists = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    with pytest.raises(DataError, match="expands to more than"):
        load_document(f"l0: &l0 [lol]\n{lists}")


def test_merge_keys_that_multiply_are_stopped():
    maps = "\n".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, 40))
    with effort(seconds=5), pytest.raises(DataError, match="merge keys"):
        load_document(f"m0: &m0 {{a: 1}}\n{maps}")


@pytest.mark.parametrize(("content", "told"), [(b"\xff\xfe\x00", "not text in UTF-8"), (None, "cannot be read")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, told):
    path = tmp_path / "api.yaml"
    if content:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: {told}"):
        load_document(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_document(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "api.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match="are more than"):
        load_document(path)
