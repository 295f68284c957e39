import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posture_publisher.camera import CameraError
from posture_publisher.replay import SETTLED_S, Replay
from posture_publisher.spool import Picture


class Samples:
    """A directory of pictures and the replays of it."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "samples"
        self.directory.mkdir()
        self.notes = root / "replay.jsonl"
        self.refused = 0

    def add(self, *names: str, data: bytes = b"", age: float = 60.0) -> None:
        for name in names:
            path = self.directory / name
            path.write_bytes(data or b"picture " + os.fsencode(name))
            changed = time.time() - age
            os.utime(path, (changed, changed))

    @contextmanager
    def replay(self, *, rounds: int = 1, pi_id: str = "pi1", max_bytes: int = 1000) -> Iterator[Replay]:
        def refuse() -> None:
            self.refused += 1

        with Replay(
            pi_id, self.directory, notes=self.notes, rounds=rounds, max_bytes=max_bytes, refused=refuse
        ) as replay:
            yield replay


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    return Samples(tmp_path)


def take_all(replay: Replay, *, at_most: int = 100) -> list[Picture]:
    taken: list[Picture] = []
    while len(taken) < at_most and (picture := replay.take()):
        replay.spooled()
        taken.append(picture)
    return taken


def names(pictures: list[Picture]) -> list[str]:
    return [picture.filename for picture in pictures]


def test_pictures_come_in_the_order_of_names_as_they_are(samples: Samples) -> None:
    samples.add("b.png", "a.jpg", "c.JPEG")
    with samples.replay() as replay:
        taken = take_all(replay)
    assert names(taken) == ["a.jpg", "b.png", "c.JPEG"]
    assert taken[0].data == b"picture a.jpg"
    assert len({uuid.UUID(picture.image_id) for picture in taken}) == 3


def test_only_pictures_are_taken_and_the_others_told_once(samples: Samples, caplog: pytest.LogCaptureFixture) -> None:
    samples.add("a.jpg", "b.webp", "c.bmp", "notes.txt", "d.jpg.tmp", ".hidden.jpg", "jpg")
    (samples.directory / "directory.jpg").mkdir()
    (samples.directory / "dangling.jpg").symlink_to("nowhere")
    os.mkfifo(samples.directory / "pipe.jpg")
    with samples.replay() as replay:
        assert names(take_all(replay)) == ["a.jpg", "b.webp", "c.bmp"]
        take_all(replay)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "3 files" in warnings[0]


def test_rounds_repeat_the_pictures_as_new_images(samples: Samples) -> None:
    samples.add("a.jpg", "b.jpg")
    with samples.replay(rounds=3) as replay:
        taken = take_all(replay)
    assert names(taken) == ["a.jpg", "b.jpg"] * 3
    assert len({picture.image_id for picture in taken}) == 6


def test_zero_rounds_never_end(samples: Samples) -> None:
    samples.add("a.jpg", "b.jpg")
    with samples.replay(rounds=0) as replay:
        assert len(take_all(replay, at_most=25)) == 25


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_an_empty_directory_gives_nothing_and_keeps_its_rounds(samples: Samples, rounds: int) -> None:
    with samples.replay(rounds=rounds) as replay:
        assert take_all(replay) == take_all(replay) == []
        samples.add("a.jpg")
        assert names(take_all(replay, at_most=2)) == ["a.jpg"] * (rounds or 2)


def test_a_picture_dropped_in_later_is_taken(samples: Samples) -> None:
    samples.add("b.jpg")
    with samples.replay() as replay:
        take_all(replay)
        samples.add("a.jpg")
        assert names(take_all(replay)) == ["a.jpg"]
        assert take_all(replay) == []


def test_a_changed_picture_is_another_one(samples: Samples) -> None:
    samples.add("a.jpg")
    with samples.replay() as replay:
        first = take_all(replay)
        samples.add("a.jpg", data=b"changed", age=30)
        second = take_all(replay)
    assert [picture.data for picture in second] == [b"changed"]
    assert first[0].image_id != second[0].image_id


def test_a_file_that_is_being_written_waits_until_it_stays_as_it_is(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    samples.add("a.jpg", data=b"1", age=-5)
    with samples.replay() as replay:
        for size in (2, 3):
            assert take_all(replay) == []
            now += 10 * SETTLED_S
            samples.add("a.jpg", data=b"x" * size, age=-5 - size)
        assert take_all(replay) == []
        now += SETTLED_S / 2
        assert take_all(replay) == []
        now += SETTLED_S / 2
        assert [picture.data for picture in take_all(replay)] == [b"xxx"]


def test_an_empty_file_is_not_complete_however_old(samples: Samples) -> None:
    (samples.directory / "a.jpg").touch()
    os.utime(samples.directory / "a.jpg", (0, 0))
    with samples.replay() as replay:
        assert take_all(replay) == []
        samples.add("a.jpg")
        assert names(take_all(replay)) == ["a.jpg"]


def test_a_file_that_changes_between_look_and_read_is_looked_at_again(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.add("a.jpg", data=b"half")
    read = Path.read_bytes

    def read_while_written(path: Path) -> bytes:
        data = read(path)
        monkeypatch.undo()
        samples.add("a.jpg", data=b"whole picture", age=30)
        return data

    with samples.replay() as replay:
        monkeypatch.setattr(Path, "read_bytes", read_while_written)
        assert take_all(replay) == []
        assert [picture.data for picture in take_all(replay)] == [b"whole picture"]


def test_too_large_is_refused_once_by_name(samples: Samples, caplog: pytest.LogCaptureFixture) -> None:
    samples.add("a.jpg", "c.jpg")
    samples.add("b.jpg", data=b"x" * 1001)
    with samples.replay(rounds=3) as replay:
        assert names(take_all(replay)) == ["a.jpg", "c.jpg"] * 3
    assert samples.refused == 1
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "b.jpg" in errors[0]
    assert "1001" in errors[0]


def test_pictures_that_are_all_refused_do_not_spin_the_rounds(samples: Samples) -> None:
    samples.add("a.jpg", data=b"x" * 1001)
    with samples.replay(rounds=0) as replay:
        for _ in range(5):
            assert replay.take() is None
    assert json.loads(samples.notes.read_text().splitlines()[0])["round"] == 1


def test_a_name_that_mqtt_would_refuse_is_made_printable(samples: Samples) -> None:
    samples.add(os.fsdecode(b"caf\xe9\n.jpg"), "grün.jpg")
    with samples.replay() as replay:
        taken = take_all(replay)
    assert sorted(names(taken)) == ["caf??.jpg", "grün.jpg"]
    with samples.replay() as replay:
        assert take_all(replay) == []


def test_a_directory_that_is_not_there_is_named_and_may_come_later(samples: Samples) -> None:
    samples.directory.rmdir()
    with samples.replay() as replay, pytest.raises(CameraError, match=str(samples.directory)):
        replay.take()
    samples.directory.mkdir()
    samples.add("a.jpg")
    with samples.replay() as replay:
        assert names(take_all(replay)) == ["a.jpg"]


@settings(deadline=None, max_examples=50)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=8),
    rounds=st.integers(1, 3),
)
def test_restarts_neither_skip_nor_renew_a_picture(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bool]], rounds: int
) -> None:
    samples = Samples(tmp_path_factory.mktemp("replay"))
    samples.add("a.jpg", "b.jpg", "c.jpg")
    taken: list[Picture] = []
    for count, crash in cuts:
        with samples.replay(rounds=rounds) as replay:
            taken += take_all(replay, at_most=count)
            if crash and (picture := replay.take()):
                taken.append(picture)  # spooled, then killed before it was noted
    with samples.replay(rounds=rounds) as replay:
        taken += take_all(replay)
    images = list(dict.fromkeys(picture.image_id for picture in taken))
    assert len(images) == 3 * rounds
    repeated = len(taken) - len(images)
    assert repeated <= sum(crash for _, crash in cuts)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda text: text[:-7],
        lambda text: text + '["c.jpg", 1',
        lambda text: "null\n" + text,
        lambda text: text + "[]\n",
        lambda _: "\0" * 100,
    ],
)
def test_damaged_notes_repeat_pictures_but_never_renew_or_skip_them(
    samples: Samples, damage: Callable[[str], str]
) -> None:
    samples.add("a.jpg", "b.jpg", "c.jpg")
    with samples.replay() as replay:
        taken = take_all(replay, at_most=2)
    samples.notes.write_text(damage(samples.notes.read_text()))
    with samples.replay() as replay:
        taken += take_all(replay)
    assert len({picture.image_id for picture in taken}) == 3
    with samples.replay() as replay:
        assert take_all(replay) == []


def test_notes_of_another_directory_do_not_count(samples: Samples, tmp_path: Path) -> None:
    samples.add("a.jpg")
    with samples.replay() as replay:
        take_all(replay)
    samples.directory = samples.directory.rename(tmp_path / "others")
    with samples.replay() as replay:
        assert names(take_all(replay)) == ["a.jpg"]


def test_images_of_two_pis_are_different(samples: Samples) -> None:
    samples.add("a.jpg")
    ids = set()
    for pi_id in ("pi1", "pi2"):
        samples.notes.unlink(missing_ok=True)
        with samples.replay(pi_id=pi_id) as replay:
            ids.add(take_all(replay)[0].image_id)
    assert len(ids) == 2


def test_notes_do_not_grow_with_every_file_that_ever_was_there(samples: Samples) -> None:
    with samples.replay() as replay:
        for batch in range(5):
            for path in samples.directory.iterdir():
                path.unlink()
            samples.add(*(f"{batch}-{number}.jpg" for number in range(500)))
            take_all(replay, at_most=500)
        samples.add("last.jpg")
        take_all(replay)
    assert len(samples.notes.read_text().splitlines()) < 700
    with samples.replay() as replay:
        assert take_all(replay) == []
