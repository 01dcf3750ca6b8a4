"""The spool: events on disk, for one process at a time."""

import os
import sqlite3
import subprocess
import sys

import grpc
import pytest

from headgate_client import Client, NotSent, QueueFull, Retry, SpoolError, SpoolInUse
from headgate_client.core.events import prepare
from headgate_client.spool import Spool
from tests.support.waiting import until_true
from tests.unit.client.channel import FakeClock, FakeServer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
def make(server, path):
    """Return a function that makes a buffer with the spool, of a client of its own."""
    made = []

    def buffered(spool=path, **settings):
        client = Client(
            api_key="hg_x", make_channel=lambda: server.channel, clock=FakeClock(), retry=Retry(first=1.0, most=1.0)
        )
        buffer = client.buffered(**{"max_size": 3, "close_timeout": 0.0, "spool": spool, **settings})
        made.append((client, buffer))
        return buffer

    yield buffered
    for client, buffer in made:
        buffer.close(0.0)
        client.close()


def types(batch):
    return [event.type for event in batch.events]


def keys(batch):
    return [event.idempotency_key for event in batch.events]


def rows(path):
    with sqlite3.connect(path) as connection:
        (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    connection.close()
    return count


def fill(path, events):
    """Leave events in a spool, as a process that was killed does."""
    spool = Spool(path, fsync=False)
    spool.open()
    spool.add_all([(f"k{n}", prepare({"type": "t", "key": f"k{n}"}).encoded) for n in range(events)])
    spool.close()


def test_what_has_no_answer_stays_and_the_next_buffer_sends_it_first_in_order(make, server, path):
    first = make()
    tickets = [first.emit(name) for name in "abcde"]
    batch, call = server.take()
    assert types(batch) == ["a", "b", "c"]
    assert first.close(0.0) == []
    assert tickets[4].exception(0).spooled
    assert isinstance(tickets[0].exception(0), NotSent)
    call.terminate(None, (), grpc.StatusCode.UNAVAILABLE, "")
    assert rows(path) == 5
    second = make()
    for name in "fg":
        second.emit(name)
    assert types(server.accept()) == ["a", "b", "c"]
    assert types(server.accept()) == ["d", "e", "f"]
    until_true(lambda: second.stats.accepted == 6 and second.flush(0) == 1)
    second.close(0.0)
    assert rows(path) == 1
    stats = second.stats
    assert (stats.recovered, stats.emitted, stats.accepted, stats.left) == (5, 2, 6, 1)


def test_the_keys_are_the_same_in_the_next_process(make, server):
    first = make()
    sent = [first.emit(name).key for name in "abc"]
    server.take()
    first.close(0.0)
    make()
    assert keys(server.accept()) == sent


def test_stored_and_refused_events_leave_the_spool(make, server, path):
    buffer = make()
    for name in ("a", "rejected", "c"):
        buffer.emit(name)
    server.answer(lambda event: "rejected" if event.type == "rejected" else "accepted")
    assert buffer.flush(5) == 0
    buffer.close(0.0)
    assert rows(path) == 0


def test_a_wrong_key_loses_nothing(make, server, path):
    buffer = make()
    for name in "abc":
        buffer.emit(name)
    server.fail(grpc.StatusCode.UNAUTHENTICATED)
    until_true(lambda: buffer.last_problem)
    assert buffer.stats.waiting == 3
    buffer.close(0.0)
    assert rows(path) == 3


def test_a_long_backlog_is_read_in_parts_and_memory_stays_bounded(make, server, path):
    fill(path, 100)
    buffer = make(max_items=5)
    assert buffer.stats.waiting == 100
    with pytest.raises(QueueFull):
        buffer.emit("new")
    seen = []
    while len(seen) < 99:
        seen += keys(server.accept())
        assert len(buffer._feed.queue._waiting) <= 30
    until_true(lambda: buffer.stats.waiting == 1)
    ticket = buffer.emit("new")
    assert buffer.stats.waiting == 2
    buffer.emit("newer")
    seen += keys(server.accept())
    assert seen[:101] == [*(f"k{n}" for n in range(100)), ticket.key]


def test_events_that_are_emitted_behind_a_backlog_wait_on_disk_with_their_tickets(make, server, path):
    fill(path, 40)
    buffer = make()
    seen = keys(server.accept())
    tickets = [buffer.emit(name) for name in ("new", "newer")]
    assert buffer.stats.waiting in (39, 42)
    while len(seen) < 42:
        seen += keys(server.accept())
    assert seen == [f"k{n}" for n in range(40)] + [ticket.key for ticket in tickets]
    assert tickets[1].result(5).stored


def test_another_process_is_told_that_the_spool_is_in_use(make, path):
    make()
    with pytest.raises(SpoolInUse, match="another process"):
        make()
    program = "import sys; from headgate_client.spool import Spool; Spool(sys.argv[1]).open()"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert "SpoolInUse" in done.stderr


def test_a_folder_gives_each_process_its_own_file_and_takes_over_those_of_ended_ones(make, server, tmp_path):
    folder = f"{tmp_path}/spools/"
    one, two = make(folder), make(folder)
    assert one._feed._spool.path != two._feed._spool.path
    one.emit("a")
    two.emit("b")
    one.close(0.0)
    two.close(0.0)
    files = sorted(os.listdir(folder))
    three = make(folder)
    assert three.stats.recovered == 2
    three.emit("c")
    assert sorted(types(server.accept())) == ["a", "b", "c"]
    three.close(0.0)
    assert sorted(name for name in os.listdir(folder) if name.endswith(".db")) == [
        n for n in files if n.endswith(".db")
    ]


def test_dropped_events_leave_the_spool(make, server, path):
    buffer = make(max_items=4, when_full="drop_oldest")
    for name in "abc":
        buffer.emit(name)
    server.take()
    for name in "def":
        buffer.emit(name)
    assert buffer.stats.dropped == 2
    buffer.close(0.0)
    assert rows(path) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"this is no database at all, but a text of some length" * 100, "not a database"), (None, "unable to open|Is a")],
)
def test_what_is_no_spool_is_refused_and_left_as_it_is(make, tmp_path, content, said):
    path = tmp_path / "x" / "events.db"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    with pytest.raises(SpoolError, match=said if content else "No such file"):
        make(path)
    if content is not None:
        assert path.read_bytes() == content


def test_a_database_of_another_program_or_version_is_refused(make, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE accounts (id INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(SpoolError, match="another program"):
        make()
    path.unlink()
    make().close(0.0)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.commit()
    connection.close()
    with pytest.raises(SpoolError, match="version 9"):
        make()


def test_a_relative_path_is_never_a_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill("file:events.db?mode=ro", 3)
    assert rows(tmp_path / "file:events.db?mode=ro") == 3


def test_an_event_that_cannot_be_written_is_not_taken(make):
    buffer = make()
    buffer.emit("t")
    buffer._feed._spool._connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(SpoolError, match="full"):
        buffer.emit("t", {"s": "x" * 100_000})
    assert buffer.stats.emitted == buffer.stats.waiting == 1


@pytest.mark.parametrize(("fsync", "level"), [(True, 2), (False, 1)])
def test_an_fsync_for_each_event_can_be_turned_off(make, fsync, level):
    buffer = make(spool_fsync=fsync)
    assert buffer._feed._spool._connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert buffer._feed._spool._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_fork_leaves_the_spool_to_the_parent(path):
    with Client("127.0.0.1:1", api_key="hg_x") as client:
        buffer = client.buffered(spool=path)
        buffer.emit("a")
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                buffer.emit("child")
            except SpoolInUse:
                os.write(writer, b"in use")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read() == b"in use"
        buffer.emit("b")
        assert buffer.stats.waiting == 2
        buffer.close(0.0)
        assert rows(path) == 2
