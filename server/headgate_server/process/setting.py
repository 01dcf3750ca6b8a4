"""Settings: fields of a config dataclass, each with the flag that sets it.

`cli/options.py` makes the command line from these fields: the flag, the environment variable `HEADGATE_<FLAG>`, the
default, the help, the accepted values, and the hand-over from a parent to its workers. A new option is one new field.
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
"""A sentence in the help of every bound on a worker's load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How an operator sets a field."""

    flag: str
    """Without the dashes: `grpc-port`."""
    help: str
    least: int | None = None
    most: int | None = None
    choices: Sequence[str] = ()
    metavar: str | None = None
    read: Callable[[str], Any] | None = None
    """Turns a text into the value. Raises `ValueError` with a sentence about the fault."""
    multiple: bool = False
    """The flag may be repeated. The value is a tuple."""
    is_flag: bool = False
    """It has no value: it is on if it is given."""
    secret: bool = False
    """It may contain a password. A child process gets it in its environment: every user of the machine can read
    arguments.
    """

    @property
    def name(self) -> str:
        """The flag as an identifier: `grpc_port`."""
        return self.flag.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that also sets it."""
        return f"HEADGATE_{self.name.upper()}"


def setting(default: Any, flag: str, help: str, **more: Any) -> Any:  # noqa: A002 - click's word for it
    """Return a dataclass field with a default that `--flag` sets."""
    is_flag = isinstance(default, bool)
    return dataclasses.field(default=default, metadata={_KEY: Setting(flag=flag, help=help, is_flag=is_flag, **more)})


class Row(typing.NamedTuple):
    """One row of the option table."""

    field: str
    kind: Any
    """The type of its values, without None."""
    default: Any
    setting: Setting


def path_of(text: str) -> Path:
    """Return the path of a text. `~` is the home folder, also in an environment variable, where no shell expands it.
    Raises `ValueError` for an empty text.
    """
    if not text:
        raise ValueError("the path is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text!r} begins with a home folder that is not known") from error


def rows(config: type[Config]) -> Iterator[Row]:
    """Yield the settings of a config dataclass and of the configs in it, in the order of the fields."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kind = _without_none(hints[field.name])
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from rows(kind)
        elif _KEY in field.metadata:
            yield Row(field.name, kind, field.default, field.metadata[_KEY])


def build(config: type[_Config], values: Mapping[str, Any], **more: Any) -> _Config:
    """Return a config made from values by their settings' names, and from other fields. Fields without a value keep
    their defaults.
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
    """Yield the settings of a config, each with the text that sets its present value; one that may be given several
    times once for each value.

    A setting that is None is left out: it is not set. So is a flag that is off: it has no text.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from handed_over(value)
        elif _KEY in field.metadata and value is not None and value is not False:
            setting = field.metadata[_KEY]
            for one in value if setting.multiple else (value,):
                yield setting, str(one)


def _without_none(kind: Any) -> Any:
    """Return X of `X | None`."""
    left = [one for one in typing.get_args(kind) if one is not type(None)]
    return left[0] if len(left) == 1 and type(None) in typing.get_args(kind) else kind
