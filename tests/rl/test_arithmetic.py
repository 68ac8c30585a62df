from executors.executor import Executor
from rl.data.tasks.arithmetic import Arithmetic, arithmetic_tasks, split_of


def test_splits_are_disjoint_whatever_the_seeds():
    train = {task.prompt for seed in range(3) for task in arithmetic_tasks("train", 800, seed=seed)}
    held_out = {task.prompt for split in ("validation", "test") for task in arithmetic_tasks(split, 300, seed=0)}
    assert not train & held_out
    assert all(split_of(prompt) == "train" for prompt in train)


def test_gold_calls_compute_the_answers():
    benchmark = Arithmetic(demonstrations=200, train=200, validation=50, test=200).load(0)
    executor = Executor(benchmark.catalog)
    for task in (*benchmark.demonstrations, *benchmark.train, *benchmark.validation, *benchmark.test):
        assert executor.run(task.gold).content == task.answer


def test_the_same_seed_gives_the_same_questions_and_test_is_the_same_for_every_seed():
    config = Arithmetic(demonstrations=50, train=50, validation=20, test=50)
    assert config.load(1) == config.load(1) or config.load(1).train == config.load(1).train
    assert config.load(1).test == config.load(2).test
    assert config.load(1).train != config.load(2).train


def test_held_out_questions_are_distinct_and_of_every_level():
    tasks = arithmetic_tasks("test", 700, seed=0)
    assert len({task.id for task in tasks}) == 700
    assert {task.labels["level"] for task in tasks} == {"easy", "mid", "hard", "two"}
