"""What the log says of commits that fail: class and code, and never a value that a caller sent."""

from pathlib import Path

import grpc
import orjson
import pytest
from structlog.testing import capture_logs

from headgate_server.core.settle import Settlement
from headgate_server.process import logs
from tests.support import database
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.service import ServerProcess, make_key
from tests.support.waiting import until_true

SECRET = "very-secret-content"
STATES = {"53100": "disk_full", "22P02": "", "23514": "check_violation", "P0001": "raise", "XX000": "internal_server"}
_QUOTES = """
CREATE FUNCTION quote_event() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '%', NEW.subject USING ERRCODE = '{state}', DETAIL = NEW.subject, HINT = NEW.subject; END $$
"""


async def test_errors_that_quote_an_event(postgres_url: str, tmp_path: Path) -> None:
    """The database's own message has the event, in the append and where refused events are kept. No log has it."""
    key, log = await make_key(postgres_url), tmp_path / "log"
    async with (
        ServerProcess(postgres_url, "--log-level", "debug", log=log) as server,
        Caller(server.port, key) as caller,
    ):
        for state in STATES:
            await database.execute(postgres_url, _QUOTES.format(state=state))
            await database.execute(
                postgres_url, "CREATE TRIGGER q BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION quote_event()"
            )
            refusal = await refused(caller.batch(event(SECRET, {"x": SECRET}, subject=SECRET)))
            assert refusal.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT)
            assert SECRET not in refusal.message
            await database.execute(postgres_url, "DROP FUNCTION quote_event CASCADE")
        await database.execute(postgres_url, _QUOTES.format(state="P0001").replace("NEW.subject", f"'{SECRET}'"))
        await database.execute(
            postgres_url, "CREATE TRIGGER q BEFORE INSERT ON rejections FOR EACH ROW EXECUTE FUNCTION quote_event()"
        )
        await caller.batch(event(SECRET, subject=SECRET, type=""))
        until_true(lambda: b"rejections" in log.read_bytes())
    text = log.read_text()
    assert SECRET not in text
    lines = [orjson.loads(line) for line in text.splitlines()]
    causes = {line["sqlstate"]: line for line in lines if line["event"] == "append_failed"}
    assert causes["53100"]["condition"] == "disk_full"
    assert set(causes) >= {"53100", "XX000", "P0001"}
    assert {line["event"] for line in lines} >= {"append_failed", "data_refused"}


@on_sqlite
async def test_a_bug_in_the_append(service: Service, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message may quote an event. The log has its class, and where it came from."""

    def bug(*_: object) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr(Settlement, "decide", bug)
    with capture_logs() as lines:
        assert (await refused(caller.batch(event(SECRET)))).code is grpc.StatusCode.INTERNAL
    assert SECRET not in str(lines)
    by_event = {line["event"]: line for line in lines}
    assert by_event["append_failed"]["error"] == by_event["call_failed"]["error"] == "KeyError"
    assert by_event["append_failed"]["where"][-1].endswith(" bug")
    assert by_event["call_failed"]["request_id"]


def test_a_driver_s_message_is_in_no_traceback() -> None:
    from pysqlite3 import dbapi2 as driver

    try:
        try:
            raise driver.OperationalError(SECRET)
        except driver.OperationalError as error:
            raise RuntimeError("our own words") from error
    except RuntimeError as error:
        text = logs._traceback(error)
    assert SECRET not in text
    assert "pysqlite3" in text.lower() or "sqlite3" in text.lower()
    assert text.endswith("RuntimeError: our own words")
    assert text.index("OperationalError") < text.index("our own words")


@pytest.mark.parametrize("form", ["json", "console"])
async def test_the_form_of_the_log(sqlite_url: str, tmp_path: Path, form: str) -> None:
    """In a file it is JSON, unless the operator wants lines for people; those have no colours there."""
    key, log = await make_key(sqlite_url), tmp_path / "log"
    arguments = ("--log-format", form) if form == "console" else ()
    server = ServerProcess(sqlite_url, "--log-level", "info", *arguments, log=log)
    async with server, Caller(server.port, key) as caller:
        await caller.batch(event("k"))
    lines = [line for line in log.read_text().splitlines() if "BatchIngest" in line]
    assert len(lines) == 1
    assert "\x1b" not in lines[0]
    if form == "json":
        assert orjson.loads(lines[0])["code"] == "OK"
    else:
        assert "[info" in lines[0]
        assert "code=OK" in lines[0]
