"""The database that a PostgreSQL URL names: libpq's parameters, each kept, or refused with a word of its own.

The source of every rule is libpq's documentation, "Database Connection Control Functions". The driver reads URLs too,
but it takes what it does not know for a setting of the server, and tries several hosts within one time limit. What
libpq promises and the driver cannot keep is refused: a connection is never weaker than its URL says.
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
"""Seconds for a connection to a host to be made, unless `connect_timeout` says otherwise: a call waits for it."""

LONGEST_CONNECT = 6.0
"""Seconds for all hosts together, which share them evenly: within the store's deadline, so that a host that is silent
leaves time for the next."""

USER_TIMEOUT = 4_000
"""Milliseconds that sent bytes may stay unacknowledged before the connection is given up: the `tcp_user_timeout` that
holds without one in the URL. A dropped connection is found within it, and a lost packet is sent again five times."""

KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""Seconds and probes that hold without others in the URL: a way that drops idle connections after some minutes keeps
these, and a dead one is found within eleven seconds although nobody uses it."""


class Target(NamedTuple):
    """Where to connect to, and how."""

    hosts: tuple[tuple[str, int], ...]
    """A name, an address or the folder of a socket, with the port. Without one: where libpq looks for a socket."""
    arguments: Mapping[str, Any]
    """What the driver is told for every host."""
    connect_timeout: float
    """Seconds for each host."""
    balanced: bool
    """Whether the hosts are tried in random order."""
    sockets: Mapping[str, int]
    """TCP's keepalives and user timeout, by libpq's names; 0: the system's own."""


def parse(url: str, environment: Mapping[str, str] = os.environ) -> Target:
    """Return what a URL names. The environment's `PG*` variables and the service file say what the URL does not.

    Raises `SetupError`, whose message holds no value of the URL that may be secret.
    """
    authority, _, query = url.partition("://")[2].partition("?")
    given = _with_defaults(_authority(authority) | _query(query), environment)
    for name in given:
        if name not in _KNOWN and name not in _RULES:
            raise _unknown(name, query)
    for name, rule in _RULES.items():
        if given.get(name):
            rule(name, given[name])
    hosts = _hosts(given)
    return Target(
        hosts,
        _arguments(given, hosts),
        _connect_timeout(given, len(hosts)),
        given.get("load_balance_hosts") == "random",
        _socket_options(given),
    )


def _arguments(given: Mapping[str, str], hosts: Sequence[tuple[str, int]]) -> dict[str, Any]:
    settings = {"application_name": given.get("application_name") or given.get("fallback_application_name", "headgate")}
    if given.get("options"):
        settings["options"] = given["options"]
    return {
        **{name: given[key] for key, name in _DRIVER.items() if given.get(key)},
        **_tls(given),
        "server_settings": settings,
        "target_session_attrs": _session(given, hosts),
    }


def _connect_timeout(given: Mapping[str, str], hosts: int) -> float:
    """Return the seconds for each host: what was given, as far as a caller can wait for it, 0 and less for any."""
    wanted = _integer("connect_timeout", given.get("connect_timeout", "0"))
    return min(wanted if wanted > 0 else CONNECT_TIMEOUT, LONGEST_CONNECT / hosts)


def _authority(authority: str) -> dict[str, str]:
    """Return user, password, hosts, ports and database of what stands before the question mark."""
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
    """Return the parameters behind the question mark. A plus sign is a plus sign, as in libpq."""
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, separator, value = pair.partition("=")
        if not separator or not name or "=" in value:
            raise _misread()
        found[_decoded(name)] = _decoded(value)
    if found.get("ssl") == "true":  # JDBC's word, which libpq takes in a URL
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


def _with_defaults(given: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return what was given, and below it the service file's words, and below those the environment's."""
    service = given.pop("service", environment.get("PGSERVICE", ""))
    file = given.pop("servicefile", environment.get("PGSERVICEFILE", "")) or str(
        Path("~/.pg_service.conf").expanduser()
    )
    defaults = {name: environment[variable] for variable, name in _ENVIRONMENT.items() if environment.get(variable)}
    return defaults | (_service(service, file) if service else {}) | given


def _service(name: str, file: str) -> dict[str, str]:
    services = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    try:
        services.read_string(Path(file).expanduser().read_text())
    except (OSError, configparser.Error, UnicodeDecodeError):
        raise SetupError(f"The service file {file} of the store URL cannot be read.") from None
    if name not in services:
        raise SetupError(f"The service file {file} has no service {name!r}.")
    return dict(services[name])


def _hosts(given: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    hosts = given.get("host", "").split(",")
    ports = given.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise SetupError(
            f"The store URL names {len(hosts)} hosts and {len(ports)} ports: give one port, or one a host."
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


def _session(given: Mapping[str, str], hosts: Sequence[tuple[str, int]]) -> str:
    """Return which kind of session is wanted: headgate writes, so of several hosts it takes the one that can."""
    wanted = given.get("target_session_attrs") or "any"
    if wanted in ("standby", "prefer-standby", "read-only"):
        raise _bad("target_session_attrs", "headgate writes: use read-write or primary")
    if wanted not in ("any", "read-write", "primary"):
        raise _bad("target_session_attrs", "use read-write, primary or any")
    return "read-write" if wanted == "any" and "host" in given and len(hosts) > 1 else wanted


def _socket_options(given: Mapping[str, str]) -> dict[str, int]:
    options = {"tcp_user_timeout": _integer("tcp_user_timeout", given.get("tcp_user_timeout", str(USER_TIMEOUT)))}
    options["keepalives"] = _integer("keepalives", given.get("keepalives", "1"))
    for name, value in KEEPALIVES.items():
        options[name] = _integer(name, given.get(name, str(value)))
    return options


def _tls(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the driver's arguments for TLS: a URL of its own with what it reads from no other place, or a context."""
    mode = given.get("sslmode", "")
    if mode not in ("", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"):
        raise _bad("sslmode", "use disable, allow, prefer, require, verify-ca or verify-full")
    for name in ("sslcert", "sslkey", "sslcrl", "sslrootcert"):
        file = given.get(name)
        if file and not (name == "sslrootcert" and file == "system") and not os.access(file, os.R_OK):
            raise _bad(name, "it names a file that cannot be read")
    direct = given.get("sslnegotiation") == "direct"
    if direct and mode in ("", "disable", "allow", "prefer") and given.get("sslrootcert") != "system":
        raise _bad("sslnegotiation", "direct needs sslmode=require, verify-ca or verify-full")
    if given.get("sslrootcert") == "system":
        if mode not in ("", "verify-full"):
            raise _bad("sslrootcert", "with sslrootcert=system only sslmode=verify-full is safe")
        return {"ssl": _system_context(given), "direct_tls": direct}
    words = {name: given[name] for name in _TLS if given.get(name)}
    return {"dsn": f"postgresql://?{urlencode(words)}"} if words else {}


def _system_context(given: Mapping[str, str]) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, which the driver has no word for, and checks the name."""
    context = ssl.create_default_context()
    try:
        if given.get("sslcert"):
            context.load_cert_chain(given["sslcert"], given.get("sslkey"), given.get("sslpassword", ""))
        if given.get("sslcrl"):
            context.load_verify_locations(given["sslcrl"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        for name, attribute in (
            ("ssl_min_protocol_version", "minimum_version"),
            ("ssl_max_protocol_version", "maximum_version"),
        ):
            if given.get(name):
                setattr(context, attribute, ssl.TLSVersion[given[name].replace(".", "_")])
    except (ssl.SSLError, KeyError, ValueError) as error:
        raise SetupError("The store URL's certificates or TLS versions cannot be used.") from error
    return context


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise _bad(name, "it is no whole number") from None


def _only(*allowed: str, instead: str) -> Callable[[str, str], None]:
    """Return a rule that refuses every value but these."""

    def check(name: str, value: str) -> None:
        if value not in allowed:
            raise _bad(name, instead)

    return check


def _bad(name: str, why: str) -> SetupError:
    return SetupError(f"The store URL's {name} cannot be kept: {why}.")


def _misread() -> SetupError:
    # Nothing is quoted: any part of it may be a part of the password.
    return SetupError(
        "The store URL cannot be read: check its port, its parameters, and that %, @, /, ?, & and : "
        "in its password are percent-encoded."
    )


def _unknown(name: str, query: str) -> SetupError:
    # With an @ behind the question mark, the "parameter" may be the end of a password that was not percent-encoded.
    if "@" in query or not re.fullmatch(r"[A-Za-z_]{1,40}", name):
        return _misread()
    return SetupError(
        f"The store URL's parameter {name} is none of libpq's; "
        f"a setting of the server's goes into options=-c%20{name}%3D…, and what is meant for another driver goes out."
    )


_DRIVER = {
    "user": "user",
    "password": "password",
    "dbname": "database",
    "passfile": "passfile",
    "krbsrvname": "krbsrvname",
    "gsslib": "gsslib",
}
"""What is handed to the driver as it is, by its name for it."""

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
        "which shows that the server is the right one by its certificate",
    ),
    "gssencmode": _only("disable", "prefer", instead="the driver does not encrypt by GSSAPI; use sslmode"),
    "gssdelegation": _only("0", instead="the driver delegates no credentials"),
    "require_auth": _only(instead="the driver cannot refuse a way to authenticate; leave it out, and use sslmode"),
    "requirepeer": _only(instead="the driver cannot check who owns a socket; leave it out"),
    "hostaddr": _only(instead="the driver has one name for both; give the address as the host"),
    "sslcertmode": _only("allow", instead="the driver knows sslcertmode=allow alone"),
    "sslcrldir": _only(instead="the driver takes revocations from one file; use sslcrl"),
    "sslsni": _only("1", instead="the driver always names the server to TLS"),
    "ssl_min_protocol_version": _only("TLSv1.2", "TLSv1.3", instead="use TLSv1.2 or TLSv1.3"),
    "ssl_max_protocol_version": _only("TLSv1.2", "TLSv1.3", instead="use TLSv1.2 or TLSv1.3"),
    "sslcompression": _only("0", "1", instead="use 0"),  # libpq has ignored it since 14: nothing is compressed
    "load_balance_hosts": _only("disable", "random", instead="use disable or random"),
    "client_encoding": _only("auto", "UTF8", "utf8", "UTF-8", "utf-8", "UNICODE", instead="headgate speaks UTF8"),
    "replication": _only("0", "off", "false", "no", instead="headgate speaks SQL"),
    "min_protocol_version": _only("3.0", instead="the driver speaks 3.0"),
    "max_protocol_version": _only("3.0", "3.2", "latest", instead="use 3.0 or leave it out"),
    **{
        name: _only(instead="the driver does not know it; leave it out")
        for name in ("scram_client_key", "scram_server_key", "sslkeylogfile", "oauth_issuer", "oauth_client_id")
    },
}
"""What is kept as it is, or refused."""

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
"""What the functions above read, beside `_RULES`."""

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
