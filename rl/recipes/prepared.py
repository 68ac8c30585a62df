"""A config's tasks, and whether it can work with them: before tensors are needed, and any file or process is made."""

from collections.abc import Iterator
from pathlib import Path

from executors.errors import ConfigError
from rewards.ranking import GOLD, WeightedSum
from rewards.selectivity import LIVE
from rl.data.tasks.benchmark import Benchmark
from rl.evaluation.evaluate import PairRanking, Worth
from rl.models.choice import HuggingFaceModel
from rl.recipes.parts import RecipeConfig


def prepare(config: RecipeConfig) -> Benchmark:
    """Load a config's tasks and see that the config can work with them.

    Raises:
        ConfigError: it cannot: every reason, one a line.
        DataError: the data or the model cannot be used.
    """
    if isinstance(config.model, HuggingFaceModel):
        from rl.models.load import require_model

        require_model(Path(config.model.path))
    benchmark = config.tasks.load(config.seed)
    benchmark.catalog.require()
    for policy in config.policies.values():
        policy.check()
    if found := list(_contradictions(config, benchmark)):
        raise ConfigError("\n".join(found))
    return benchmark


def _contradictions(config: RecipeConfig, benchmark: Benchmark) -> Iterator[str]:
    """What the config asks for and the tasks do not have."""
    for name in sorted(config.policies.keys() & benchmark.recordings.keys()):
        yield f"policies: {name!r} is the name of a recording of the benchmark; call it otherwise"
    for name, pool in config.executor.pools.items():
        for tool in sorted(set(pool.tools) - set(benchmark.catalog.names)):
            there = ", ".join(benchmark.catalog.names[:10])
            yield f"executor.pools.{name}: there is no tool {tool!r}; there are {there}"
    known = {LIVE, GOLD, *config.peers, *config.policies, *benchmark.recordings}
    for source in config.sources:
        if source.policy not in known:
            yield (
                f"source {source.name!r} plays policy {source.policy!r}, and there are {', '.join(sorted(known))}; "
                "a further model is named under peers or policies"
            )
    levels = {task.labels["level"] for task in (*benchmark.demonstrations, *benchmark.test) if "level" in task.labels}
    for level in sorted(set(config.cloning.annotators.call_rate or ()) - levels):
        place = "foundation.demonstrator" if config.cloning.foundation else "demonstrator"
        there = ", ".join(sorted(levels)) or "no levels"
        yield f"cloning.{place}.call_rate names level {level!r}, and the tasks have {there}"
    if len(benchmark.train) < config.improvement.tasks_per_round:
        yield (
            f"improvement.tasks_per_round is {config.improvement.tasks_per_round}, and there are "
            f"{len(benchmark.train)} training tasks; a round takes each of its tasks once"
        )
    recorded = {source.policy for source in config.sources} & benchmark.recordings.keys()
    if isinstance(config.evaluation, PairRanking) and not recorded:
        yield "evaluation: ranking measures recorded attempts, and no source plays a recording"
    yield from _unworthy(config, benchmark)


def _unworthy(config: RecipeConfig, benchmark: Benchmark) -> Iterator[str]:
    """What asks environments what attempts are worth, where no tool has one that says so."""
    if any(getattr(tool.state, "judges", False) for tool in benchmark.catalog):
        return
    names = ", ".join(benchmark.catalog.names[:10])
    told = f"of the tools ({names}) none has an environment with get_reward to say what an attempt is worth"
    if isinstance(config.evaluation, Worth):
        yield f"evaluation: kind environment, and {told}; take kind selectivity or calls, or such an environment"
    if isinstance(config.rewards, WeightedSum) and config.rewards.environment:
        yield f"rewards.environment: {config.rewards.environment:g}, and {told}; leave it out"
