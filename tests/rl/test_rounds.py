from collections import Counter

import pytest

from rewards.types import Candidate, RankedGroup, Reward
from rl.data.rounds import EPISODES, GROUPS, LEDGER, Played, RoundGroup, RoundLog, Rounds
from rollouts.ledger import Attempt, Ledger
from rollouts.policy import Source
from rollouts.store import Log, LogTakenError
from rollouts.types import Episode, Group, Task
from rollouts.worker import TooManyFailuresError

TASKS = [Task(id=f"t{number}", prompt="?", answer="1") for number in range(5)]
SOURCES = [Source(name="own", policy="live", count=2), Source(name="far", policy="endpoint")]


class KilledError(Exception):
    pass


class Workers:
    """Plays sources apart, as two kinds of workers would, and is killed before its n-th piece."""

    def __init__(self, lives=10**6, failing=()):
        self.lives, self.failing = lives, failing
        self.played = Counter()

    def __call__(self, tasks, sources):
        for source in sources:
            for task in tasks:
                self.lives -= 1
                if self.lives < 0:
                    raise KilledError
                yield [Group(task, tuple(self.episode(task, source, number) for number in range(source.count)))]

    def episode(self, task, source, number):
        id = f"improve/0/{task.id}/{source.name}/{number}"
        self.played[id] += 1
        stop = "failed" if task.id in self.failing else "answer"
        return Episode(
            id=id, task_id=task.id, source=source.name, policy=source.policy, version=0, turns=(), answer="1", stop=stop
        )


def judge(group: Group) -> RankedGroup:
    kept = [episode for episode in group.episodes if episode.finished]
    return RankedGroup(group.task, tuple(Candidate(episode, Reward(1)) for episode in kept), 3 - len(kept))


def complete(rounds: Rounds, workers: Workers, judge=judge):
    try:
        return rounds.complete(0, 0, TASKS, SOURCES, workers, judge)
    finally:
        rounds.close()


def every_id() -> set[str]:
    numbers = [("own", 0), ("own", 1), ("far", 0)]
    return {f"improve/0/{task.id}/{source}/{number}" for task in TASKS for source, number in numbers}


def test_a_round_is_played_ranked_and_written_once(tmp_path):
    records = complete(Rounds(tmp_path), Workers())
    assert [record.group.task.id for record in records] == [task.id for task in TASKS]
    assert [c.episode.source for c in records[0].group.candidates] == ["own", "own", "far"]
    assert list(RoundLog(tmp_path).all()) == sorted(records, key=lambda record: record.group.task.id)
    assert Rounds(tmp_path).ledger.counts() == {"issued": 0, "executed": 0, "scored": 15, "trained": 0}


@pytest.mark.parametrize("lives", range(11))
def test_whenever_a_round_is_killed_no_attempt_is_lost_or_made_twice(tmp_path, lives):
    first, second = Workers(lives), Workers()
    if lives < 10:
        with pytest.raises(KilledError):
            complete(Rounds(tmp_path), first)
    else:
        complete(Rounds(tmp_path), first)
    records = complete(Rounds(tmp_path), second)
    assert first.played + second.played == Counter(every_id())
    logged = Counter(e.id for played in Log(tmp_path / EPISODES, Played).read() for e in played.group.episodes)
    assert logged == Counter(every_id())
    assert len(records) == 5
    assert Rounds(tmp_path).ledger.counts()["scored"] == 15


def test_a_kill_between_a_log_and_the_ledger_is_mended(tmp_path, monkeypatch):
    rounds = Rounds(tmp_path)

    def killed(ids, to):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(rounds.ledger, "advance", killed)
        with pytest.raises(KilledError):
            complete(rounds, Workers())
    again = Rounds(tmp_path)
    assert again.ledger.counts() == {"issued": 13, "executed": 2, "scored": 0, "trained": 0}
    second = Workers()
    complete(again, second)
    assert not second.played.keys() & {"improve/0/t0/own/0", "improve/0/t0/own/1"}


def test_a_kill_while_ranking_ranks_again_and_plays_nothing_again(tmp_path):
    def killed(group):
        raise KilledError

    workers = Workers()
    with pytest.raises(KilledError):
        complete(Rounds(tmp_path), workers, killed)
    complete(Rounds(tmp_path), workers)
    assert set(workers.played.values()) == {1}


def test_a_damaged_line_is_told_and_only_its_attempts_are_made_again(tmp_path):
    complete(Rounds(tmp_path), Workers())
    for path in (tmp_path / EPISODES, tmp_path / GROUPS):
        path.write_bytes(path.read_bytes().replace(b'"id":"t2"', b'"id":"tX"'))
    rounds, workers = Rounds(tmp_path), Workers()
    assert len(rounds.damage) == 3
    complete(rounds, workers)
    assert workers.played == Counter({f"improve/0/t2/{each}": 1 for each in ("own/0", "own/1", "far/0")})


def test_failures_that_stop_the_run_are_tried_again_when_it_is_resumed(tmp_path):
    with pytest.raises(TooManyFailuresError):
        complete(Rounds(tmp_path), Workers(failing={"t0", "t1", "t2"}))
    workers = Workers()
    complete(Rounds(tmp_path), workers)
    assert {id.split("/")[2] for id in workers.played} == {"t0", "t1", "t2"}


def test_a_few_failures_are_kept_counted_and_not_ranked(tmp_path):
    records = complete(Rounds(tmp_path), Workers(failing={"t3"}))
    assert [record.group.dropped for record in records] == [0, 0, 0, 3, 0]


def test_attempts_are_learned_from_once_a_checkpoint_covers_their_step(tmp_path):
    rounds = Rounds(tmp_path)
    records = rounds.complete(0, 0, TASKS, SOURCES, Workers(), judge)
    rounds.plan({7: ["t0", "t1"], 8: ["t2"]}, records)
    assert rounds.ledger.covered(7) == 0
    assert rounds.ledger.covered(8) == 6
    assert rounds.ledger.covered(8) == 0
    assert rounds.ledger.counts() == {"issued": 0, "executed": 0, "scored": 9, "trained": 6}


def test_earlier_rounds_come_back_whole_and_in_order(tmp_path):
    ranked = [RankedGroup(task, ()) for task in TASKS]
    with Log(tmp_path / GROUPS, RoundGroup) as log:
        log.append([RoundGroup(round, 0, group) for round in range(3) for group in ranked])
    found = list(Rounds(tmp_path, began=2).earlier(2))
    assert [[record.round for record in records] for records in found] == [[0] * 5, [1] * 5]
    assert {record.round for record in RoundLog(tmp_path).last()} == {2}


def test_what_a_driver_brings_after_another_has_taken_the_run_over_is_refused(tmp_path):
    rounds = Rounds(tmp_path)

    class TakenOver(Workers):
        def __call__(self, tasks, sources):
            for number, pieces in enumerate(super().__call__(tasks, sources)):
                if number == 2:  # a second driver resumes the run, while this one was thought to be dead
                    other = Ledger(tmp_path / LEDGER)
                    other.issue([_attempt(id) for id in every_id()])
                    other.close()
                yield pieces

    with pytest.raises(LogTakenError, match="another process has taken this run over"):
        complete(rounds, TakenOver())
    logged = [e.id for played in Log(tmp_path / EPISODES, Played).read() for e in played.group.episodes]
    assert len(logged) == 4 and len(set(logged)) == 4
    records = complete(Rounds(tmp_path), Workers())
    assert len(records) == len(TASKS)
    logged = Counter(e.id for played in Log(tmp_path / EPISODES, Played).read() for e in played.group.episodes)
    assert logged == Counter(every_id())


def _attempt(id: str) -> Attempt:
    _, _, task, source, number = id.split("/")
    return Attempt(round="improve/0", task=task, source=source, number=int(number))
