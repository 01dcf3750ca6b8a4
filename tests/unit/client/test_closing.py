"""What closing a client of threads, or one of its buffers, ends."""

import threading

import pytest

from headgate_client import Closed, NotSent
from headgate_client import client as client_module
from headgate_client.buffered import Buffered
from tests.support.waiting import until_true


def test_closing_ends_an_emit_that_waits_for_room(make):
    buffer = make(max_items=3, when_full="block")
    for name in "abc":
        buffer.emit(name)
    errors = []

    def emit():
        try:
            buffer.emit("d")
        except Closed as error:
            errors.append(error)

    thread = threading.Thread(target=emit)
    thread.start()
    until_true(lambda: buffer._clock._waiting)
    buffer.close(0.0)
    thread.join(5)
    assert len(errors) == 1


def test_a_closed_client_makes_no_buffer(client, tmp_path):
    client.close()
    with pytest.raises(Closed):
        client.buffered(spool=tmp_path / "events.db")
    assert list(tmp_path.iterdir()) == []


def test_a_buffer_that_is_made_while_the_client_is_closed_is_closed(client, monkeypatch):
    made = []

    class Late(Buffered):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)
            client.close()

    monkeypatch.setattr(client_module, "Buffered", Late)
    with pytest.raises(Closed):
        client.buffered()
    assert made[0].closed


def test_close_closes_every_buffer_whatever_one_of_them_raises(client, monkeypatch):
    buffers = [client.buffered() for _ in range(3)]
    close = Buffered.close

    def failing(buffer, timeout=None):
        close(buffer, timeout)
        if buffer is buffers[1]:
            raise OSError("the disk is gone")

    monkeypatch.setattr(Buffered, "close", failing)
    with pytest.raises(OSError, match="gone"):
        client.close()
    assert all(buffer.closed for buffer in buffers)
    with pytest.raises(Closed):
        client.head()


def test_a_block_raises_what_is_left_unless_another_error_is_on_its_way(client, server):
    def run(error=None):
        with client.buffered(max_size=1, close_timeout=0.0) as buffer:
            buffer.emit("a")
            server.take()
            if error:
                raise error

    with pytest.raises(NotSent) as raised:
        run()
    assert [event.type for event in raised.value.events] == ["a"]
    with pytest.raises(KeyError):
        run(KeyError("mine"))
