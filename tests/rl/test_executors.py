"""Where a config's tools run, and where their calls are written down."""

import pickle
from pathlib import Path

import pytest

from executors.catalog import Catalog
from executors.elsewhere import RemoteExecutor
from executors.errors import ConfigError
from executors.journal import Journal
from executors.tools.calculator import calculator
from executors.types import ToolCall
from rl.config import validate
from rl.recipes.executors import ExecutorBuilder
from rl.recipes.prepared import prepare
from rl.recipes.trice import TriceConfig
from tests.rl.test_config import content, problem


class NoCrew:
    """A crew of nobody."""

    name, tools, losses = "apart", ("calculator",), 0


def test_an_executor_writes_its_calls_down_where_it_is_told_to(tmp_path):
    build = pickle.loads(pickle.dumps(ExecutorBuilder(Catalog([calculator]), 3.0, tmp_path)))
    executor = build()
    assert isinstance(executor.cassette, Journal)
    assert executor.timeout == 3.0
    executor.recall("r")
    executor.run(ToolCall("calculator", {"expression": "6*7"}))
    assert ["6*7" in path.read_text() for path in tmp_path.iterdir()] == [True]
    assert ExecutorBuilder(Catalog([calculator]), 3.0)().cassette is None


def test_an_executor_with_crews_sends_their_tools_to_them():
    build = ExecutorBuilder(Catalog([calculator]), 3.0, Path("calls")).with_crews([NoCrew()])  # type: ignore[list-item]
    executor = build()
    assert isinstance(executor, RemoteExecutor)
    assert isinstance(executor.cassette, Journal)
    assert executor.catalog.get("calculator").function.crew == "apart"


def test_pools_are_read_from_a_config_and_contradictions_are_found():
    pool = {"tools": ["calculator"], "count": 2, "cpus": 0.5, "resources": {"sandbox_node": 1}}
    config = validate(content(executor={"pools": {"apart": pool}}), TriceConfig, "x.yaml")
    assert (config.executor.cpus, config.executor.gpus) == (1.0, 0.0)
    prepare(config)
    assert config.rollouts.journal
    assert not validate(content(rollouts={"journal": False}), TriceConfig, "x.yaml").rollouts.journal
    assert "'a' and 'b' both run 'calculator'; name it in one" in problem(
        content(executor={"pools": {"a": pool, "b": pool}})
    )
    assert "9 for executor pools and placed policies; 11 will do" in problem(
        content(executor={"pools": {"a": pool | {"cpus": 4.5}}})
    )
    assert "unknown key 'executor.pools.a.tool'; did you mean 'tools'?" in problem(
        content(executor={"pools": {"a": {"tool": ["calculator"]}}})
    )
    unknown = validate(content(executor={"pools": {"apart": pool | {"tools": ["abacus"]}}}), TriceConfig, "x.yaml")
    with pytest.raises(ConfigError, match=r"executor\.pools\.apart: there is no tool 'abacus'; there are calculator"):
        prepare(unknown)
