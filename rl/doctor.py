"""What a machine has and lacks for Apprentice: ``apprentice doctor``."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from executors.sandbox.posture import posture

_DISK, _MEMORY = 3 * 2**30, 6 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: Literal["ok", "note", "lacking"]
    detail: str
    """What is there, and where something is lacking what to do."""


def examine(storage: Path = Path("runs")) -> Iterator[Finding]:
    """Look at the machine, the installed packages, the sandbox, the storage; nothing is started."""
    yield _python()
    yield from _packages()
    yield _cores()
    yield _gpus()
    yield _sandbox()
    yield _storage(storage)
    yield _cluster()
    yield _data()


def _python() -> Finding:
    there = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        return Finding("python", "note", f"{there}; only Linux was tried, and model-written code is refused elsewhere")
    return Finding("python", "ok", there)


def _packages() -> Iterator[Finding]:
    """The distribution's own requirements against what is installed."""
    wrong = []
    for text in metadata.requires("apprentice") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            there = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            wrong.append(f"{requirement.name} is {there}, and {requirement.specifier} is needed")
    if wrong:
        yield Finding("packages", "lacking", f"{'; '.join(wrong)}: make install, or pip install with constraints.txt")
    else:
        shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "ray", "transformers", "trl"))
        yield Finding("packages", "ok", shown)


def _cores() -> Finding:
    cores, memory = os.cpu_count() or 1, psutil.virtual_memory()
    told = f"{cores} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB of memory free"
    if memory.available < _MEMORY:
        return Finding("machine", "note", f"{told}; a run with its workers takes about {_MEMORY / 2**30:.0f}")
    return Finding("machine", "ok", told)


def _gpus() -> Finding:
    if not Path("/dev/nvidiactl").exists():
        return Finding("gpu", "note", "none: everything runs on the CPU; learner.gpu and rollouts.gpus stay off")
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "gpu", "lacking", f"there is one, and torch {torch.__version__} cannot use it: install its CUDA build"
        )
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Finding("gpu", "ok", names)


def _sandbox() -> Finding:
    found = posture("auto")
    if found.tier is None:
        return Finding("sandbox", "lacking", f"none holds, so the python tool is refused: {found.reason}")
    state: Literal["ok", "note"] = "ok" if found.tier == "ns" else "note"
    return Finding("sandbox", state, f"{found.tier}: {found.reason}")


def _storage(storage: Path) -> Finding:
    place = storage.resolve()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return Finding("storage", "lacking", f"{place} cannot be written; give --run-dir, or set storage in the config")
    free = shutil.disk_usage(place).free
    told = f"{free / 2**30:.1f} GiB free at {place}"
    return Finding("storage", "ok" if free > _DISK else "note", told)


def _cluster() -> Finding:
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        return Finding("ray", "ok", "RAY_ADDRESS is not set: a run starts a cluster of its own on this machine")
    mode = os.environ.get("RAY_AUTH_MODE", "")
    token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if mode == "token" and not token:
        return Finding("ray", "lacking", f"{address} asks for a token: set RAY_AUTH_TOKEN_PATH to the cluster's")
    return Finding("ray", "ok", f"RAY_ADDRESS is {address}: runs join it")


def _data() -> Finding:
    folder = Path(os.environ.get("APPRENTICE_DATA", "../shared/data"))
    if not folder.is_dir():
        return Finding("data", "note", f"no data sets at {folder}: configs that read them say so; the demo needs none")
    return Finding("data", "ok", f"{', '.join(sorted(path.name for path in folder.iterdir() if path.is_dir()))}")
