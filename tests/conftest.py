"""What several tests share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tools.calculator import calculator


@pytest.fixture
def executor() -> Executor:
    """Runs the calculator."""
    return Executor(Catalog([calculator]))
