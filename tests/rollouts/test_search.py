"""Search over attempts: expand, give up, go back, try another."""

import asyncio

import pytest

from executors.catalog import Catalog
from executors.errors import ConfigError
from executors.executor import Executor
from executors.tool import Tool, tool
from executors.types import ToolCall, ToolSpec
from rollouts.episode import play
from rollouts.formats.inline import InlineFormat
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, ScriptedPolicy, Source
from rollouts.search import Search, Searching, search, search_all, told_of
from rollouts.store import Log
from rollouts.types import Completion, Sampling, Task
from rollouts.worker import RolloutWorker, WorkerConfig


@tool
def look(place: str) -> str:
    """Look somewhere."""
    return "the key" if place == "drawer" else "nothing"


EXECUTOR = Executor(Catalog([look]))
TASK = Task(id="t", prompt="Where is the key?", answer="drawer", tools=("look",))


class Asked:
    """Says the next line of a script, and keeps what it was asked."""

    def __init__(self, replies):
        self.name, self.version, self.replies, self.asked, self.released = "asked", 0, list(replies), [], []

    async def complete(self, request):
        self.asked.append(request)
        said = self.replies.pop(0) if self.replies else "Answer: "
        if isinstance(said, Exception):
            raise said
        return Completion(text=said)

    def release(self, session):
        self.released.append(session)


def run(replies, executor=EXECUTOR, task=TASK, **options):
    policy = Asked(replies)
    found = asyncio.run(search(task, policy, executor, InlineFormat(), Searching(**options), id="s"))
    return found, policy


def lines(found):
    return [[node.turn.completion.text for node in way] for way in found.ways()]


def test_a_search_that_needs_no_second_way_is_the_attempt_that_play_makes():
    replies = ["look(drawer)->", "Answer: drawer"]
    found, policy = run(replies)
    source = Source(name="asked", policy="asked", sampling=Sampling())
    played = asyncio.run(play(TASK, Asked(replies), EXECUTOR, InlineFormat(), source=source, id="s"))
    same = found.episode()
    assert (same.turns[0].calls, same.answer, same.stop) == (played.turns[0].calls, "drawer", "answer")
    assert (found.stop, found.queries, policy.released) == ("answer", 2, [policy.asked[0].session])
    other = Asked(replies)
    asyncio.run(play(TASK, other, EXECUTOR, InlineFormat(), source=source, id="s"))
    assert [r.seed for r in other.asked] == [r.seed for r in policy.asked]
    assert [r.segments[0] for r in other.asked] == [r.segments[0] for r in policy.asked]


def test_after_giving_up_the_call_before_it_is_tried_anew_and_told():
    replies = ["look(shelf)->", "Answer: ", "look(drawer)->", "Answer: drawer"]
    found, policy = run(replies)
    assert lines(found) == [["look(shelf)->", "Answer: "], ["look(drawer)->", "Answer: drawer"]]
    assert found.stop == "answer" and found.episode().answer == "drawer"
    third = policy.asked[2]
    assert third.tried[0].call == ToolCall("look", {"place": "shelf"})
    assert third.segments[0].count("Tried from here before") == 1 and '"place": "shelf"' in third.segments[0]
    assert "Tried" not in "".join(str(part) for part in policy.asked[3].segments if isinstance(part, str))
    assert len({request.seed for request in policy.asked}) == 4


def test_back_one_asks_again_in_the_same_place_with_what_was_tried_before_the_observation():
    replies = ["look(shelf)->", "Answer: ", "look(drawer)->", "Answer: drawer"]
    found, policy = run(replies, back=1)
    assert lines(found) == [["look(shelf)->", "Answer: "], ["look(shelf)->", "look(drawer)->", "Answer: drawer"]]
    told = policy.asked[2].segments[-1]
    assert told.index("to give up") < told.index("nothing")
    assert found.children[0].turn.observation.content == "nothing"


def test_a_way_ends_at_the_limit_of_depth_and_its_last_node_is_asked_again():
    replies = ["look(a)->", "look(b)->", "look(c)->", "look(d)->", "look(e)->", "look(f)->"]
    found, _ = run(replies, depth=2)
    assert found.stop == "exhausted" and found.queries == 6
    assert lines(found) == [
        ["look(a)->", "look(b)->"],
        ["look(a)->", "look(c)->"],
        ["look(d)->", "look(e)->"],
        ["look(d)->", "look(f)->"],
    ]
    assert {way[-1].stop for way in found.ways()} == {"turn_limit"}
    assert found.episode().stop == "turn_limit" and found.episode().answer is None


def test_replies_are_a_budget_and_more_answers_may_be_wanted():
    found, _ = run(["look(a)->"] * 9, depth=9, queries=3)
    assert (found.stop, found.queries, found.episode().stop) == ("spent", 3, "turn_limit")
    found, _ = run(["Answer: 1", "Answer: 2"], answers=2, back=1)
    assert found.stop == "answer" and found.episode().answer == "2"


def test_chains_begin_anew_and_are_told_nothing():
    replies = ["look(a)->", "Answer: ", "look(a)->", "Answer: ", "Answer: drawer", "never asked"]
    found, policy = run(replies, method="chain", width=3)
    assert [len(way) for way in found.ways()] == [2, 2, 1]
    assert found.stop == "answer" and found.queries == 5 and found.searching.name == "CoT@3"
    assert not any(request.tried for request in policy.asked)
    assert all("Tried" not in request.segments[0] for request in policy.asked)


def test_what_cannot_be_read_ends_a_way_and_an_endpoint_that_is_away_the_search():
    found, _ = run(["look(a)->", PromptTooLongError("too long"), "Answer: drawer"])
    assert [way[-1].stop for way in found.ways()] == ["prompt_limit", "answer"]
    found, _ = run(["look(a)->", PolicyUnavailableError("away")])
    assert (found.stop, found.error) == ("failed", "away")
    episode = found.episode()
    assert (episode.stop, episode.error, len(episode.turns), episode.finished) == ("failed", "away", 1, False)
    found, _ = run([PromptTooLongError("too long")] * 2)
    assert (found.stop, found.episode().stop, found.episode().error) == ("exhausted", "prompt_limit", "too long")
    found, _ = run([PolicyUnavailableError("away")])
    assert found.ways() == [] and found.episode().turns == ()


class Counter:
    """A state that only its way knows."""

    count = 0

    def close(self):
        pass


class Counters:
    """Opens counters."""

    def open(self, scene):
        return Counter()


def step(state, by):
    state.count += by
    return str(state.count)


def test_on_going_back_a_state_is_what_the_way_made_it():
    parameters = {"type": "object", "properties": {"by": {"type": "integer"}}, "required": ["by"]}
    stepping = Tool(ToolSpec("step", "Step on.", parameters), step, state=Counters())
    task = Task(id="t", prompt="?", tools=("step",))
    replies = ["step(1)->", "step(10)->", "Answer: ", "step(100)->", "Answer: 101"]
    found, _ = run(replies, executor=Executor(Catalog([stepping])), task=task)
    first, second = found.ways()
    assert [node.turn.observation.content for node in first[:2]] == ["1", "11"]
    assert [node.turn.observation.content for node in second[:2]] == ["1", "101"]


def test_many_tasks_are_searched_in_order():
    policy = ScriptedPolicy("p", lambda task: [f"Answer: {task.id}"])
    tasks = [Task(id=str(number), prompt="?", tools=("look",)) for number in range(5)]
    found = asyncio.run(search_all(tasks, policy, EXECUTOR, InlineFormat(), Searching(), at_once=2))
    assert [one.episode().answer for one in found] == ["0", "1", "2", "3", "4"]
    assert found[0].id == "search/0" and len({one.seed for one in found}) == 5


def test_limits_that_nothing_keeps_are_refused():
    with pytest.raises(ConfigError, match="width"):
        Searching(width=0)


def test_a_call_that_could_not_be_read_is_told_as_one():
    found, _ = run(["look(a", "Answer: "], back=1, depth=2)
    turn = found.children[0].turn
    assert turn.calls and "could not be read" in told_of([turn])


def test_searches_are_kept_in_a_log_like_groups(tmp_path):
    found, _ = run(["look(shelf)->", "Answer: ", "look(drawer)->", "Answer: drawer"])
    log = Log(tmp_path / "searches.jsonl", Search)
    log.append([found])
    (read,) = log.read()
    assert (read.children, read.searching, read.stop) == (found.children, found.searching, "answer")
    assert read.episode() == found.episode()


def test_a_worker_searches_where_it_is_told_to():
    told = []
    replies = ["look(shelf)->", "Answer: ", "look(drawer)->", "Answer: drawer"]
    config = WorkerConfig(
        policies={"asked": lambda: Asked(replies)},
        executor=lambda: EXECUTOR,
        format=InlineFormat(),
        searching=Searching(),
        on_search=told.append,
    )
    source = Source(name="s", policy="asked")
    (group,) = asyncio.run(RolloutWorker(config).play([TASK], [source], "r"))
    (episode,) = group.episodes
    assert (episode.answer, episode.stop, len(episode.turns)) == ("drawer", "answer", 2)
    assert len(told[0].ways()) == 2 and told[0].id == episode.id
