import errno
import json
import logging
import os
import struct
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from posture_publisher import metrics
from posture_publisher.camera import CameraError
from posture_publisher.folder import TOLD_AT_ONCE
from posture_publisher.replay import PATIENCE_S, Replay
from posture_publisher.spool import Picture
from posture_publisher.structure import Ending

from tests.support.images import nobody, opened, photograph, pillow


def whole(text: bytes) -> bytes:
    """Return what has a beginning and an end as a JPEG has, and nothing but a comment between."""
    return b"\xff\xd8\xff\xfe" + struct.pack(">H", len(text) + 2) + text + b"\xff\xd9"


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
            path.write_bytes(data or whole(b"picture " + os.fsencode(name)))
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


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def not_taken() -> Counter[str]:
    """Return how many files were counted as not taken, by reason; to subtract."""
    samples = [sample for metric in metrics.NOT_TAKEN.collect() for sample in metric.samples]
    return Counter({s.labels["reason"]: int(s.value) for s in samples if s.name.endswith("_total")})


class Watch:
    """The monotonic clock that replays look at."""

    def __init__(self) -> None:
        self.now = 1000.0

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(time, "monotonic", lambda: watch.now)
    return watch


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
    assert taken[0].data == whole(b"picture a.jpg")
    assert len({uuid.UUID(picture.image_id) for picture in taken}) == 3


def test_only_pictures_are_taken_and_the_others_told_once(samples: Samples, caplog: pytest.LogCaptureFixture) -> None:
    samples.add("a.jpg", "b.webp", "c.bmp", "e.JFIF", "notes.txt", "d.jpg.tmp", ".hidden.jpg", "jpg")
    (samples.directory / "directory.jpg").mkdir()
    (samples.directory / "dangling.jpg").symlink_to("nowhere")
    (samples.directory / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(samples.directory / "pipe.jpg")
    before = not_taken()
    with samples.replay() as replay:
        assert names(take_all(replay)) == ["a.jpg", "b.webp", "c.bmp", "e.JFIF"]
        take_all(replay)
        assert not_taken() - before == {"name": 3, "directory": 1, "special": 3}
        samples.add("IMG.HEIC")
        take_all(replay)
        take_all(replay)
    for name in ("notes.txt", "d.jpg.tmp", "jpg", "directory.jpg", "dangling.jpg", "loop.jpg", "pipe.jpg", "IMG.HEIC"):
        assert len([line for line in told(caplog) if f"/{name} is not taken: it" in line]) == 1, name
    assert len(told(caplog)) == 8


def test_a_thousand_other_files_are_told_in_a_few_lines(samples: Samples, caplog: pytest.LogCaptureFixture) -> None:
    samples.add(*(f"{number}.txt" for number in range(1000)))
    before = not_taken()
    with samples.replay() as replay:
        take_all(replay)
        assert len(told(caplog)) == TOLD_AT_ONCE + 1
        assert f"{1000 - TOLD_AT_ONCE} further files" in told(caplog)[-1]
        samples.add("one more.txt")
        take_all(replay)
    assert "one more.txt" in told(caplog)[TOLD_AT_ONCE + 1]
    assert not_taken() - before == {"name": 1001}


def test_a_file_that_stays_empty_is_told_and_does_not_hold_up_the_rounds(
    samples: Samples, caplog: pytest.LogCaptureFixture, clock: Watch
) -> None:
    samples.add("a.jpg")
    (samples.directory / "empty.jpg").touch()
    with samples.replay(rounds=3) as replay:
        assert names(take_all(replay)) == ["a.jpg"]
        clock.passes(PATIENCE_S[Ending.OPEN])
        assert names(take_all(replay)) == ["a.jpg"] * 2
    assert len([line for line in told(caplog) if "empty.jpg is not taken: it is empty" in line]) == 1


def test_a_picture_that_nobody_may_read_is_taken_when_that_is_mended(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.add("a.jpg")

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    with samples.replay() as replay:
        with monkeypatch.context() as patch:  # root, who may run this, may read everything
            patch.setattr(Path, "read_bytes", refuse)
            for _ in range(3):
                assert take_all(replay) == []
        assert samples.refused == 1
        assert take_all(replay) == []
        (samples.directory / "a.jpg").chmod(0o644)
        assert names(take_all(replay)) == ["a.jpg"]


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
        samples.add("a.jpg", data=whole(b"changed"), age=30)
        second = take_all(replay)
    assert [picture.data for picture in second] == [whole(b"changed")]
    assert first[0].image_id != second[0].image_id


def test_a_file_that_is_being_written_waits_until_it_stays_as_it_is(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    samples.add("a.jpg", data=whole(b"1"), age=-5)
    with samples.replay() as replay:
        for size in (2, 3):
            assert take_all(replay) == []
            now += 10 * PATIENCE_S[Ending.WHOLE]
            samples.add("a.jpg", data=whole(b"x" * size), age=-5 - size)
        assert take_all(replay) == []
        now += PATIENCE_S[Ending.WHOLE] / 2
        assert take_all(replay) == []
        now += PATIENCE_S[Ending.WHOLE] / 2
        assert [picture.data for picture in take_all(replay)] == [whole(b"xxx")]


@pytest.mark.parametrize("pause", [3.5, 30.0])
@pytest.mark.parametrize(
    "picture",
    [
        photograph("camera", size=(320, 240)),
        pillow(opened(photograph("camera", size=(320, 240))), "JPEG", progressive=True),
        pillow(opened(photograph("camera", size=(320, 240))), "PNG"),
        pillow(opened(photograph("camera", size=(320, 240))), "WEBP"),
        pillow(opened(photograph("camera", size=(320, 240))), "BMP"),
        nobody() + photograph("camera", size=(320, 240)),  # as a phone's, with a second picture behind it
    ],
    ids=["jpeg", "progressive", "png", "webp", "bmp", "two"],
)
@pytest.mark.parametrize("room", [False, True], ids=["grows", "made at full size"])
def test_a_copy_that_pauses_half_way_is_one_image(
    samples: Samples, clock: Watch, picture: bytes, pause: float, room: bool
) -> None:
    half = picture[: len(picture) // 2]
    samples.add("a.jpg", data=half + bytes(len(picture) - len(half)) * room, age=2)
    with samples.replay(max_bytes=10**6) as replay:
        assert take_all(replay) == []
        clock.passes(pause)
        assert take_all(replay) == []
        samples.add("a.jpg", data=picture, age=1)
        clock.passes(PATIENCE_S[Ending.WHOLE])
        assert [taken.data for taken in take_all(replay)] == [picture]
        clock.passes(100)
        assert take_all(replay) == []


def test_a_picture_without_its_end_is_not_read_again_at_each_look(
    samples: Samples, clock: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = Path.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    samples.add("a.jpg", data=nobody()[:-200])
    with samples.replay(max_bytes=10**6) as replay:
        for _ in range(20):
            assert replay.take() is None
            clock.passes(1)
    assert len(reads) == 1


def test_a_picture_that_never_gets_its_end_is_sent_as_it_is_after_a_while(
    samples: Samples, clock: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    samples.add("a.jpg", data=nobody()[:-200], age=10**6)
    samples.add("b.jpg", age=10**6)
    with samples.replay(rounds=3, max_bytes=10**6) as replay:
        assert names(take_all(replay)) == ["b.jpg"]
        clock.passes(PATIENCE_S[Ending.OPEN] - 1)
        assert take_all(replay) == []
        clock.passes(1)
        assert names(take_all(replay)) == ["a.jpg", *["a.jpg", "b.jpg"] * 2]  # looked at once, not in each round
    assert any("a.jpg is sent as it is" in line for line in told(caplog))


@pytest.mark.parametrize("data", [b"GIF89a and so on", whole(b"with a film behind it") + b"film" * 100])
def test_what_shows_no_end_of_its_own_waits_a_little(samples: Samples, clock: Watch, data: bytes) -> None:
    samples.add("a.jpg", data=data)
    with samples.replay() as replay:
        assert take_all(replay) == []
        clock.passes(PATIENCE_S[Ending.MORE])
        assert [taken.data for taken in take_all(replay)] == [data]


def test_a_photograph_has_its_own_time(samples: Samples, clock: Watch) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: "2025:03:01 10:20:30", 0x9291: "25", 0x9011: "+02:00"})
    samples.add("a.jpg", data=pillow(Image.new("L", (8, 8)), "JPEG", exif=exif.tobytes()))
    samples.add("b.jpg")
    os.utime(samples.directory / "b.jpg", ns=(0, 1_700_000_000_123_456_789))
    samples.add("c.jpg")
    os.utime(samples.directory / "c.jpg", (0, -86400))
    with samples.replay() as replay:
        taken = take_all(replay)
        clock.passes(PATIENCE_S[Ending.WHOLE])
        taken += take_all(replay)
    assert [picture.captured_at.isoformat() for picture in taken] == [
        "2025-03-01T08:20:30.250000+00:00",
        "2023-11-14T22:13:20.123456+00:00",
        "1969-12-31T00:00:00+00:00",
    ]


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
    samples.add("a.jpg", data=whole(b"half"))
    read = Path.read_bytes

    def read_while_written(path: Path) -> bytes:
        data = read(path)
        monkeypatch.undo()
        samples.add("a.jpg", data=whole(b"whole picture"), age=30)
        return data

    with samples.replay() as replay:
        monkeypatch.setattr(Path, "read_bytes", read_while_written)
        assert take_all(replay) == []
        assert [picture.data for picture in take_all(replay)] == [whole(b"whole picture")]


def test_too_large_is_refused_once_by_name(samples: Samples, clock: Watch, caplog: pytest.LogCaptureFixture) -> None:
    samples.add("a.jpg", "c.jpg")
    with samples.replay(rounds=3) as replay:
        for size in (1001, 1501, 2001):  # it grows meanwhile
            samples.add("b.jpg", data=b"x" * size)
            take_all(replay)
            clock.passes(PATIENCE_S[Ending.MORE] / 2)
        clock.passes(PATIENCE_S[Ending.MORE])
        assert take_all(replay) == []
        assert names(take_all(replay)) == ["a.jpg", "c.jpg"] * 2
    assert samples.refused == 1
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "b.jpg" in errors[0]
    assert "2001" in errors[0]


def test_pictures_that_are_all_refused_do_not_spin_the_rounds(samples: Samples, clock: Watch) -> None:
    samples.add("a.jpg", data=b"x" * 1001)
    with samples.replay(rounds=0) as replay:
        for _ in range(5):
            assert replay.take() is None
            clock.passes(PATIENCE_S[Ending.MORE])
    assert samples.refused == 1
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


def test_images_of_two_pis_are_different_and_the_notes_of_one_do_not_count_for_the_other(samples: Samples) -> None:
    samples.add("a.jpg")
    ids = set()
    for pi_id in ("pi1", "pi2"):
        with samples.replay(pi_id=pi_id) as replay:
            ids.add(take_all(replay)[0].image_id)
    assert len(ids) == 2


def test_notes_from_before_they_named_the_pi_count(samples: Samples) -> None:
    samples.add("a.jpg")
    with samples.replay() as replay:
        take_all(replay)
    first, *lines = samples.notes.read_text().splitlines(keepends=True)
    about = json.loads(first)
    del about["pi_id"]
    samples.notes.write_text("".join([json.dumps(about) + "\n", *lines]))
    with samples.replay() as replay:
        assert take_all(replay) == []


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
