"""Command line options, made from the config dataclasses."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from headgate_server.process.setting import Row, Setting, rows

_Command = TypeVar("_Command", bound=Callable[..., Any])


def options(config: type[Any], *, only: tuple[str, ...] = ()) -> Callable[[_Command], _Command]:
    """Return a decorator that gives a command the options of a config dataclass, or only those with these flags.

    The command gets each value under the name of its setting; `process.setting.build` makes the config from them.
    """

    def decorate(command: _Command) -> _Command:
        for row in reversed(list(rows(config))):
            if not only or row.setting.flag in only:
                command = _option(row)(command)
        return command

    return decorate


def _option(row: Row) -> Callable[[_Command], _Command]:
    setting = row.setting
    if setting.is_flag:
        return click.option(
            f"--{setting.flag}",
            setting.name,
            is_flag=True,
            default=row.default,
            envvar=setting.variable,
            help=setting.help,
            show_envvar=True,
        )
    return click.option(
        f"--{setting.flag}",
        setting.name,
        type=_type(row),
        default=row.default,
        envvar=setting.variable,
        help=setting.help,
        metavar=setting.metavar,
        multiple=setting.multiple,
        show_default=not setting.multiple,
        show_envvar=True,
    )


def _type(row: Row) -> click.ParamType[Any]:
    setting = row.setting
    if setting.read is not None:
        return _Read(setting, "path" if row.default is None or not isinstance(row.default, str) else "text")
    if setting.choices:
        return click.Choice(setting.choices)
    if row.kind is int:
        return click.IntRange(setting.least, setting.most)
    if row.kind is float:
        return click.FloatRange(setting.least, setting.most)
    return click.STRING


class _Read(click.ParamType[Any]):
    """The click type of a setting that has a reading function of its own."""

    def __init__(self, setting: Setting, name: str):
        self.name = name
        self._read = setting.read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of a text; a default is already a value."""
        if self._read is None or not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
