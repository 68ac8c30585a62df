"""Episodes whose tools share an environment, and episodes that are played again from a recording."""

import asyncio

from executors.cassette import Cassette
from executors.catalog import Catalog
from executors.environment import environment_tools
from executors.executor import Executor
from executors.tool import Tool
from executors.tools.calculator import calculator
from executors.types import Scene, ToolSpec
from rollouts.episode import play
from rollouts.formats.inline import InlineFormat
from rollouts.policy import ScriptedPolicy
from rollouts.types import Task

TASK = Task(
    id="t", prompt="Where am I?", answer="secret", aliases=("hidden",), tools=("look",), labels={"level": "hard"}
)


class Hall:
    """An environment that remembers how often it was looked at."""

    eager = True

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.scenes: list[Scene] = []
        self.closed = 0
        self.looks = 0

    def open(self, scene: Scene):
        if self.broken:
            raise OSError("the hall is shut")
        self.scenes.append(scene)
        self.opening = "You stand in a hall."
        self.looks = 0
        return self

    def look(self, direction: str) -> str:
        self.looks += 1
        return f"{direction}: {self.looks}"

    def close(self) -> None:
        self.closed += 1


def make(hall: Hall, **options) -> Executor:
    schema = {"type": "object", "properties": {"direction": {"type": "string"}}, "required": ["direction"]}
    look = Tool(ToolSpec("look", "", schema), Hall.look, state=hall)
    return Executor(Catalog([look, calculator]), **options)


def attempt(executor, replies=("look(up)->", "look(down)->", "Answer: a hall"), task=TASK, **options):
    seen: list[str] = []

    class Reader(ScriptedPolicy):
        async def complete(self, request):
            seen.append(str(request.segments[0]))
            return await super().complete(request)

    policy = Reader("scripted", lambda task: list(replies))
    return asyncio.run(play(task, policy, executor, InlineFormat(), **options)), seen


def test_an_episode_has_an_environment_of_its_own_that_is_closed_at_its_end():
    hall = Hall()
    for _ in range(2):
        episode, _ = attempt(make(hall))
        assert [observation.content for observation in episode.observations] == ["up: 1", "down: 2"]
    assert (len(hall.scenes), hall.closed) == (2, 2)


def test_what_the_environment_says_stands_in_the_prompt():
    _, seen = attempt(make(Hall()))
    assert "Where am I?\nYou stand in a hall." in seen[0]


def test_tools_are_told_of_the_task_but_never_its_answer():
    hall = Hall()
    attempt(make(hall), seed=5)
    attempt(make(hall), seed=5)
    attempt(make(hall), id="round/t/0")
    first, again, named = hall.scenes
    assert first == again == Scene("t/scripted/5", 5, {"prompt": "Where am I?", "level": "hard"})
    assert named.episode == "round/t/0"


def test_an_environment_that_cannot_be_opened_makes_a_failed_episode():
    hall = Hall(broken=True)
    episode, seen = attempt(make(hall))
    assert (episode.stop, episode.turns, seen) == ("failed", (), [])
    assert episode.error == "the environment cannot be opened: OSError: the hall is shut"


def test_a_tool_that_the_task_does_not_name_cannot_be_called():
    episode, _ = attempt(make(Hall()), replies=("calculator(1)->", "Answer: 1"))
    assert episode.observations[0].status == "bad_call"
    assert episode.observations[0].content == "calculator cannot be called here; what may be: look"


def test_an_episode_played_again_from_its_recording_is_the_same_without_its_tools(tmp_path):
    path = tmp_path / "calls.jsonl"
    first, seen = attempt(make(Hall(), cassette=Cassette(path, "record")), seed=3)
    shut = Hall(broken=True)
    again, seen_again = attempt(make(shut, cassette=Cassette(path, "replay")), seed=3)
    assert seen_again == seen
    assert (again.answer, again.stop) == (first.answer, first.stop)
    assert [(o.content, o.status, o.seconds) for o in again.observations] == [
        (o.content, o.status, o.seconds) for o in first.observations
    ]
    assert all(observation.recorded for observation in again.observations)
    other, _ = attempt(make(shut, cassette=Cassette(path, "replay")), seed=4)
    assert {observation.status for observation in other.observations} == {"unavailable"}
    assert not other.finished


class Climb:
    """Says at the end how high it got; where the rope tore, nothing can be said."""

    def reset(self, prompt: str) -> str:
        self.height = 0
        return "You stand at the foot."

    def climb(self, steps: int) -> int:
        """Climb.

        Args:
            steps: how many.
        """
        self.height += steps
        return self.height

    def get_reward(self) -> float:
        if self.height > 9:
            raise OSError("the rope tore")
        return self.height / 10


def test_what_the_environment_says_an_episode_is_worth_stays_with_it():
    executor = Executor(Catalog([*environment_tools(Climb), calculator]))
    task = Task(id="c", prompt="Climb.", tools=("climb", "calculator"))

    def climbed(*replies):
        policy = ScriptedPolicy("scripted", lambda _: list(replies))
        return asyncio.run(play(task, policy, executor, InlineFormat()))

    assert climbed("climb(2)->", "climb(3)->", "Answer: up").environment_reward == 0.5
    assert climbed("Answer: down").environment_reward == 0.0
    torn = climbed("climb(12)->", "Answer: up")
    assert (torn.stop, torn.environment_reward) == ("failed", None)
    assert "the rope tore" in torn.error


def test_where_no_environment_judges_none_is_asked():
    assert attempt(make(Hall()))[0].environment_reward is None
    assert not make(Hall()).judged
