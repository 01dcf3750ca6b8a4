"""The fair queue: what is taken together, in which order, what has room, and what is parked."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from headgate_server.core.model import Submission
from headgate_server.ingest.lanes import Bounds, Lanes, Waiting
from tests.support.drafts import draft, submission


class Caller(Waiting):
    """A submission whose caller can give up."""

    def __init__(self, submission: Submission, arrived: float):
        super().__init__(submission, arrived)
        self.gave_up = False

    @property
    def gone(self) -> bool:
        return self.gave_up


class Queue:
    """Lanes, filled and emptied as a test says."""

    def __init__(self, **bounds: Any):
        self.lanes: Lanes[Caller] = Lanes(Bounds(**bounds))

    def add(self, workspace: int, events: int, data: str = "", arrived: float = 0.0) -> Caller:
        """Put so many events at the end of a workspace's lane."""
        drafts = (draft(data={"n": number, "d": data}) for number in range(events))
        caller = Caller(submission(workspace, *drafts), arrived)
        self.lanes.add(caller)
        return caller

    def take(self, **how: int) -> list[Caller]:
        """Take a group, and let the store be done with it."""
        group = self.lanes.take(0.0, **how).group
        for waiting in group:
            self.lanes.release(waiting)
        return group

    def empty(self) -> None:
        """Take all that is ready; then nothing may be left of it."""
        while self.lanes.ready:
            self.take()
        assert self.lanes.idle


def workspaces(group: Sequence[Caller]) -> list[int]:
    return [waiting.submission.workspace_id for waiting in group]


def sizes(group: Sequence[Caller]) -> list[int]:
    return [waiting.events for waiting in group]


def test_a_group_ends_at_its_bound_of_events_but_splits_no_submission() -> None:
    queue = Queue(group_events=10)
    for size in (6, 6, 6, 25, 1):
        queue.add(1, size)
    assert [sizes(queue.take()) for _ in range(3)] == [[6, 6], [6, 25], [1]]
    assert queue.lanes.idle


def test_a_group_ends_at_its_bound_of_bytes() -> None:
    queue = Queue(group_bytes=2000)
    for size in (600, 600, 5000, 1):
        queue.add(1, 1, "x" * size)
    assert [len(queue.take()) for _ in range(3)] == [2, 1, 1]
    assert queue.lanes.idle


def test_a_busy_workspace_does_not_delay_a_quiet_one() -> None:
    queue = Queue(group_events=10)
    for _ in range(10):
        queue.add(1, 5)
    queue.add(2, 1)
    queue.add(3, 1)
    assert Counter(workspaces(queue.take())) == {1: 1, 2: 1, 3: 1}
    assert Counter(workspaces(queue.take())) == {1: 2}
    queue.empty()


def test_workspaces_take_turns_when_each_has_more_than_fits() -> None:
    queue = Queue(group_events=4)
    for workspace in (1, 1, 1, 2, 2, 3):
        queue.add(workspace, 4)
    assert [workspaces(queue.take()) for _ in range(6)] == [[1], [2], [3], [1], [2], [1]]
    assert queue.lanes.idle


def test_those_whose_turn_a_full_group_ended_before_come_first_in_the_next() -> None:
    queue = Queue(group_events=4)
    for workspace in (1, 1, 2, 3):
        queue.add(workspace, 3)
    assert workspaces(queue.take()) == [1, 2]
    queue.add(4, 1)
    assert workspaces(queue.take()) == [3, 1]
    assert workspaces(queue.take()) == [4]


def test_within_a_workspace_the_order_is_that_of_arrival() -> None:
    queue = Queue()
    first, other, second = queue.add(1, 1), queue.add(2, 2), queue.add(1, 3)
    assert queue.take() == [first, second, other]


def test_a_caller_that_gave_up_is_left_out() -> None:
    queue = Queue()
    gone, stays, alone = queue.add(1, 2), queue.add(1, 3), queue.add(2, 1)
    gone.gave_up = alone.gave_up = True
    assert queue.lanes.take(0.0) == ([stays], [])
    queue.lanes.release(stays)
    assert queue.lanes.idle


def test_what_has_waited_too_long_is_not_stored_and_makes_room() -> None:
    queue = Queue(waiting_seconds=5.0)
    late, in_time = queue.add(1, 2, arrived=0.0), queue.add(1, 3, arrived=0.1)
    assert queue.lanes.take(5.0) == ([in_time], [late])
    assert queue.lanes.events == 3
    queue.lanes.release(in_time)
    assert queue.lanes.idle


def test_what_waited_too_long_or_gave_up_takes_nobody_s_share() -> None:
    queue = Queue(group_events=4, waiting_seconds=5.0)
    late, gone = queue.add(1, 4, arrived=0.0), queue.add(1, 4, arrived=9.0)
    stays = queue.add(1, 4, arrived=9.0)
    gone.gave_up = True
    assert queue.lanes.take(9.0) == ([stays], [late])


def test_a_parked_lane_is_taken_from_by_itself_and_delays_nobody() -> None:
    queue = Queue(group_events=4)
    stuck, free = queue.add(1, 1), queue.add(2, 1)
    assert queue.lanes.take(0.0).group == [stuck, free]
    assert queue.lanes.park([stuck]) == [1]
    queue.lanes.release(free)
    assert not queue.lanes.ready

    later = queue.add(1, 4)
    other = queue.add(2, 1)
    assert queue.take() == [other]
    assert not queue.lanes.unpark(1)
    assert queue.take(lane_of=1) == [stuck, later]
    assert not queue.lanes.ready
    assert queue.lanes.unpark(1)
    assert queue.lanes.idle

    back = queue.add(1, 1)
    assert queue.take() == [back]


def test_a_parked_lane_is_bounded_as_the_others_are() -> None:
    queue = Queue(group_events=4)
    first = queue.add(1, 1)
    queue.lanes.take(0.0)
    queue.lanes.park([first])
    for _ in range(3):
        queue.add(1, 3)
    assert sizes(queue.take(lane_of=1)) == [1, 3]
    assert not queue.lanes.ready
    assert sizes(queue.take(lane_of=1)) == [3, 3]
    assert queue.lanes.unpark(1)


def test_what_comes_while_a_parked_lane_is_stored_waits_for_its_lock_too() -> None:
    queue = Queue()
    first = queue.add(1, 1)
    queue.lanes.take(0.0)
    queue.lanes.park([first])
    assert queue.lanes.take(0.0, lane_of=1).group == [first]
    later = queue.add(1, 1)
    assert not queue.lanes.ready
    queue.lanes.release(first)
    assert not queue.lanes.unpark(1)
    assert queue.take(lane_of=1) == [later]
    assert queue.lanes.unpark(1)


def test_what_was_skipped_keeps_its_order_before_what_came_later() -> None:
    queue = Queue()
    early = [queue.add(1, 1), queue.add(1, 2)]
    other = queue.add(2, 1)
    taken = queue.lanes.take(0.0).group
    late = [queue.add(1, 3), queue.add(2, 4)]
    assert taken == [*early, other]
    assert queue.lanes.park(taken) == [1, 2]
    assert not queue.lanes.ready
    assert queue.take(lane_of=1) == [*early, late[0]]
    assert queue.take(lane_of=2) == [other, late[1]]


def test_a_lane_that_waits_for_its_lock_gives_up_what_is_late() -> None:
    queue = Queue(waiting_seconds=5.0)
    first, gone, last = (queue.add(1, 1, arrived=at) for at in (0.0, 4.0, 9.0))
    queue.lanes.take(0.0)
    queue.lanes.park([first, gone, last])
    gone.gave_up = True
    assert queue.lanes.take_late(9.0, 1) == [first]
    assert queue.lanes.events == queue.lanes.events_of(1) == 1
    assert queue.lanes.take_late(14.0, 1) == [last]
    assert queue.lanes.unpark(1)
    assert queue.lanes.idle


def test_too_much_waiting_has_no_room_also_while_it_is_stored() -> None:
    queue = Queue(waiting_events=10, workspace_share=1.0)
    queue.add(1, 4)
    queue.add(2, 4)
    assert not queue.lanes.has_room(3, 3, 0)
    assert queue.lanes.has_room(3, 2, 0)
    taken = queue.lanes.take(0.0).group
    assert not queue.lanes.has_room(3, 3, 0)
    for waiting in taken:
        queue.lanes.release(waiting)
    assert queue.lanes.has_room(3, 10, 0)


def test_too_many_bytes_waiting_leave_no_room() -> None:
    queue = Queue(waiting_bytes=10_000, workspace_share=1.0)
    waiting = queue.add(1, 1, "x" * 600)
    assert queue.lanes.has_room(2, 1, 10_000 - waiting.bytes)
    assert not queue.lanes.has_room(2, 1, 10_001 - waiting.bytes)


@pytest.mark.parametrize(
    ("workspace", "events", "size", "room"),
    [(1, 1, 0, True), (1, 2, 0, False), (2, 6, 0, True), (2, 7, 0, False), (2, 1, 1 << 40, False)],
)
def test_one_workspace_may_fill_its_share_and_leaves_the_rest_to_others(
    workspace: int, events: int, size: int, room: bool
) -> None:
    queue = Queue(waiting_events=10, workspace_share=0.5)
    queue.add(1, 4)
    assert queue.lanes.has_room(workspace, events, size) is room


def test_one_workspace_may_fill_its_share_of_bytes() -> None:
    queue = Queue(waiting_bytes=10_000, workspace_share=0.5)
    waiting = queue.add(1, 1)
    assert queue.lanes.has_room(1, 1, 5_000 - waiting.bytes)
    assert not queue.lanes.has_room(1, 1, 5_001 - waiting.bytes)


def test_no_more_may_wait_than_can_be_stored_in_time() -> None:
    queue = Queue(waiting_events=100, workspace_share=0.5)
    queue.lanes.in_time = 40
    queue.add(1, 20)
    assert queue.lanes.has_room(1, 40, 0) is False
    assert queue.lanes.has_room(2, 20, 0)
    assert not queue.lanes.has_room(2, 21, 0)
    queue.lanes.in_time = 1_000
    assert queue.lanes.most_events == 100
    assert queue.lanes.has_room(1, 30, 0)
    assert not queue.lanes.has_room(1, 31, 0)


def test_of_what_can_be_stored_in_time_one_workspace_leaves_a_quarter_and_several_share_it() -> None:
    queue = Queue(waiting_events=10_000)
    queue.lanes.in_time = 400
    turns = [1] * 400 + [2, 3] * 400
    for workspace in turns:
        if queue.lanes.has_room(workspace, 1, 0):
            queue.add(workspace, 1)
    assert [queue.lanes.events_of(workspace) for workspace in (1, 2, 3)] == [300, 43, 43]
    queue.empty()
    for workspace in [1, 2, 3] * 400:
        if queue.lanes.has_room(workspace, 1, 0):
            queue.add(workspace, 1)
    assert [queue.lanes.events_of(workspace) for workspace in (1, 2, 3)] == [120, 120, 120]
    assert not queue.lanes.has_room(1, 1, 0)
    assert queue.lanes.has_room(4, 40, 0)


def test_where_nothing_waits_everything_has_room() -> None:
    queue = Queue(group_events=2, waiting_events=3, waiting_bytes=10)
    assert queue.lanes.has_room(1, 1_000, 1 << 40)
    queue.add(1, 50)
    assert sizes(queue.take()) == [50]
    assert queue.lanes.idle


def test_asking_for_room_leaves_no_trace() -> None:
    queue = Queue(waiting_events=1)
    queue.add(1, 1)
    assert not any(queue.lanes.has_room(workspace, 1, 0) for workspace in range(2, 50))
    queue.empty()


def test_one_lane_is_taken_from_and_the_others_keep_their_turns() -> None:
    queue = Queue(group_events=4)
    one, two = queue.add(1, 1), [queue.add(2, 1), queue.add(2, 2), queue.add(2, 1)]
    assert queue.take(lane_of=2, taken_events=1) == two[:2]
    assert queue.take() == [one, two[2]]
    three = queue.add(3, 1)
    assert queue.take(lane_of=3) == [three]
    assert not queue.lanes.ready
    queue.add(3, 1)
    assert queue.lanes.ready
    queue.empty()


def test_what_is_put_back_comes_first_in_its_order() -> None:
    queue = Queue()
    early = [queue.add(1, 1), queue.add(2, 1), queue.add(1, 1)]
    taken = queue.lanes.take(0.0).group
    assert not queue.lanes.ready
    late = [queue.add(3, 1), queue.add(1, 1)]
    queue.lanes.put_back(taken)
    assert queue.lanes.events == 5
    assert queue.take() == [early[1], late[0], early[0], early[2], late[1]]
    queue.empty()


def test_what_is_put_back_to_a_parked_lane_stays_parked() -> None:
    queue = Queue()
    stuck = queue.add(1, 1)
    assert queue.lanes.park(queue.lanes.take(0.0).group) == [1]
    taken = queue.lanes.take(0.0, lane_of=1).group
    queue.lanes.put_back(taken)
    assert not queue.lanes.ready
    assert queue.take(lane_of=1) == [stuck]
    assert queue.lanes.unpark(1)
    queue.empty()
