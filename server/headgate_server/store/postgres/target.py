"""Reads a PostgreSQL URL with libpq's parameters. Each parameter is honoured, or refused with its own message.

The source of every rule is libpq's documentation, "Database Connection Control Functions". The driver reads URLs too,
but it treats an unknown parameter as a setting of the server, and tries several hosts within one time limit. If the
driver cannot honour a parameter of libpq, it is refused: a connection is never less secure than its URL says.
"""

import configparser
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode

from headgate_server.core.errors import SetupError

CONNECT_TIMEOUT = 5.0
"""Seconds to connect to one host, unless the URL has `connect_timeout`. A call waits during this time."""

LONGEST_CONNECT = 6.0
"""Seconds for all hosts together, evenly divided. This is less than the store's deadline, so that a host that does not
answer leaves time for the next."""

USER_TIMEOUT = 4_000
"""The default of `tcp_user_timeout`: milliseconds that sent bytes may stay unacknowledged before the connection is
closed. A dropped connection is detected in this time, and a lost packet is sent again five times."""

KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""The defaults of the keepalives, in seconds and probes. A firewall that drops connections after idle minutes does not
drop these, and an unused dead connection is detected within eleven seconds."""


class Target(NamedTuple):
    """Where to connect to, and how."""

    hosts: tuple[tuple[str, int], ...]
    """A name, an address or a socket's folder, with the port. If the URL has none: the folders where libpq looks."""
    arguments: Mapping[str, Any]
    """The driver's arguments, the same for every host."""
    connect_timeout: float
    """Seconds for each host."""
    balanced: bool
    """Whether the hosts are tried in random order."""
    sockets: Mapping[str, int]
    """TCP's keepalives and user timeout, by libpq's names. 0 means the system's default."""


def parse(url: str, environment: Mapping[str, str] = os.environ) -> Target:
    """Return the target of a URL. The service file and the environment's `PG*` variables give what the URL lacks.

    Raises `SetupError`; its message contains no value of the URL that may be secret.
    """
    authority, _, query = url.partition("://")[2].partition("?")
    parameters = _with_defaults(_authority(authority) | _query(query), environment)
    for name in parameters:
        if name not in _KNOWN and name not in _RULES:
            raise _unknown(name, query)
    for name, rule in _RULES.items():
        if parameters.get(name):
            rule(name, parameters[name])
    hosts = _hosts(parameters)
    return Target(
        hosts,
        _arguments(parameters, hosts),
        _connect_timeout(parameters, len(hosts)),
        parameters.get("load_balance_hosts") == "random",
        _socket_options(parameters),
    )


def _arguments(parameters: Mapping[str, str], hosts: Sequence[tuple[str, int]]) -> dict[str, Any]:
    settings = {
        "application_name": parameters.get("application_name")
        or parameters.get("fallback_application_name", "headgate")
    }
    if parameters.get("options"):
        settings["options"] = parameters["options"]
    return {
        **{name: parameters[key] for key, name in _DRIVER.items() if parameters.get(key)},
        **_tls(parameters),
        "server_settings": settings,
        "target_session_attrs": _session(parameters, hosts),
    }


def _connect_timeout(parameters: Mapping[str, str], hosts: int) -> float:
    """Return the seconds for each host. 0 and less mean the default. Callers wait, so there is an upper limit."""
    seconds = _integer("connect_timeout", parameters.get("connect_timeout", "0"))
    return min(seconds if seconds > 0 else CONNECT_TIMEOUT, LONGEST_CONNECT / hosts)


def _authority(authority: str) -> dict[str, str]:
    """Return user, password, hosts, ports and database from the text before the question mark."""
    before, _, database = authority.partition("/")
    credentials, _, hosts = before.rpartition("@")
    if "@" in credentials:
        raise _misread()
    user, _, password = credentials.partition(":")
    found = {"user": user, "password": password, "dbname": database}
    names, ports = [], []
    for host in hosts.split(","):
        matched = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]*)(?::(\d*))?", host)
        if matched is None:
            raise _misread()
        names.append(matched[1].strip("[]"))
        ports.append(matched[2] or "")
    if any(names) or any(ports):
        found |= {"host": ",".join(names), "port": ",".join(ports)}
    return {name: _decoded(value) for name, value in found.items() if value}


def _query(query: str) -> dict[str, str]:
    """Return the parameters after the question mark. A plus sign means itself, not a space, as in libpq."""
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, separator, value = pair.partition("=")
        if not separator or not name or "=" in value:
            raise _misread()
        found[_decoded(name)] = _decoded(value)
    if found.get("ssl") == "true":  # JDBC's parameter, which libpq accepts in a URL
        del found["ssl"]
        found.setdefault("sslmode", "require")
    return found


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise _misread()
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _misread() from None


def _with_defaults(parameters: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters. The service file gives those that the URL lacks, the environment those that both lack."""
    service = parameters.pop("service", environment.get("PGSERVICE", ""))
    file = parameters.pop("servicefile", environment.get("PGSERVICEFILE", "")) or str(
        Path("~/.pg_service.conf").expanduser()
    )
    defaults = {name: environment[variable] for variable, name in _ENVIRONMENT.items() if environment.get(variable)}
    return defaults | (_service(service, file) if service else {}) | parameters


def _service(name: str, file: str) -> dict[str, str]:
    services = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    try:
        services.read_string(Path(file).expanduser().read_text())
    except (OSError, configparser.Error, UnicodeDecodeError):
        raise SetupError(f"The service file {file} of the store URL cannot be read.") from None
    if name not in services:
        raise SetupError(f"The service file {file} has no service {name!r}.")
    return dict(services[name])


def _hosts(parameters: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    hosts = parameters.get("host", "").split(",")
    ports = parameters.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise SetupError(
            f"The store URL names {len(hosts)} hosts and {len(ports)} ports: give one port, or one for each host."
        )
    if any(host.startswith("@") for host in hosts):
        raise SetupError("The store URL names an abstract socket, which the driver cannot reach: give the folder.")
    numbers = [_integer("port", port or "5432") for port in ports]
    if any(not 0 < number < 65536 for number in numbers):
        raise _bad("port", "a port is 1 to 65535")
    if not any(hosts):
        return tuple((folder, numbers[0]) for folder in _SOCKET_FOLDERS)
    return tuple((host or "localhost", number) for host, number in zip(hosts, numbers, strict=True))


_SOCKET_FOLDERS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "localhost")  # noqa: S108 - where libpq looks


def _session(parameters: Mapping[str, str], hosts: Sequence[tuple[str, int]]) -> str:
    """Return the required kind of session. headgate writes, so of several hosts it uses one that accepts writes."""
    session = parameters.get("target_session_attrs") or "any"
    if session in ("standby", "prefer-standby", "read-only"):
        raise _bad("target_session_attrs", "headgate writes: use read-write or primary")
    if session not in ("any", "read-write", "primary"):
        raise _bad("target_session_attrs", "use read-write, primary or any")
    return "read-write" if session == "any" and "host" in parameters and len(hosts) > 1 else session


def _socket_options(parameters: Mapping[str, str]) -> dict[str, int]:
    options = {"tcp_user_timeout": _integer("tcp_user_timeout", parameters.get("tcp_user_timeout", str(USER_TIMEOUT)))}
    options["keepalives"] = _integer("keepalives", parameters.get("keepalives", "1"))
    for name, value in KEEPALIVES.items():
        options[name] = _integer(name, parameters.get(name, str(value)))
    return options


def _tls(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the driver's arguments for TLS: a context, or a URL with the parameters that the driver reads only
    there.
    """
    mode = parameters.get("sslmode", "")
    if mode not in ("", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"):
        raise _bad("sslmode", "use disable, allow, prefer, require, verify-ca or verify-full")
    for name in ("sslcert", "sslkey", "sslcrl", "sslrootcert"):
        file = parameters.get(name)
        if file and not (name == "sslrootcert" and file == "system") and not os.access(file, os.R_OK):
            raise _bad(name, "the file cannot be read")
    direct = parameters.get("sslnegotiation") == "direct"
    if direct and mode in ("", "disable", "allow", "prefer") and parameters.get("sslrootcert") != "system":
        raise _bad("sslnegotiation", "direct needs sslmode=require, verify-ca or verify-full")
    if parameters.get("sslrootcert") == "system":
        if mode not in ("", "verify-full"):
            raise _bad("sslrootcert", "with sslrootcert=system only sslmode=verify-full is safe")
        return {"ssl": _system_context(parameters), "direct_tls": direct}
    settings = {name: parameters[name] for name in _TLS if parameters.get(name)}
    return {"dsn": f"postgresql://?{urlencode(settings)}"} if settings else {}


def _system_context(parameters: Mapping[str, str]) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities and checks the host name. The driver has no setting
    for it.
    """
    context = ssl.create_default_context()
    try:
        if parameters.get("sslcert"):
            context.load_cert_chain(parameters["sslcert"], parameters.get("sslkey"), parameters.get("sslpassword", ""))
        if parameters.get("sslcrl"):
            context.load_verify_locations(parameters["sslcrl"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        for name, attribute in (
            ("ssl_min_protocol_version", "minimum_version"),
            ("ssl_max_protocol_version", "maximum_version"),
        ):
            if parameters.get(name):
                setattr(context, attribute, ssl.TLSVersion[parameters[name].replace(".", "_")])
    except (ssl.SSLError, KeyError, ValueError) as error:
        raise SetupError("The store URL's certificates or TLS versions cannot be used.") from error
    return context


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise _bad(name, "it is not a whole number") from None


def _only(*allowed: str, instead: str) -> Callable[[str, str], None]:
    """Return a rule that refuses every value but these."""

    def check(name: str, value: str) -> None:
        if value not in allowed:
            raise _bad(name, instead)

    return check


def _bad(name: str, why: str) -> SetupError:
    return SetupError(f"The store URL's {name} cannot be used: {why}.")


def _misread() -> SetupError:
    # The message quotes nothing: any part of the URL may be a part of the password.
    return SetupError(
        "The store URL cannot be read: check its port, its parameters, and that %, @, /, ?, & and : "
        "in its password are percent-encoded."
    )


def _unknown(name: str, query: str) -> SetupError:
    # If there is an @ after the question mark, the "parameter" may be a part of a password that is not percent-encoded.
    if "@" in query or not re.fullmatch(r"[A-Za-z_]{1,40}", name):
        return _misread()
    return SetupError(
        f"The store URL's parameter {name} is not a parameter of libpq. "
        f"Write a setting of the server as options=-c%20{name}%3D…, and remove a parameter of another driver."
    )


_DRIVER = {
    "user": "user",
    "password": "password",
    "dbname": "database",
    "passfile": "passfile",
    "krbsrvname": "krbsrvname",
    "gsslib": "gsslib",
}
"""Parameters that are passed to the driver unchanged, with the driver's names for them."""

_TLS = (
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "sslnegotiation",
)

_RULES: dict[str, Callable[[str, str], None]] = {
    "sslnegotiation": _only("postgres", "direct", instead="use postgres or direct"),
    "channel_binding": _only(
        "disable",
        "prefer",
        instead="the driver has no channel binding; use channel_binding=prefer with sslmode=verify-full, "
        "so that the server's certificate proves its identity",
    ),
    "gssencmode": _only("disable", "prefer", instead="the driver does not encrypt by GSSAPI; use sslmode"),
    "gssdelegation": _only("0", instead="the driver delegates no credentials"),
    "require_auth": _only(instead="the driver cannot refuse a method of authentication; leave it out, use sslmode"),
    "requirepeer": _only(instead="the driver cannot check who owns a socket; leave it out"),
    "hostaddr": _only(instead="the driver has one setting for name and address; give the address as the host"),
    "sslcertmode": _only("allow", instead="the driver supports only sslcertmode=allow"),
    "sslcrldir": _only(instead="the driver reads revocations from one file; use sslcrl"),
    "sslsni": _only("1", instead="the driver always sends the server's name in TLS"),
    "ssl_min_protocol_version": _only("TLSv1.2", "TLSv1.3", instead="use TLSv1.2 or TLSv1.3"),
    "ssl_max_protocol_version": _only("TLSv1.2", "TLSv1.3", instead="use TLSv1.2 or TLSv1.3"),
    "sslcompression": _only("0", "1", instead="use 0"),  # libpq has ignored it since 14: nothing is compressed
    "load_balance_hosts": _only("disable", "random", instead="use disable or random"),
    "client_encoding": _only("auto", "UTF8", "utf8", "UTF-8", "utf-8", "UNICODE", instead="headgate uses UTF8"),
    "replication": _only("0", "off", "false", "no", instead="headgate uses SQL, not replication"),
    "min_protocol_version": _only("3.0", instead="the driver uses 3.0"),
    "max_protocol_version": _only("3.0", "3.2", "latest", instead="use 3.0 or leave it out"),
    **{
        name: _only(instead="the driver does not know it; leave it out")
        for name in ("scram_client_key", "scram_server_key", "sslkeylogfile", "oauth_issuer", "oauth_client_id")
    },
}
"""Parameters of which only some values are allowed."""

_KNOWN = {
    *_DRIVER,
    *_TLS,
    *KEEPALIVES,
    "host",
    "port",
    "application_name",
    "fallback_application_name",
    "options",
    "connect_timeout",
    "target_session_attrs",
    "keepalives",
    "tcp_user_timeout",
}
"""The parameters that the functions above read. `_RULES` has the others."""

_ENVIRONMENT = {
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGPASSFILE": "passfile",
    "PGOPTIONS": "options",
    "PGAPPNAME": "application_name",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGCLIENTENCODING": "client_encoding",
    "PGCHANNELBINDING": "channel_binding",
    "PGREQUIREAUTH": "require_auth",
    "PGREQUIREPEER": "requirepeer",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGSSLCERTMODE": "sslcertmode",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLCRL": "sslcrl",
    "PGSSLCRLDIR": "sslcrldir",
    "PGSSLSNI": "sslsni",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGGSSENCMODE": "gssencmode",
    "PGGSSDELEGATION": "gssdelegation",
    "PGKRBSRVNAME": "krbsrvname",
    "PGGSSLIB": "gsslib",
}
