"""Fills in envoy.yaml: where to listen, where the servers are, how large a body may be."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headgate_bridge import secrets
from headgate_server.core.errors import SetupError
from headgate_server.process.ports import HIGHEST_PORT, host_of
from headgate_server.process.setting import path_of, setting
from headgate_server.process.tls import TlsMaterial

# The server words the refusal of a body over its limit, so Envoy must let a slightly larger body through.
BODY_MARGIN = 1024 * 1024
# The transcoder adds a frame, the content type and the query to a body.
_TRANSCODED_MARGIN = 128 * 1024

LISTENER = "http"
CLUSTER = "headgate"
ADMIN_SOCKET = "admin.sock"
# Another way to the same servers, for subscriptions. An envoy.yaml may do without it.
STREAMS = "streams"
TRANSCODER = "transcoder"
CORS = "cors"
HEADERS = "headers"
BUFFER = "buffer"

# By this header the servers know what is the bridge's own.
BRIDGE_HEADER = "x-headgate-bridge"

ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


class BridgeError(SetupError):
    """The bridge cannot start or run. The message is one line that can be shown as it is."""


def _origin_of(text: str) -> str:
    """Return an origin as browsers write it (RFC 6454, 6.2), or "*". Raises `ValueError` for anything else."""
    origin = text.lower()
    if origin != "*" and not ORIGIN.fullmatch(origin):
        raise ValueError(f"{text!r} is not an origin: give scheme and host, such as https://app.example.com, or *")
    # The port that the scheme has anyway is left out.
    return origin.removesuffix({"https": ":443", "http": ":80"}.get(origin.partition("://")[0], ""))


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """The settings of one Envoy. All others are in envoy.yaml."""

    # Only this machine by default: a service that others can reach is somebody's decision. A name is looked up once, at
    # the start.
    http_host: str = setting(
        "127.0.0.1",
        "http-host",
        "Address of REST (and of gRPC, passed through). An address of a network needs --tls-cert, or --plaintext.",
        read=host_of,
    )

    # The usual port of HTTP proxies. 0: any free port; `Envoy.port` says which.
    http_port: int = setting(
        8080,
        "http-port",
        "Port of REST (and of gRPC, passed through); 0 takes any free one.",
        least=0,
        most=HIGHEST_PORT,
    )

    # Hosts and ports of the gRPC servers, or their Unix sockets, at least one. The default is gRPC's customary port on
    # this machine.
    upstreams: tuple[tuple[str, int] | Path, ...] = (("127.0.0.1", 50051),)

    # The port's certificate, with its key, and the authorities of clients' certificates. None: plain text.
    tls: TlsMaterial | None = None

    # The authorities of the servers' certificates, and the certificate that is shown to the servers, if they ask for
    # one. None: plain text.
    upstream_tls: TlsMaterial | None = None

    # Browsers that have read an answer use only https for this host from then on, for so long.
    hsts: int = setting(
        0,
        "hsts",
        "Seconds for which browsers shall use only https for this host (Strict-Transport-Security); 0 says nothing.",
        least=0,
        most=2**31 - 1,
    )

    # TCP port of Envoy's admin interface on loopback; every program that reaches it can stop Envoy. 0: a Unix socket in
    # a folder that only this user can enter.
    admin_port: int = 0

    # The server's limit of a request body, in bytes, after inflation. Envoy's own limit is BODY_MARGIN higher.
    body_limit: int

    # The servers trust the bridge only if this is their own `bridge_token`.
    marker: str

    # Origins whose pages may call from a browser, such as https://app.example.com; "*" is any. None by default: whose
    # pages may read answers is for the operator to say.
    cors_origins: tuple[str, ...] = setting(
        (),
        "cors-origin",
        "Let pages of this origin call REST from a browser, such as https://app.example.com; '*' is any. "
        "Several may be given. Without it: none.",
        metavar="ORIGIN",
        multiple=True,
        read=_origin_of,
    )

    # None: the envoy.yaml that comes with Headgate.
    config_file: Path | None = setting(
        None, "envoy-config", "Another envoy.yaml than the one that comes along.", read=path_of
    )

    # The level of Envoy's log, on standard error: trace, debug, info, warning, error, critical or off. Levels below
    # warning print a lot.
    log_level: str = "warning"

    # Envoy's worker threads. Two carry more than one server process can handle; each has its own upstream connections.
    concurrency: int = 2


def render(config: BridgeConfig, *, folder: Path | None = None) -> str:
    """Return Envoy's configuration, in JSON.

    `folder` is Envoy's own: the admin interface's Unix socket is there, and the secrets that `secrets.write` writes.
    Without it the configuration has no TLS, and without an `admin_port` too the interface gets any free port on
    loopback.

    Raises `BridgeError` if the file is missing, is not YAML, or lacks a part that has to be filled in, and if the name
    `http_host` cannot be resolved.
    """
    path = config.config_file or _shipped("envoy.yaml", "envoy.yaml")
    document = _load(path)
    try:
        _fill_in(document, config, folder)
    except _MissingPartError as missing:
        raise BridgeError(f"{path}: there is no {missing}") from None
    return json.dumps(document, indent=1)


def encrypts(config: BridgeConfig) -> bool:
    """Whether envoy.yaml itself says how its listener is encrypted. Raises `BridgeError` like `render`."""
    if config.config_file is None:
        return False
    listener = _named(_part(_part(_load(config.config_file), "static_resources"), "listeners"), LISTENER, "listener")
    return all("transport_socket" in chain for chain in _part(listener, "filter_chains"))


def _shipped(packaged: str, in_checkout: str) -> Path:
    """Return the path of a file that is beside the code in a wheel, and elsewhere in a checkout."""
    here = Path(__file__).resolve().parent
    beside = here / packaged
    return beside if beside.exists() else here.parents[1] / in_checkout


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BridgeError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BridgeError(f"{path} is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BridgeError(f"{path}{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise BridgeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


class _MissingPartError(Exception):
    """A part of the document is missing. The message is its name."""


def _fill_in(document: Any, config: BridgeConfig, folder: Path | None) -> None:
    resources = _part(document, "static_resources")
    listener = _named(_part(resources, "listeners"), LISTENER, "listener")
    listener["address"] = _socket_address(ip_address(config.http_host), config.http_port)
    _fill_in_transcoder(listener, config)
    clusters = _part(resources, "clusters")
    _fill_in_servers(_named(clusters, CLUSTER, "cluster"), config, folder)
    for cluster in clusters:
        if isinstance(cluster, dict) and cluster.get("name") == STREAMS:
            _fill_in_servers(cluster, config, folder)
    if config.tls is not None or config.upstream_tls is not None:
        document.setdefault("node", {"id": CLUSTER, "cluster": CLUSTER})  # Envoy asks for it where it reads secrets
    if folder is not None and config.tls is not None:
        for chain in _part(listener, "filter_chains"):
            chain["transport_socket"] = secrets.downstream(folder, config.tls)
            chain["transport_socket_connect_timeout"] = secrets.HANDSHAKE_TIMEOUT
    if folder is not None and not config.admin_port:
        # 0600: every program that can connect can stop Envoy.
        document["admin"] = {"address": {"pipe": {"path": str(folder / ADMIN_SOCKET), "mode": 0o600}}}
    else:
        document["admin"] = {"address": _socket_address("127.0.0.1", config.admin_port)}


def _fill_in_servers(cluster: dict[str, Any], config: BridgeConfig, folder: Path | None) -> None:
    if any(isinstance(upstream, Path) for upstream in config.upstreams):
        cluster["type"] = "STATIC"  # no name has to be looked up, and a path is none
    endpoints = [{"endpoint": {"address": _address(upstream)}} for upstream in config.upstreams]
    cluster["load_assignment"] = {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": endpoints}]}
    if folder is not None and config.upstream_tls is not None:
        names = [_server_name(upstream[0]) for upstream in config.upstreams if not isinstance(upstream, Path)]
        cluster["transport_socket"] = secrets.upstream(folder, config.upstream_tls, names)


def _server_name(host: str) -> dict[str, Any]:
    """Return what a server's certificate must name."""
    try:
        return {"san_type": "IP_ADDRESS", "matcher": {"exact": str(ipaddress.ip_address(host))}}
    except ValueError:
        return {"san_type": "DNS", "matcher": {"exact": host}}


def _fill_in_transcoder(listener: dict[str, Any], config: BridgeConfig) -> None:
    chains = _part(listener, "filter_chains")
    managers = [
        connection["typed_config"]
        for chain in (chains if isinstance(chains, list) else [])
        for connection in _part(chain, "filters")
        if isinstance(connection, dict) and "http_filters" in (connection.get("typed_config") or {})
    ]
    if not managers:
        raise _MissingPartError(f"http_connection_manager in the listener {LISTENER!r}")
    for manager in managers:
        settings = _part(_named(manager["http_filters"], TRANSCODER, "http filter"), "typed_config")
        settings["max_request_body_size"] = config.body_limit + BODY_MARGIN
        buffer = _part(_named(manager["http_filters"], BUFFER, "http filter"), "typed_config")
        buffer["max_request_bytes"] = config.body_limit + BODY_MARGIN + _TRANSCODED_MARGIN
        _fill_in_marker(manager, config)
        if config.hsts:
            header = {"key": "strict-transport-security", "value": f"max-age={config.hsts}"}
            _headers(manager)["response_mutations"].append({"append": {"header": header}})
        for host in _virtual_hosts(manager):
            _fill_in_host(host, config)
        # A relative path would depend on the folder in which Envoy starts. An absolute path was chosen by the operator.
        if not Path(settings.get("proto_descriptor", "")).is_absolute():
            descriptor = _shipped("headgate.binpb", "generated/headgate.binpb")
            if not descriptor.exists():
                raise BridgeError(f"{descriptor} is missing")
            settings["proto_descriptor"] = str(descriptor)


def _headers(manager: dict[str, Any]) -> dict[str, Any]:
    """Return the mutations of headers."""
    settings = _part(_named(manager["http_filters"], HEADERS, "http filter"), "typed_config")
    mutations: dict[str, Any] = _part(settings, "mutations")
    mutations.setdefault("response_mutations", [])
    return mutations


def _fill_in_marker(manager: dict[str, Any], config: BridgeConfig) -> None:
    for mutation in _part(_headers(manager), "request_mutations"):
        header = mutation.get("append", {}).get("header", {})
        if header.get("key") == BRIDGE_HEADER:
            header["value"] = config.marker
            return
    raise _MissingPartError(f"mutation of {BRIDGE_HEADER}")


def _virtual_hosts(manager: dict[str, Any]) -> list[dict[str, Any]]:
    hosts = (manager.get("route_config") or {}).get("virtual_hosts") or []
    return [host for host in hosts if isinstance(host, dict)]


def _fill_in_host(host: dict[str, Any], config: BridgeConfig) -> None:
    if "request_body_buffer_limit" in host:
        # The limit of a body that Envoy keeps for a retry. A larger body would fail.
        host["request_body_buffer_limit"] = config.body_limit + BODY_MARGIN
    if config.cors_origins:
        policy = _part(_part(host, "typed_per_filter_config"), CORS)
        policy["allow_origin_string_match"] = [{"exact": origin} for origin in config.cors_origins]


def _address(upstream: tuple[str, int] | Path) -> dict[str, Any]:
    return {"pipe": {"path": str(upstream)}} if isinstance(upstream, Path) else _socket_address(*upstream)


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def ip_address(host: str) -> str:
    """Return an address of `host`: Envoy listens only on addresses. Raises `BridgeError` if the name is unknown."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BridgeError(f"cannot listen on {host!r}: {error.strerror}") from error
    # IPv4 first: that is the usual meaning of localhost.
    return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])


def _part(parent: Any, key: str) -> Any:
    if not isinstance(parent, dict) or not parent.get(key):
        raise _MissingPartError(key)
    return parent[key]


def _named(items: Any, name: str, kind: str) -> dict[str, Any]:
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and item.get("name") == name:
            return item
    raise _MissingPartError(f"{kind} named {name!r}")
