"""How much work a claim about hostile input may take, told so that neither a busy machine nor earlier tests count."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def effort(seconds: float) -> Iterator[None]:
    """Asserts that the block takes less than ``seconds`` of this thread's CPU time, other tests' garbage left alone."""
    collecting = gc.isenabled()
    gc.disable()
    began = time.thread_time()
    try:
        yield
    finally:
        spent = time.thread_time() - began
        if collecting:
            gc.enable()
    assert spent < seconds, f"took {spent:.2f} CPU-seconds, more than {seconds}"
