"""Reads a Dockerfile, and runs its steps in a folder in place of a container engine."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Step(NamedTuple):
    """An instruction and what follows it."""

    name: str
    text: str


_KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
}


def steps(path: Path) -> Iterator[Step]:
    """Yield the instructions of a Dockerfile. Raises `ValueError` for one that this reader does not know."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, text = line.strip().partition(" ")
            if name not in _KNOWN:
                raise ValueError(f"{name} is not known")
            yield Step(name, text.strip())


class Image:
    """The file system of the last stage, in a folder: `/opt/x` of the image is `root/opt/x`. And how it is started."""

    def __init__(self, root: Path):
        self.root = root
        self.env: dict[str, str] = {}
        self.user = ""
        self.workdir = "/"
        self.command: list[str] = []

    def path(self, inside: str) -> Path:
        """Return the path outside of a path in the image."""
        return self.root / os.path.join(self.workdir, inside).lstrip("/")


def build(dockerfile: Path, context: Path, root: Path, python: Path) -> Image:
    """Run the steps in an empty folder. `python` is the interpreter of the base image.

    Both stages have the same folder, since a virtual environment cannot be moved. When the last stage begins,
    everything goes except what it copies from the first one.
    """
    everything = list(steps(dockerfile))
    begin = max(index for index, step in enumerate(everything) if step.name == "FROM")
    image = Image(root)
    for step in everything[:begin]:
        _run(step, image, context, python)
    image = _second(everything[begin:], image)
    for step in everything[begin:]:
        _run(step, image, context, python)
    return image


def _second(last: list[Step], first: Image) -> Image:
    kept = [shlex.split(step.text)[1] for step in last if step.name == "COPY" and step.text.startswith("--from=")]
    image = Image(first.root)
    moved = first.root.with_name(first.root.name + ".first")
    first.root.rename(moved)
    for path in kept:
        image.path(path).parent.mkdir(parents=True, exist_ok=True)
        (moved / path.lstrip("/")).rename(image.path(path))
    shutil.rmtree(moved)
    return image


def _run(step: Step, image: Image, context: Path, python: Path) -> None:
    match step.name:
        case "ENV":
            pairs = (pair.partition("=") for pair in shlex.split(step.text))
            image.env |= {name: value for name, _, value in pairs}
        case "WORKDIR":
            image.workdir = step.text
            image.path(".").mkdir(parents=True, exist_ok=True)
        case "COPY" if not step.text.startswith("--from="):
            *sources, target = shlex.split(step.text)
            for source in sources:
                _copy(context / source, image.path(target), into=target.endswith("/"))
        case "RUN":
            _shell(step.text, image, python)
        case "USER":
            image.user = step.text
        case "ENTRYPOINT" | "CMD":
            image.command += json.loads(step.text)


def _copy(source: Path, target: Path, *, into: bool) -> None:
    """Copy as a Dockerfile does: of a folder its content, of a file itself."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target = target / source.name if into else target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _shell(command: str, image: Image, python: Path) -> None:
    environment = started(image, {"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
    binaries = image.root.with_name(image.root.name + ".bin")
    binaries.mkdir(exist_ok=True)
    (binaries / "python").unlink(missing_ok=True)
    (binaries / "python").symlink_to(python)
    environment["PATH"] = f"{binaries}:{environment['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-ec", _outside(command, image.root)],
        cwd=image.path("."),
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def started(image: Image, outside: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process of the image, with paths outside."""
    environment = dict(outside)
    for name, value in image.env.items():
        environment[name] = _outside(value, image.root).replace("$PATH", outside.get("PATH", ""))
    # The cache of this machine spares the network; the image has none.
    environment.pop("PIP_NO_CACHE_DIR", None)
    return environment


def _outside(text: str, root: Path) -> str:
    """Return a text with the paths of the image's own folders outside."""
    return re.sub(r"(?<![\w./-])/(opt|src|data)(?=[/\s:;]|$)", rf"{root}/\1", text)
