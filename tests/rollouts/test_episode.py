import asyncio

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tool import tool
from executors.tools.calculator import calculator
from executors.types import MalformedCall, ToolCall
from rollouts.episode import play
from rollouts.formats.inline import AnnotatedFormat, InlineFormat
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, Request, ScriptedPolicy, Source
from rollouts.types import Completion, Task

TASK = Task(id="t", prompt="What is 6 times 7?", answer="42", tools=("calculator",))


def attempt(replies, executor, **options):
    policy = ScriptedPolicy("scripted", lambda task: replies)
    return asyncio.run(play(TASK, policy, executor, InlineFormat(), **options))


def test_a_direct_answer_is_one_turn(executor):
    episode = attempt(["Answer: 42"], executor)
    assert (episode.answer, episode.stop, len(episode.turns), episode.called) == ("42", "answer", 1, False)


def test_a_call_is_run_and_its_observation_read(executor):
    episode = attempt(["calculator(6*7)->", "Answer: 42"], executor)
    assert episode.turns[0].call == ToolCall("calculator", {"expression": "6*7"})
    assert episode.turns[0].observation.content == "42"
    assert (episode.answer, episode.stop) == ("42", "answer")


def test_the_three_ways_of_going_wrong_stay_apart(executor):
    none = attempt(["forty-two"], executor)
    malformed = attempt(["calculator(6*7", "Answer: 42"], executor)
    failed = attempt(["calculator(6/0)->", "Answer: 42"], executor)
    assert (none.called, none.malformed) == (False, False)
    assert (malformed.called, malformed.malformed) == (True, True)
    assert malformed.observations[0].status == "bad_call"
    assert (failed.called, failed.malformed) == (True, False)
    assert failed.observations[0].status == "tool_error"


def test_an_unknown_tool_is_a_well_formed_call_that_failed(executor):
    episode = attempt(["oracle(6*7)->", "Answer: 42"], executor)
    assert isinstance(episode.turns[0].call, ToolCall)
    assert "closest: calculator" in episode.observations[0].content


def test_calls_end_at_the_turn_limit(executor):
    episode = attempt(["calculator(1)->"] * 9, executor, max_turns=3)
    assert (episode.stop, len(episode.turns), episode.answer) == ("turn_limit", 3, None)


def test_a_policy_that_cannot_be_reached_makes_a_failed_episode_not_a_crash(executor):
    def away(task):
        raise PolicyUnavailableError("the endpoint is down")

    policy = ScriptedPolicy("remote", away)
    episode = asyncio.run(play(TASK, policy, executor, InlineFormat()))
    assert (episode.stop, episode.error) == ("failed", "the endpoint is down")


def test_an_episode_that_fills_the_context_ends_at_the_prompt_limit_with_what_it_did(executor):
    class Small(ScriptedPolicy):
        async def complete(self, request):
            if request.turns:
                raise PromptTooLongError("it takes 50 tokens and small reads 40 at most")
            return await super().complete(request)

    policy = Small("small", lambda task: ["calculator(6*7)->"])
    episode = asyncio.run(play(TASK, policy, executor, InlineFormat()))
    assert (episode.stop, episode.answer, len(episode.turns)) == ("prompt_limit", None, 1)
    assert (episode.finished, episode.error) == (True, "it takes 50 tokens and small reads 40 at most")


def test_every_reply_extends_what_was_read_before(executor):
    seen: list[Request] = []

    class Watcher(ScriptedPolicy):
        async def complete(self, request):
            seen.append(request)
            return await super().complete(request)

    policy = Watcher("w", lambda task: ["calculator(6*7)->", "Answer: 42"])
    asyncio.run(play(TASK, policy, executor, InlineFormat()))
    first, second = seen
    assert second.segments[: len(first.segments)] == first.segments
    assert isinstance(second.segments[1], Completion)
    assert second.segments[2] == "42\n"
    assert first.session == second.session
    assert first.seed != second.seed


def test_a_forced_reply_asks_for_its_prefix_in_the_first_turn_only(executor):
    prefixes = []

    class Watcher(ScriptedPolicy):
        async def complete(self, request):
            prefixes.append(request.prefix)
            return await super().complete(request)

    for force in ("call", "direct"):
        policy = Watcher("w", lambda task: ["calculator(6*7)->", "Answer: 42"])
        source = Source(name="s", policy="w", force=force)
        asyncio.run(play(TASK, policy, executor, InlineFormat(), source=source))
    assert prefixes == ["calculator(", "", "Answer: ", ""]


def test_a_tool_of_several_parameters_is_written_and_read_back():
    @tool
    def convert(amount: float, unit: str) -> str:
        """Convert."""
        return f"{amount} {unit}"

    specs = Catalog([convert]).specs()
    call = ToolCall("convert", {"amount": 2.5, "unit": "it's"})
    text = InlineFormat().write_call(call, specs)

    def read(text):
        (parsed,) = InlineFormat().parse(text, specs)
        return parsed

    assert InlineFormat().parse(text, specs) == (call,)
    assert read("convert(2.5, unit='m')->") == ToolCall("convert", {"amount": 2.5, "unit": "m"})
    assert isinstance(read("convert(2.5, unit=)->"), MalformedCall)
    assert isinstance(read("convert(1, 2, 3)->"), MalformedCall)
    for inside in ("{[1]: 2}, 'm'", "{1, 2}, 'm'", "b'1', 'm'", "1j, 'm'", "1e999, 'm'", r"1, '\ud800'"):
        assert isinstance(read(f"convert({inside})->"), MalformedCall)
    assert read("convert((1, 2), {3: 4})->") == ToolCall("convert", {"amount": [1, 2], "unit": {"3": 4}})


def test_a_literal_of_another_kind_is_the_executors_to_refuse():
    @tool
    def double(amount: float) -> float:
        """Double."""
        return 2 * amount

    executor = Executor(Catalog([double]))
    for inside in ("{[1]: 2}", "1e999", "{1, 2}"):
        (call,) = InlineFormat().parse(f"double({inside})->", executor.catalog.specs())
        assert call == ToolCall("double", {"amount": inside})
        assert executor.run(call).status == "bad_call"


def test_a_tool_of_one_parameter_takes_the_text_between_the_brackets(executor):
    specs = executor.catalog.specs()
    for text, expression in (("calculator((12/60)*50)->", "(12/60)*50"), ("I calculate: calculator(1)->", "1")):
        assert InlineFormat().parse(text, specs) == (ToolCall("calculator", {"expression": expression}),)


def test_an_annotated_solution_is_run_again_call_by_call():
    solution = "She sells 16 - 3 = <<16-3=999>>13 eggs.\nThat is 13 * 2 = <<13*2=26>>26.\nA: 26"
    replies = AnnotatedFormat.replies(solution)
    assert replies == ("She sells 16 - 3 = <<16-3>>", " eggs.\nThat is 13 * 2 = <<13*2>>", ".\nA: 26")
    policy = ScriptedPolicy("recorded", lambda task: replies)
    executor = Executor(Catalog([calculator]))
    episode = asyncio.run(play(TASK, policy, executor, AnnotatedFormat()))
    assert [observation.content for observation in episode.observations] == ["13", "26"]
    assert (episode.answer, episode.stop) == ("26", "answer")


def test_an_annotation_that_is_never_closed_is_malformed():
    replies = AnnotatedFormat.replies("So <<16-3 is 13.\nA: 13")
    policy = ScriptedPolicy("recorded", lambda task: replies)
    episode = asyncio.run(play(TASK, policy, Executor(Catalog([calculator])), AnnotatedFormat()))
    assert episode.malformed


def test_a_template_says_where_the_question_stands_and_the_rest_is_as_it_was():
    task = Task(id="t", prompt="Is {instruction} a word?", tools=("calculator",))
    tuned = InlineFormat("Answer.", "### Instruction:\n{instruction}\n\n### Input:\n{question}\n\n### Response:\n")
    asked = "### Instruction:\nAnswer.\n\n### Input:\nIs {instruction} a word?\n\n### Response:\n"
    assert tuned.opening(task, ()) == asked
    assert InlineFormat("Answer.").opening(task, ()) == "Answer.\nIs {instruction} a word?\n"
    assert InlineFormat().opening(task, ()) == "Is {instruction} a word?\n"
    assert tuned.write_answer("3") == InlineFormat().write_answer("3")
