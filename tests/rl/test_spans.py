import pytest

from executors.errors import DataError
from rl.data.spans import MASKED, Marked, Span, in_order, last_place, targets, whole_places
from rl.models.tiny import build_tokenizer

TOOLS = {"add": 0, "remainder": 1}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["left unpacked will be 5572 mod 3241=2331.", "plus one is two"], vocab_size=300)


def test_the_first_token_of_a_result_becomes_the_tool_and_the_others_are_masked(tokenizer):
    text = "5572 mod 3241=2331."
    got = targets(Marked(text, (Span(14, 18, "remainder"),)), tokenizer, TOOLS)
    plain = tokenizer.encode(text)
    assert got.ids == (tokenizer.bos_token_id, *plain, tokenizer.eos_token_id)
    called = got.labels.index(len(tokenizer) + 1)
    assert tokenizer.decode(got.ids[: called + 1]).endswith("3241=")
    assert got.labels[called + 1 : called + 4] == (MASKED,) * 3
    assert got.labels[:called] == tuple(plain[:called])
    assert got.labels[called + 4 :] == (*plain[-1:], tokenizer.eos_token_id)


def test_several_results_and_only_tools(tokenizer):
    marked = Marked("1+1=2 and 2+1=3", (Span(4, 5, "add"), Span(14, 15, "add")))
    got = targets(marked, tokenizer, TOOLS, only_tools=True)
    assert [label for label in got.labels if label != MASKED] == [len(tokenizer)] * 2
    assert len(got.labels) == len(got.ids) - 1


def test_without_only_tools_nothing_else_changes(tokenizer):
    marked = Marked("no tool at all", ())
    got = targets(marked, tokenizer, TOOLS)
    assert got.labels == got.ids[1:]


def test_a_span_at_the_very_end_is_labelled(tokenizer):
    got = targets(Marked("3+4=17", (Span(4, 6, "add"),)), tokenizer, TOOLS)
    assert got.labels[-3:] == (len(tokenizer), MASKED, tokenizer.eos_token_id)


def test_an_unknown_tool_is_named(tokenizer):
    with pytest.raises(DataError, match="'gcd'"):
        targets(Marked("1", (Span(0, 1, "gcd"),)), tokenizer, TOOLS)


def test_a_number_is_not_found_within_a_longer_one():
    assert whole_places("17, 175, 1.17, 0.5 17", "17") == [0, 19]
    assert whole_places("2,331 and 331", "331") == [10]
    assert last_place("P17 P175", "P17") == 0


def test_what_stands_nowhere_by_itself_is_found_within_something():
    assert last_place("run 106.847.95 meters", "7.95") == 10
    assert last_place("The Nile", "the nile") == 0
    assert last_place("nothing", "x") is None
    assert last_place("nothing", "") is None


def test_pieces_in_order_have_to_follow_one_another():
    assert in_order("[A] <b>\n[A] <b>", ["[A]", "<b>", "[A]", "<b>"]) == [(0, 3), (4, 7), (8, 11), (12, 15)]
    with pytest.raises(DataError, match="does not come after"):
        in_order("[A] <b>", ["<b>", "[A]"])
