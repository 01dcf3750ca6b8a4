"""libpq's parameters in a store URL: each is honoured, or refused with its own message."""

import ssl
from pathlib import Path

import pytest

from headgate_server.core.errors import SetupError
from headgate_server.store.postgres.target import CONNECT_TIMEOUT, LONGEST_CONNECT, USER_TIMEOUT, parse


def _refusal(url: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SetupError) as raised:
        parse(url, environment or {})
    message = str(raised.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u@h/d", [("h", 5432)]),
        ("postgres://u@h:6432/d", [("h", 6432)]),
        ("postgresql://u@[::1]:6000/d", [("::1", 6000)]),
        ("postgresql://u@a,b:6000,[::1]/d", [("a", 5432), ("b", 6000), ("::1", 5432)]),
        ("postgresql://u@/d?host=/run/x", [("/run/x", 5432)]),
        ("postgresql:///d?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///d?host=a,b&port=7", [("a", 7), ("b", 7)]),
        ("postgresql://u@%2Frun%2Fx/d", [("/run/x", 5432)]),
    ],
)
def test_hosts(url: str, hosts: list[tuple[str, int]]) -> None:
    assert list(parse(url, {}).hosts) == hosts


def test_credentials_are_decoded_once_and_a_plus_is_a_plus() -> None:
    arguments = parse("postgresql://us%40er:p%25a%2F+%3F@h/d%20b?application_name=a+b%20c", {}).arguments
    assert (arguments["user"], arguments["password"], arguments["database"]) == ("us@er", "p%a/+?", "d b")
    assert arguments["server_settings"] == {"application_name": "a+b c"}
    assert parse("postgresql://h/d?user=u&password=a+b", {}).arguments["password"] == "a+b"


def test_what_hosters_append_is_kept() -> None:
    found = parse(
        "postgres://u:p@h/d?sslmode=require&channel_binding=prefer&connect_timeout=3&keepalives=1&keepalives_idle=30"
        "&keepalives_interval=10&keepalives_count=5&tcp_user_timeout=9000&target_session_attrs=read-write"
        "&gssencmode=disable&options=-c%20geqo%3Doff&application_name=shop&passfile=/x&ssl_min_protocol_version=TLSv1.3",
        {},
    )
    assert found.connect_timeout == 3
    assert found.sockets == {
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 5,
        "tcp_user_timeout": 9000,
    }
    assert found.arguments["target_session_attrs"] == "read-write"
    assert found.arguments["server_settings"] == {"application_name": "shop", "options": "-c geqo=off"}
    assert found.arguments["passfile"] == "/x"
    assert found.arguments["dsn"] == "postgresql://?sslmode=require&ssl_min_protocol_version=TLSv1.3"


def test_what_holds_without_a_word() -> None:
    found = parse("postgresql://u@h/d", {})
    assert found.connect_timeout == CONNECT_TIMEOUT
    assert found.sockets["tcp_user_timeout"] == USER_TIMEOUT
    assert found.sockets["keepalives"] == 1
    assert found.arguments["server_settings"] == {"application_name": "headgate"}
    assert found.arguments["target_session_attrs"] == "any"
    # The service finds the host that accepts writes.
    several = parse("postgresql://u@a,b,c/d?connect_timeout=30", {})
    assert several.arguments["target_session_attrs"] == "read-write"
    assert several.connect_timeout == LONGEST_CONNECT / 3
    assert parse("postgresql://u@a,b/d?load_balance_hosts=random", {}).balanced


_REFUSED = {
    "channel_binding=require": "verify-full",
    "gssencmode=require": "sslmode",
    "require_auth=scram-sha-256": "require_auth",
    "requirepeer=postgres": "requirepeer",
    "hostaddr=10.0.0.1": "host",
    "sslcertmode=require": "sslcertmode",
    "sslcrldir=/x": "sslcrl",
    "sslsni=0": "sslsni",
    "sslmode=bogus": "verify-full",
    "sslmode=verify_full": "verify-full",
    "sslmode=require&sslrootcert=system": "verify-full",
    "sslnegotiation=direct&sslmode=prefer": "require",
    "sslrootcert=/nowhere/ca.crt": "sslrootcert",
    "sslcert=/nowhere/me.crt": "sslcert",
    "target_session_attrs=standby": "read-write",
    "target_session_attrs=prefer-standby": "read-write",
    "target_session_attrs=read-only": "read-write",
    "target_session_attrs=bogus": "read-write",
    "client_encoding=LATIN1": "UTF8",
    "replication=database": "replication",
    "min_protocol_version=3.2": "3.0",
    "load_balance_hosts=always": "random",
    "connect_timeout=soon": "connect_timeout",
    "keepalives_idle=x": "keepalives_idle",
    "port=70000": "65535",
    "pgbouncer=true": "pgbouncer",
    "schema=public": "options",
    "statement_timeout=0": "options",
    "ssl=maybe": "ssl",
    "service=nowhere&servicefile=/nowhere": "/nowhere",
}


@pytest.mark.parametrize("query", _REFUSED)
def test_what_cannot_be_kept_is_refused_with_a_word(query: str) -> None:
    assert _REFUSED[query] in _refusal(f"postgresql://u:s3cret@h/d?{query}")


@pytest.mark.parametrize("name", ["channel_binding", "gssencmode", "require_auth", "sslmode"])
def test_the_environment_cannot_weaken_what_it_asks_for(name: str) -> None:
    variable, value = f"PG{name.replace('_', '').upper()}", "bogus"
    assert name in _refusal("postgresql://u@h/d", {variable: value})
    # The URL takes precedence.
    parse(
        f"postgresql://u@h/d?{name}=" + {"require_auth": "", "sslmode": "require"}.get(name, "disable"), {variable: ""}
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret/x@h/d",
        "postgresql://u:s3cret@x@h/d",
        "postgresql://u:s3cret:x@h:y/d",
        "postgresql://u:pa?s3cret=word@h/d",
        "postgresql://u:pa&s3cret@h:5x/d",
        "postgresql://u:s3cret%zz@h/d",
        "postgresql://u:s3cret%ff@h/d",
        "postgresql://h/d?password=s3cret&bogus=1@x",
        "postgresql://h/d?password=s3cret=x",
        "postgresql://h/d?s3cret",
    ],
)
def test_a_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    assert "s3cret" not in _refusal(url)


def test_jdbc_s_word_for_tls() -> None:
    assert parse("postgresql://u@h/d?ssl=true", {}).arguments["dsn"] == "postgresql://?sslmode=require"


def test_the_system_s_authorities_check_the_name() -> None:
    context = parse("postgresql://u@h/d?sslrootcert=system", {}).arguments["ssl"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    _refusal("postgresql://u@h/d?sslrootcert=system&ssl_min_protocol_version=TLSv9")


def test_a_service_file_says_what_the_url_does_not(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("[shop]\nhost=a\nport=6000\npassword=p%x\nuser=x\n[strict]\nchannel_binding=require\n")
    found = parse("postgresql://u@/d?service=shop", {"PGSERVICEFILE": str(file), "PGPORT": "1"})
    assert found.hosts == (("a", 6000),)
    assert (found.arguments["user"], found.arguments["password"]) == ("u", "p%x")
    assert "channel_binding" in _refusal(f"postgresql:///d?service=strict&servicefile={file}")
    assert "'other'" in _refusal(f"postgresql:///d?service=other&servicefile={file}")
