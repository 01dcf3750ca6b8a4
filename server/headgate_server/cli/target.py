"""Where a command works: at the store, or at a service over the network."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from headgate_client.core.address import Certificates
from headgate_server.access import admin
from headgate_server.app.at_store import at_store
from headgate_server.cli.options import options
from headgate_server.config import StoreConfig
from headgate_server.core.audit import RESERVED
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Workspace
from headgate_server.core.types import WorkspaceId
from headgate_server.process.setting import build
from headgate_server.rpc.api import Api, Direct, Remote
from headgate_server.store.opening import existing

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FILES = (("--ca", "service_ca"), ("--client-cert", "service_cert"), ("--client-key", "service_key"))
_TEXTS = (
    "the key of that certificate.",
    "a certificate to show.",
    "the certificates that may sign the service's. By default the system's.",
)
"""What is in each, the last one first."""


def options_of_target(command: _Command, *, flag: str = "--url") -> _Command:
    """Add the options that say where a command works. `flag` names the service."""
    command = certificate_options(command, when=f"With {flag}: ")
    for option in (
        click.option(
            "--key",
            "service_api_key",
            envvar="HEADGATE_KEY",
            show_envvar=True,
            help=f"With {flag}: an API key of the workspace, or of an operator (workspace _headgate, scope admin).",
        ),
        click.option(
            flag,
            "service_url",
            envvar="HEADGATE_URL",
            show_envvar=True,
            metavar="URL",
            help="A running service in place of the store: HOST:PORT, https://HOST or http://HOST.",
        ),
    ):
        command = option(command)
    return options(StoreConfig)(command)


def certificate_options(command: _Command, *, when: str = "") -> _Command:
    """Add the options of the connection to a service."""
    for option in (
        click.option("--plaintext", "service_plaintext", is_flag=True, help=_sentence(f"{when}do not encrypt.")),
        *(
            click.option(name, value, type=_FILE, help=_sentence(f"{when}a file with {text}"))
            for (name, value), text in zip(reversed(_FILES), _TEXTS, strict=True)
        ),
    ):
        command = option(command)
    return command


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def workspace_option(command: _Command, *, flag: str = "--url") -> _Command:
    """Add the option that names the workspace. A service, which `flag` names, knows that of the key."""
    text = f"The workspace. With {flag} it is that of the key, if left out; an operator's key works in each."
    return click.option("--workspace", help=text)(command)


@contextlib.asynccontextmanager
async def operating(values: dict[str, Any], *, makes: bool = False) -> AsyncIterator[Api]:
    """Yield what makes calls of an operator of the service, such as those of AdminService. `makes`: at a store, which
    is made if there is none.
    """
    if (service := _service(values)) is not None:
        async with _closing(service) as api:
            yield api
        return
    location = build(StoreConfig, values).location
    async with at_store(location if makes else existing(location)) as (directory, methods):
        reserved = await directory.workspace(RESERVED)
        # Before the first act there is no such workspace.
        yield Direct(methods, admin.operator(), reserved or Workspace(WorkspaceId(0), RESERVED))


@contextlib.asynccontextmanager
async def within(values: dict[str, Any], workspace: str | None) -> AsyncIterator[Api]:
    """Yield what makes calls in a workspace. Raises `NotFound` if there is no such workspace, and `SetupError` if the
    key belongs to another one and is no operator's.
    """
    if (service := _service(values, workspace)) is not None:
        async with _closing(service) as api:
            if workspace is not None:
                await _check_workspace(api, workspace)
            yield api
        return
    if workspace is None:
        raise click.UsageError("Missing option '--workspace'.")
    async with at_store(existing(build(StoreConfig, values).location)) as (directory, methods):
        yield Direct(methods, admin.operator(), await admin.find_workspace(directory, workspace))


async def _check_workspace(api: Api, workspace: str) -> None:
    """Raise `SetupError` if calls are made in another workspace: a service of an older release knows only that of the
    key.
    """
    answer = await api.call("WorkspaceService/GetWorkspace")
    if (name := answer["workspace"]["name"]) != workspace:
        raise SetupError(f"the key is of the workspace {name!r}, not {workspace!r}")


@contextlib.asynccontextmanager
async def _closing(service: Remote) -> AsyncIterator[Api]:
    try:
        yield service
    finally:
        service.close()


def _service(values: dict[str, Any], workspace: str | None = None) -> Remote | None:
    """Return the service that the options name, None if they name the store. An option counts more than a variable.
    Raises `click.UsageError` if both are named.
    """
    given, flag = click.get_current_context().get_parameter_source, _flag()
    url, said = values["service_url"], given("service_url") is ParameterSource.COMMANDLINE
    stores = [name for name, value in (("--store", "store"), ("--data-dir", "data_dir")) if _is_given(value)]
    if said and stores:
        raise click.UsageError(f"give {flag} or {stores[0]}, not both")
    if url is None or stores:
        for name, value in (*_FILES, ("--plaintext", "service_plaintext"), ("--key", "service_api_key")):
            # The key may be a variable that other commands need.
            if values[value] and (value != "service_api_key" or _is_given(value)):
                raise click.UsageError(f"{name} needs {flag}")
        return None
    if not said and given("store") is ParameterSource.ENVIRONMENT:
        raise click.UsageError(f"HEADGATE_URL and HEADGATE_STORE are both set: give {flag} or --store")
    plaintext = True if values["service_plaintext"] else None
    return Remote(url, key_of(values["service_api_key"]), certificates_of(values), plaintext, workspace)


def key_of(key: str | None) -> str:
    """Return the API key of a command. Raises `SetupError` if there is none."""
    if not key:
        raise SetupError("there is no API key: give --key, or set HEADGATE_KEY")
    return key


def certificates_of(values: dict[str, Any]) -> Certificates:
    """Return what the options of `certificate_options` name. Raises `SetupError` if one of two is missing."""
    if (values["service_cert"] is None) != (values["service_key"] is None):
        raise SetupError("--client-cert and --client-key are given together")
    return Certificates(*(None if values[value] is None else values[value].read_bytes() for _, value in _FILES))


def _flag() -> str:
    """Return the option of the command that names the service."""
    parameters = click.get_current_context().command.params
    return next(parameter.opts[0] for parameter in parameters if parameter.name == "service_url")


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
