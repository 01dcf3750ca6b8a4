"""How far an import has come: a file beside the imported one, written after every batch."""

import fcntl
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from headgate_server.cli.importing.records import Place
from headgate_server.core.errors import SetupError

SUFFIX = ".headgate-import"
_VERSION = 1


@dataclass(slots=True, kw_only=True)
class State:
    """Everything that an import needs to continue."""

    digest: str
    """SHA-256 of the file: another file at the same path is another import."""
    size: int
    modified: int
    """Nanoseconds. While size and time are the same, the file is not read to compare its digest."""
    run: str = field(default_factory=lambda: os.urandom(8).hex())
    """Part of every request key, so that another import of the same file gets answers of its own."""
    settings: str
    """The settings that decide what is sent. With others the import would not be the same."""
    place: Place = field(default_factory=Place)
    counts: Counter[str] = field(default_factory=Counter)
    """Records by what became of them."""
    rejects: int = 0
    """The bytes of the file of rejects."""
    attempt: int = 0
    """Counts up when the import stops at events that may be stored later. They are then another request."""


def state_path(path: Path) -> Path:
    """Return the file that has the state of the import of this one."""
    return path.with_name(path.name + SUFFIX)


class StateFile:
    """The state of one file's import. Only one process at a time can have it."""

    def __init__(self, path: Path):
        """Raises `SetupError` if another import of the file runs."""
        self.path = state_path(path)
        self._lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SetupError(f"another import of {path} is running") from None

    def load(self) -> State | None:
        """Return the state of an import that was not finished. Raises `SetupError` if it cannot be read."""
        try:
            said = orjson.loads(self.path.read_bytes())
            return _state(said)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise SetupError(
                f"{self.path} cannot be read ({error}); remove it to begin again: events that are stored are recognized"
            ) from error

    def save(self, state: State) -> None:
        """Write the state in one step. Raises `SetupError` if it cannot be written."""
        said = {
            "version": _VERSION,
            "digest": state.digest,
            "size": state.size,
            "modified": state.modified,
            "run": state.run,
            "settings": state.settings,
            "lines": state.place.lines,
            "offset": state.place.offset,
            "counts": dict(state.counts),
            "rejects": state.rejects,
            "attempt": state.attempt,
        }
        new = self.path.with_name(self.path.name + ".new")
        try:
            with new.open("wb") as file:
                file.write(orjson.dumps(said))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise SetupError(f"cannot write {self.path}: {error.strerror}") from error

    def remove(self) -> None:
        """Forget the import: it is finished."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process import the file."""
        os.close(self._lock)


def _state(said: Mapping[str, Any]) -> State:
    if said["version"] != _VERSION:
        raise ValueError("it is from another version")
    return State(
        digest=str(said["digest"]),
        size=int(said["size"]),
        modified=int(said["modified"]),
        run=str(said["run"]),
        settings=str(said["settings"]),
        place=Place(int(said["lines"]), int(said["offset"])),
        counts=Counter({str(name): int(count) for name, count in said["counts"].items()}),
        rejects=int(said["rejects"]),
        attempt=int(said["attempt"]),
    )
