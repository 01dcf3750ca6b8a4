"""What an operator can set: a field of a config dataclass, with the flag that sets it.

The command line is made from these fields (`cli/options.py`): the flag, the environment variable `HEADGATE_<FLAG>`, the
default, the help, the values that are taken, and what a parent hands to its workers. A new option is one new field.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar


class Config(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


_Config = TypeVar("_Config", bound=Config)

_KEY = "setting"

PAST_IT = "Past it calls are refused at once: RESOURCE_EXHAUSTED (429) with RetryInfo."
"""What the help of every bound on a worker's load says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a field is set from outside."""

    flag: str
    """Without the dashes: `grpc-port`."""
    help: str
    least: int | None = None
    most: int | None = None
    choices: Sequence[str] = ()
    metavar: str | None = None
    read: Callable[[str], Any] | None = None
    """Turns the text that was given into the value. Raises `ValueError` with a sentence about what is wrong with it."""
    multiple: bool = False
    """It may be given several times; the value is a tuple."""
    secret: bool = False
    """It may hold a password. A child process gets it in its environment: everybody on the machine can read arguments.
    """

    @property
    def name(self) -> str:
        """The flag as an identifier: `grpc_port`."""
        return self.flag.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that sets it too."""
        return f"HEADGATE_{self.name.upper()}"


def setting(default: Any, flag: str, help: str, **more: Any) -> Any:  # noqa: A002 - click's word for it
    """Return a dataclass field with a default that `--flag` sets."""
    return dataclasses.field(default=default, metadata={_KEY: Setting(flag=flag, help=help, **more)})


class Row(typing.NamedTuple):
    """One row of the option table."""

    field: str
    kind: Any
    """The type of its values, None left out where the field may be None."""
    default: Any
    setting: Setting


def path_of(text: str) -> Path:
    """Return the path that was given; `~` is the home folder, in an environment variable too, where no shell expands
    it. Raises `ValueError` for none.
    """
    if not text:
        raise ValueError("the path is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text!r} begins with a home folder that is not known") from error


def rows(config: type[Config]) -> Iterator[Row]:
    """Yield what can be set of a config dataclass, that of the configs within it too, in the order of the fields."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kind = _without_none(hints[field.name])
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from rows(kind)
        elif _KEY in field.metadata:
            yield Row(field.name, kind, field.default, field.metadata[_KEY])


def build(config: type[_Config], values: Mapping[str, Any], **more: Any) -> _Config:
    """Return a config made of values by their settings' names, and of more of its fields. What is not among them keeps
    its default.
    """
    hints = typing.get_type_hints(config)
    arguments = dict(more)
    for field in dataclasses.fields(config):
        kind = _without_none(hints[field.name])
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            arguments[field.name] = build(kind, values)
        elif _KEY in field.metadata and field.metadata[_KEY].name in values:
            arguments[field.name] = values[field.metadata[_KEY].name]
    return config(**arguments)


def handed_over(config: Config) -> Iterator[tuple[Setting, str]]:
    """Yield all that can be set of a config, with the text that sets it to the value that it has.

    What is None is left out: that is what is not set.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from handed_over(value)
        elif _KEY in field.metadata and value is not None:
            yield field.metadata[_KEY], str(value)


def _without_none(kind: Any) -> Any:
    """Return X of `X | None`."""
    left = [one for one in typing.get_args(kind) if one is not type(None)]
    return left[0] if len(left) == 1 and type(None) in typing.get_args(kind) else kind
