"""A user's own Python file, imported so that other processes of the run can import it too."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from executors.errors import ConfigError


def load_own_file(path: str | Path) -> ModuleType:
    """The module that a file holds.

    A file below the working directory is imported by its path from there, so that processes elsewhere, which have the
    same directory, find it under the same name; another one by its own name, its folder being made importable here.

    Args:
        path: of the file.

    Raises:
        ConfigError: there is no such file, its name is no module's, or it fails; with the line of it that did.
    """
    file = Path(path).resolve()
    if not file.is_file() or file.suffix != ".py":
        raise ConfigError(f"{path} is not a Python file; 'apprentice init my_tools.py' writes one to begin with")
    here = Path.cwd().resolve()
    parts = (file.relative_to(here) if file.is_relative_to(here) else Path(file.name)).with_suffix("").parts
    if not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{path} cannot be imported: {'/'.join(parts)} is no module's name; use letters and _")
    if parts[0] in sys.stdlib_module_names:
        raise ConfigError(f"{path} cannot be imported: {parts[0]!r} is a module of Python's own; rename it")
    root = str(here if file.is_relative_to(here) else file.parent)
    _make_importable(root)
    name = ".".join(parts)
    known = sys.modules.get(name)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == file:
        return known
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise ConfigError(f"{path} fails: {own_frame(error, file)}") from error
    found = Path(getattr(module, "__file__", None) or "").resolve()
    if found != file:
        raise ConfigError(f"{path} cannot be imported: Python takes {name!r} for {found}; rename the file")
    return module


def own_frame(error: BaseException, file: Path) -> str:
    """What went wrong and, where it did in a user's file, the line: the innermost frame of that file."""
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"line {error.lineno}: {told}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return f"line {frames[-1].lineno}, in {frames[-1].name}: {told}" if frames else told


def _make_importable(folder: str) -> None:
    """Here, and in the processes that this one starts."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = os.environ.get("PYTHONPATH", "")
    if folder not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, known]))
