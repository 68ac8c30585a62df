"""Runs model-written source the way a prompt would: what it prints goes out, and its last expression is its value.

This runs in the jailed process, beside the model's code and at its mercy: nothing that it says is a proof of anything.
"""

import ast
import atexit
import builtins
import errno
import gc
import linecache
import os
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from executors.sandbox import wire

ANSWER_FD, REQUEST_FD = 3, 4
REQUEST = struct.Struct("<8sI")
ERROR_CHARS = 4000
MAX_FRAMES = 1000
"""The innermost frames of a traceback that are looked at: a program may have millions."""
REHEARSALS = 10
_LIBRARY = (os.path.dirname(os.__file__), "python")
"""The standard library's folder, and what tracebacks call it."""
_exit = os._exit
_reserve = [bytearray(1 << 20)]
"""Given up where memory has run out, so that this can still be said."""


def run_once(source: bytes, mark: bytes, max_bytes: int) -> NoReturn:
    """Run the source as a program: answer, and end the process."""
    kind, text = _wind_up(*_run(source, _main_module(), "<python>"))
    _answer(mark, kind, text, max_bytes)
    while True:
        _exit(0)


def converse(max_bytes: int) -> NoReturn:
    """Run one source after another, as they come, with variables that stay."""
    names = _main_module()
    number = 0
    while head := os.read(REQUEST_FD, REQUEST.size):
        mark, size = REQUEST.unpack(head)
        source = b""
        while len(source) < size:
            source += os.read(REQUEST_FD, size - len(source))
        number += 1
        kind, text = _run(source, names, f"<python {number}>")
        _flush()
        _answer(mark, kind, text, max_bytes)
    while True:
        _exit(0)


def rehearse() -> None:
    """Run some sources of our own, so that what the interpreter sets up on first use is there for every call."""
    for source in (b"x = 1\nx", b"import math\nfor i in range(9): math.sqrt(i)", b"1 / 0", b"def f(:") * REHEARSALS:
        _run(source, _main_module(), "<rehearsal>")
    linecache.clearcache()
    gc.disable()


def _main_module() -> dict[str, Any]:
    """A fresh ``__main__``, which dataclasses and pickles look for."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    if random := sys.modules.get("random"):
        random.seed()
    gc.enable()
    return module.__dict__


def _run(source: bytes, names: dict[str, Any], file: str) -> tuple[bytes, str]:
    """What became of it: a kind of answer, and the value's ``repr`` or the end of the traceback."""
    try:
        text = source.decode()
        tree = ast.parse(text, file)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(tree, file, "exec", dont_inherit=True), names)
        value = _value(last, file, names) if isinstance(last, ast.Expr) else None
        return wire.VALUE, "" if value is None else repr(value)
    except SystemExit as error:
        if error.code is None or (isinstance(error.code, int) and error.code == 0):
            return wire.VALUE, ""
        return wire.RAISED, _safely("SystemExit: {.code}".format, error, otherwise="SystemExit")
    except MemoryError as error:
        error.__traceback__ = None
        _reserve.clear()
        return wire.RAISED, "MemoryError: the program needs more memory than it may have"
    except BaseException as error:
        refused = isinstance(error, PermissionError) and error.errno in (errno.EPERM, errno.EACCES)
        told = _safely(_told, error, file, otherwise=type(error).__name__)
        return wire.REFUSED if refused else wire.RAISED, told


def _value(last: ast.Expr, file: str, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(last.value), file, "eval", dont_inherit=True), names)


def _told(error: BaseException, file: str) -> str:
    """The traceback from the model's own first line on; of a long one, the end."""
    trace: TracebackType | None = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename != file:
        trace = trace.tb_next
    ahead = trace
    for _ in range(MAX_FRAMES):
        ahead = ahead and ahead.tb_next
    while trace and ahead:
        trace, ahead = trace.tb_next, ahead.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).strip().replace(*_LIBRARY)
    return text if len(text) <= ERROR_CHARS else "... " + text[-ERROR_CHARS:]


def _safely(tell: Callable[..., Any], *arguments: Any, otherwise: str = "") -> str:
    """What can be said, though the model's own code may be asked to say it."""
    try:
        return tell(*arguments) or ""
    except BaseException:
        return otherwise


def _wind_up(kind: bytes, text: str) -> tuple[bytes, str]:
    """End as a program does: threads are waited for, exit functions run, output goes out."""
    try:
        if threading.active_count() > 1:
            threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
    except BaseException as error:
        said = _safely("{0.__class__.__name__}: {0}".format, error, otherwise="an exit function failed")
        kind, text = wire.RAISED, said
    _flush()
    return kind, text


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        _safely(lambda stream: stream.flush(), stream)


def _answer(mark: bytes, kind: bytes, text: str, max_bytes: int) -> None:
    said = text[:max_bytes].encode(errors="backslashreplace")[:max_bytes]
    waiting = memoryview(wire.ANSWER.pack(mark, kind, len(said)) + said)
    while waiting:
        waiting = waiting[os.write(ANSWER_FD, waiting) :]
