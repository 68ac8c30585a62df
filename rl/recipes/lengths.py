"""Whether a config's tasks fit into what its model reads, told before a run's folder or any process is made."""

from collections.abc import Iterator

from rewards.ranking import GOLD
from rl.data.room import require_room
from rl.data.tasks.benchmark import Benchmark
from rl.models.load import build_tokenizer_for
from rl.recipes.demonstrations import tokenizer_texts
from rl.recipes.parts import RecipeConfig

_READ = 500
"""Tasks whose length is taken for that of all."""


def require_lengths(config: RecipeConfig, benchmark: Benchmark) -> None:
    """See that the model reads most prompts with the expected calls and answers behind them.

    What else stands there, such as what calls give, comes on top of that.

    Raises:
        ConfigError: it does not: ``model.max_length`` is too short.
        DataError: the model's tokenizer cannot be used.
    """
    require_room(list(_lengths(config, benchmark)), config.model.max_length, "prompts with the expected attempts")


def _lengths(config: RecipeConfig, benchmark: Benchmark) -> Iterator[int]:
    """Tokens of some, evenly taken."""
    format, specs = config.format.build(), benchmark.catalog.specs()
    recorded = benchmark.recordings.get(GOLD, {})
    texts = tokenizer_texts(benchmark, format)
    tokenizer = build_tokenizer_for(config.model, texts, format.markers(specs))
    tasks = benchmark.demonstrations or benchmark.train
    for task in tasks[:: -(-len(tasks) // _READ)]:
        call = "" if task.gold is None else format.write_call(task.gold, specs)
        answer = "" if task.answer is None else format.write_answer(task.answer)
        text = format.opening(task, benchmark.catalog.specs(task.tools))
        text += "".join(recorded.get(task.id, ())) or call + answer
        yield len(tokenizer.encode(text, add_special_tokens=False))
