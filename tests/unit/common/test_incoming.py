"""What waits of a connection's messages: the room for those that nobody bounds, and the lanes that take turns."""

import threading

from posture_common.incoming import Lanes, Room

KIB = 1024


def fill(room: Room, topic: str, size: int) -> list[int]:
    """Enter until there is no room; return the tickets."""
    tickets = []
    while (ticket := room.enter(topic, size)) is not None:
        tickets.append(ticket)
    return tickets


def test_one_topic_leaves_half_of_the_room_to_others() -> None:
    room = Room(100 * KIB)
    assert len(fill(room, "pi1", 10 * KIB)) == 5
    assert len(fill(room, "pi2", 10 * KIB)) == 3
    assert room.enter("pi3", 10 * KIB) is not None
    assert room.inside == {"pi1": 5, "pi2": 3, "pi3": 1}


def test_an_empty_room_takes_any_message() -> None:
    room = Room(KIB)
    large = room.enter("pi1", 28_000_000)
    assert large is not None
    assert room.enter("pi2", KIB) is None
    room.leave(large)
    assert room.enter("pi2", KIB) is not None


def test_who_leaves_makes_room_once() -> None:
    room = Room(100 * KIB)
    first, *_ = fill(room, "pi1", 10 * KIB)
    for _ in range(3):
        room.leave(first)
    assert len(fill(room, "pi1", 10 * KIB)) == 1
    for ticket in range(10):
        room.leave(ticket)
    assert not room.inside
    assert len(fill(room, "pi1", 10 * KIB)) == 5


def test_lanes_take_turns_and_keep_their_order() -> None:
    lanes: Lanes[str] = Lanes()
    for item in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        lanes.put(item[0], item)
    assert lanes.take(4) == ["a1", "b1", "c1", "a2"]
    lanes.put("c", "c2")
    assert lanes.take(10) == ["b2", "a3", "c2", "a4"]


def test_the_end_comes_after_what_is_there() -> None:
    lanes: Lanes[str] = Lanes()
    for item in ("a1", "b1", "a2"):
        lanes.put(item[0], item)
    lanes.end()
    lanes.put("a", "late")
    assert [lanes.take(2), lanes.take(2), lanes.take(2)] == [["a1", "b1"], ["a2"], []]


def test_the_end_may_leave_other_lanes_behind() -> None:
    lanes: Lanes[str] = Lanes()
    for item in ("b1", "a1", "b2", "a2"):
        lanes.put(item[0], item)
    lanes.end(only="a")
    assert [lanes.take(5), lanes.take(5)] == [["a1", "a2"], []]


def test_who_waits_is_woken_by_an_item_and_by_the_end() -> None:
    lanes: Lanes[str] = Lanes()
    taken: list[list[str]] = []
    waiting = threading.Thread(target=lambda: taken.extend([lanes.take(5), lanes.take(5)]))
    waiting.start()
    lanes.put("a", "a1")
    lanes.end()
    waiting.join(10)
    assert taken == [["a1"], []]
