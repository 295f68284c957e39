import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posture_publisher.delivery import AT_ONCE, OVERTAKEN_S, PAUSE_FIRST_S, PAUSE_LAST_S, SUSPECT_AFTER, Delivery, Send
from posture_publisher.spool import Entry

CONFIRM, RECONNECT = 600.0, 30.0


def entry(seq: int) -> Entry:
    return Entry(seq=seq, image_id=f"image-{seq}", size=1, since=0.0)


def delivery(*, images: int = 0, window: int = 100, connected: bool = True) -> Delivery:
    made = Delivery(window=window, confirm_timeout=CONFIRM, reconnect_timeout=RECONNECT)
    for seq in range(images):
        made.add(entry(seq))
    if connected:
        made.connect(0.0)
    return made


def send_and_acknowledge(made: Delivery, now: float) -> list[int]:
    """Let the broker take whatever is sent at once; return the numbers of the images."""
    seqs = []
    while send := made.next(now):
        seqs.append(send.entry.seq)
        made.acknowledged(send.number)
    return seqs


def the_next(made: Delivery, now: float) -> Send:
    send = made.next(now)
    assert send is not None
    return send


def test_images_go_out_in_the_order_of_their_numbers_whatever_the_order_of_adding() -> None:
    made = delivery()
    for seq in (3, 1, 2):
        made.add(entry(seq))
    assert send_and_acknowledge(made, 0.0) == [1, 2, 3]


def test_nothing_is_sent_without_a_connection() -> None:
    made = delivery(images=1, connected=False)
    assert made.next(0.0) is None
    assert made.wake_up(0.0) is None


def test_an_image_that_is_known_is_not_added_again() -> None:
    made = delivery(images=1)
    made.add(entry(0))
    assert send_and_acknowledge(made, 0.0) == [0]
    made.add(entry(0))
    assert send_and_acknowledge(made, 1.0) == []


def test_only_a_few_images_are_unanswered_at_a_time() -> None:
    made = delivery(images=10)
    sent = [the_next(made, 0.0) for _ in range(AT_ONCE)]
    assert made.next(0.0) is None
    made.acknowledged(sent[2].number)
    assert the_next(made, 0.0).entry.seq == AT_ONCE


def test_only_a_confirmed_image_makes_room_in_the_window() -> None:
    made = delivery(images=10, window=3)
    assert send_and_acknowledge(made, 0.0) == [0, 1, 2]
    assert (made.out, made.waiting) == (3, 7)
    made.forget("image-1")
    assert send_and_acknowledge(made, 1.0) == [3]


def test_an_image_that_others_overtake_is_sent_again_soon_and_ever_later() -> None:
    made = delivery(images=4)
    assert send_and_acknowledge(made, 0.0) == [0, 1, 2, 3]
    made.confirmed("image-2", 1.0)
    assert made.wake_up(1.0) == 1.0 + OVERTAKEN_S
    made.confirmed("image-3", 2.0)
    assert send_and_acknowledge(made, 2.9) == []
    assert send_and_acknowledge(made, 3.0) == [0, 1]
    made.confirmed("image-0", 4.0)  # the first attempt or the second: it says nothing of image 1
    made.add(entry(5))
    assert send_and_acknowledge(made, 5.0) == [5]
    made.confirmed("image-5", 6.0)
    assert send_and_acknowledge(made, 6.0 + 2 * OVERTAKEN_S) == [1]


def test_an_image_is_not_overtaken_by_one_sent_before_it_or_while_it_is_unanswered() -> None:
    made = delivery(images=3)
    first, second, third = (the_next(made, 0.0) for _ in range(3))
    made.acknowledged(first.number)
    made.acknowledged(third.number)
    made.confirmed("image-0", 1.0)
    assert made.next(1.0 + OVERTAKEN_S) is None
    made.confirmed("image-2", 1.0)
    assert made.next(1.0 + OVERTAKEN_S) is None, "image 1 was not taken yet, and its connection answers"
    assert second.entry.seq == 1


def test_an_image_may_be_confirmed_while_it_waits_or_twice_or_unknown() -> None:
    made = delivery(images=2)
    for image_id in ("image-0", "image-0", "somebody-else"):
        made.forget(image_id)
    assert send_and_acknowledge(made, 0.0) == [1]


def test_an_unconfirmed_image_is_repeated_after_a_time_that_doubles() -> None:
    made = delivery(images=1)
    times: list[float] = []
    now = 0.0
    for _ in range(4):
        send = the_next(made, now)
        assert send.repeated is bool(times)
        made.acknowledged(send.number)
        times.append(now)
        wake_up = made.wake_up(now)
        assert wake_up is not None
        assert made.next(wake_up - 0.001) is None
        now = wake_up
    assert times == [0.0, CONFIRM, 3 * CONFIRM, 7 * CONFIRM]


def test_after_a_reconnect_what_was_taken_before_is_repeated_sooner() -> None:
    made = delivery(images=2)
    send_and_acknowledge(made, 0.0)
    made.disconnect(10.0)
    made.connect(20.0)
    assert made.next(20.0 + RECONNECT - 0.001) is None
    assert send_and_acknowledge(made, 20.0 + RECONNECT) == [0, 1]


def test_connections_that_break_often_do_not_put_the_repetition_off() -> None:
    made = delivery(images=1)
    send_and_acknowledge(made, 0.0)
    for now in range(10, 60, 10):
        made.disconnect(now - 1.0)
        made.connect(float(now))
    assert send_and_acknowledge(made, 10 + RECONNECT) == [0]


def test_reconnects_do_not_fill_a_broker_that_nobody_empties() -> None:
    made = delivery(images=1)
    sent = 0
    for minute in range(600):
        made.connect(minute * 60.0)
        for second in range(60):
            sent += len(send_and_acknowledge(made, minute * 60.0 + second))
        made.disconnect(minute * 60.0 + 59.5)
    assert sent <= 10 * 3600 / CONFIRM + 6


def test_what_the_broker_had_not_acknowledged_is_sent_at_once_on_the_next_connection() -> None:
    made = delivery(images=3)
    taken = the_next(made, 0.0)
    lost = the_next(made, 0.0)
    made.acknowledged(taken.number)
    made.disconnect(1.0)
    made.connect(2.0)
    assert send_and_acknowledge(made, 2.0) == [lost.entry.seq, 2]


def test_an_answer_to_an_earlier_attempt_says_nothing_about_the_latest() -> None:
    made = delivery(images=1)
    early = the_next(made, 0.0)
    made.disconnect(1.0)
    made.connect(2.0)
    late = the_next(made, 2.0)
    made.refused(early.number, 2.0)
    made.acknowledged(early.number)
    made.disconnect(3.0)
    made.connect(4.0)
    assert the_next(made, 4.0).entry == late.entry


def test_after_a_refusal_one_image_tries_alone_and_the_pause_grows() -> None:
    made = delivery(images=6)
    first = [the_next(made, 0.0) for _ in range(AT_ONCE)]
    for send in first:
        made.refused(send.number, 0.0)
    pauses = []
    now = 0.0
    for _ in range(6):
        assert made.next(now) is None
        wake_up = made.wake_up(now)
        assert wake_up is not None
        pauses.append(wake_up - now)
        now = wake_up
        probe = the_next(made, now)
        assert probe.entry.seq == 0
        assert made.next(now) is None
        made.refused(probe.number, now)
    assert pauses == [PAUSE_FIRST_S, 2.0, 4.0, 8.0, PAUSE_LAST_S, PAUSE_LAST_S]
    now += PAUSE_LAST_S
    assert send_and_acknowledge(made, now) == [0, 1, 2, 3, 4, 5]


def test_an_image_that_ends_every_connection_lets_the_others_through_and_is_never_given_up() -> None:
    made = delivery(images=5, connected=False)
    taken, tries, now = set(), 0, 0.0
    while now < 3600:
        made.connect(now)
        sends = []
        while send := made.next(now):
            if send.entry.seq == 1:  # the broker hangs up on it
                tries += 1
                break
            sends.append(send)
        for send in sends:
            made.acknowledged(send.number)
            made.forget(send.entry.image_id)
            taken.add(send.entry.seq)
        suspects = made.disconnect(now)
        assert all(entry.seq == 1 for entry in suspects)
        assert not suspects or tries >= SUSPECT_AFTER
        now += 1.0
    assert taken == {0, 2, 3, 4}
    assert 10 < tries < 30
    assert (made.out, made.waiting) == (1, 0)


def test_a_broker_that_never_answers_does_not_block_for_ever() -> None:
    made = delivery(images=AT_ONCE + 1)
    for _ in range(AT_ONCE):
        the_next(made, 0.0)
    wake_up = made.wake_up(0.0)
    assert wake_up == CONFIRM
    assert made.next(wake_up) is not None


@pytest.mark.parametrize("answered", [True, False])
def test_an_attempt_that_was_given_up_does_not_count_any_more(answered: bool) -> None:
    made = delivery(images=1)
    early = the_next(made, 0.0)
    late = the_next(made, CONFIRM)
    assert late.number != early.number
    if answered:
        made.acknowledged(early.number)
    made.disconnect(CONFIRM + 1)
    made.connect(CONFIRM + 2)
    again = the_next(made, CONFIRM + 2)
    assert again.entry == late.entry
    assert not again.repeated


def test_an_overdue_image_that_may_not_be_sent_yet_does_not_keep_the_sender_busy() -> None:
    made = delivery(images=AT_ONCE + 1)
    made.acknowledged(the_next(made, 0.0).number)
    for _ in range(AT_ONCE):
        the_next(made, CONFIRM - 1)
    assert made.next(CONFIRM) is None
    wake_up = made.wake_up(CONFIRM)
    assert wake_up is not None
    assert wake_up > CONFIRM


class World:
    """A broker that forgets, an analyzer that commits, a publisher that is killed: what can happen to images."""

    def __init__(self, chance: random.Random, *, window: int) -> None:
        self.chance = chance
        self.window = window
        self.spool: dict[str, Entry] = {}
        self.committed: Counter[str] = Counter()
        self.broker: list[str] = []
        self.results: list[str] = []
        self.unanswered: list[Send] = []
        self.now = 0.0
        self.taken = 0
        self.restart()

    def restart(self) -> None:
        """The publisher is killed and reads its spool."""
        self.unanswered.clear()
        self.made = Delivery(window=self.window, confirm_timeout=CONFIRM, reconnect_timeout=RECONNECT)
        for spooled in self.spool.values():
            self.made.add(spooled)

    def take(self) -> None:
        taken = entry(self.taken)
        self.taken += 1
        self.spool[taken.image_id] = taken
        self.made.add(taken)

    def send(self) -> None:
        send = self.made.next(self.now)
        if send is None:
            return
        assert send.entry.image_id in self.spool
        self.unanswered.append(send)
        assert len([one for one in self.unanswered if one.number in self.made._attempts]) <= AT_ONCE
        assert self.made.out <= self.window

    def answer(self) -> None:
        if self.unanswered:
            send = self.unanswered.pop(self.chance.randrange(len(self.unanswered)))
            if self.chance.random() < 0.2:
                self.made.refused(send.number, self.now)
            else:
                self.broker.append(send.entry.image_id)
                self.made.acknowledged(send.number)

    def connect(self) -> None:
        if not self.made.connected:
            self.made.connect(self.now)

    def disconnect(self) -> None:
        if self.made.connected:
            # Some arrived though their answer did not.
            self.broker += [send.entry.image_id for send in self.unanswered if self.chance.random() < 0.5]
            self.unanswered.clear()
            self.made.disconnect(self.now)
            if self.chance.random() < 0.5:
                self.results.clear()

    def kill_broker(self) -> None:
        self.disconnect()
        kept = self.chance.randrange(len(self.broker) + 1)
        del self.broker[kept:]

    def analyse(self) -> None:
        if self.broker:
            image_id = self.broker.pop(0)
            self.committed[image_id] += 1
            self.results.append(image_id)

    def confirm(self) -> None:
        if self.made.connected and self.results:
            image_id = self.results.pop(self.chance.randrange(len(self.results)))
            assert image_id in self.committed
            self.spool.pop(image_id, None)
            self.made.forget(image_id)

    def wait(self) -> None:
        self.now += self.chance.choice([0.1, 1.0, 20.0, 700.0])


STEPS = [
    World.take,
    World.send,
    World.send,
    World.answer,
    World.answer,
    World.connect,
    World.disconnect,
    World.kill_broker,
    World.analyse,
    World.confirm,
    World.wait,
    World.restart,
]


@settings(deadline=None)
@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=200),
    window=st.integers(1, 8),
    chance=st.randoms(use_true_random=False),
)
def test_nothing_is_lost_in_whatever_order_things_happen(
    steps: list[object], window: int, chance: random.Random
) -> None:
    world = World(chance, window=window)
    for step in steps:
        assert callable(step)
        step(world)
    # Then all works again, and time passes only where the delivery says that it waits for it.
    world.connect()
    for _ in range(10_000):
        if not world.spool:
            break
        before = world.made.out, world.made.waiting, len(world.broker), len(world.results), len(world.unanswered)
        world.send()
        while world.unanswered:
            send = world.unanswered.pop()
            world.broker.append(send.entry.image_id)
            world.made.acknowledged(send.number)
        world.analyse()
        world.confirm()
        if before == (
            world.made.out,
            world.made.waiting,
            len(world.broker),
            len(world.results),
            len(world.unanswered),
        ):
            wake_up = world.made.wake_up(world.now)
            assert wake_up is not None, "the sender sleeps for ever on an image"
            assert wake_up > world.now, "the sender is busy with nothing"
            world.now = wake_up
    assert not world.spool
    assert set(world.committed) == {entry(seq).image_id for seq in range(world.taken)}


@given(failures=st.lists(st.sampled_from(["", "refused", "cut off", "refused before the other"]), max_size=30))
def test_the_order_survives_refusals_and_lost_connections(failures: list[str]) -> None:
    made = delivery(images=20)
    now = 0.0
    seqs: list[int] = []
    while made.waiting:
        now += 20.0
        failure = failures.pop() if failures else ""
        send = the_next(made, now)
        other = made.next(now) if failure.endswith("the other") else None
        if failure.startswith("refused"):
            made.refused(send.number, now)
        if failure == "cut off" or other:
            made.disconnect(now)
            made.connect(now)
        if not failure:
            made.acknowledged(send.number)
            made.forget(send.entry.image_id)
            seqs.append(send.entry.seq)
        if made.waiting + made.out and any(image.cut_off >= SUSPECT_AFTER for image in made._out.values()):
            return  # under suspicion it may be overtaken
    assert seqs == list(range(20))
