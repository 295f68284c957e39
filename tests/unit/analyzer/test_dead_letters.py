"""Refused rows as files: complete or not there, once each, within their bounds, and as they were."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from posture_analyzer.dead_letters import DeadLetters, DeadLettersFullError
from posture_analyzer.refusals import Refusal

from tests.support.rows import row

REFUSAL = Refusal(reason="too long", state="22001", column="filename", value="'x'")


def test_a_row_is_kept_as_it_was(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    refused = row("a", filename="Küche\n😀.jpg", captured_time=None, clock_suspect=True, neck_angle=None)
    assert letters.put(refused, REFUSAL)
    letter = letters.find(refused.key)
    assert letter is not None
    assert (letter.row, letter.reason) == (refused, "column filename = 'x': too long")
    assert letters.find(row("b").key) is None


def test_a_row_that_comes_again_is_kept_once(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    assert letters.put(row("a"), REFUSAL)
    assert not letters.put(row("a", analyzed_time=datetime(2027, 1, 1, tzinfo=UTC)), REFUSAL)
    assert len(letters.paths()) == 1
    letter = letters.find(row("a").key)
    assert letter is not None
    assert letter.row == row("a")


def test_images_with_one_id_of_two_pis_are_two(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    assert letters.put(row("a"), REFUSAL)
    assert letters.put(row("a", pi_id="pi2"), REFUSAL)
    assert len(letters.paths()) == 2


def test_it_says_how_many_there_are_at_a_restart_too(tmp_path: Path) -> None:
    assert DeadLetters(tmp_path).note() is None
    DeadLetters(tmp_path).put(row("a"), REFUSAL)
    where = f"in {tmp_path / 'dead-letters'}; mend the table, then run posture-analyzer retry"
    assert DeadLetters(tmp_path).note() == f"1 row was refused and lies {where}"
    DeadLetters(tmp_path).put(row("b"), REFUSAL)
    assert DeadLetters(tmp_path).note() == f"2 rows were refused and lie {where}"


def test_when_it_is_full_nothing_goes_in_and_nothing_goes(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, max_letters=2)
    letters.put(row("a"), REFUSAL)
    letters.put(row("b"), REFUSAL)
    with pytest.raises(
        DeadLettersFullError, match=r"dead-letters is full: 2 refused rows .* run posture-analyzer retry"
    ):
        letters.put(row("c"), REFUSAL)
    assert not letters.put(row("a"), REFUSAL), "what is there already needs no room"
    assert len(list((tmp_path / "dead-letters").iterdir())) == 2


def test_it_is_bounded_by_bytes_too(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, max_bytes=1500)
    letters.put(row("a"), REFUSAL)
    with pytest.raises(DeadLettersFullError, match="1500 bytes"):
        letters.put(row("b", filename="x" * 1500), REFUSAL)
    assert len(letters.paths()) == 1


def test_file_and_folders_are_flushed_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    letters = DeadLetters(tmp_path)
    letters.put(row("a"), REFUSAL)
    [path] = letters.paths()
    assert flushed == [tmp_path, path.with_name(f".{path.name}.part"), path.parent]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"row": {}, "refused": ""}', b'{"row": 5, "refused": ""}', b"\xff"]
)
def test_a_damaged_file_is_not_taken_for_the_row(tmp_path: Path, damage: bytes) -> None:
    letters = DeadLetters(tmp_path)
    letters.put(row("a"), REFUSAL)
    [path] = letters.paths()
    path.write_bytes(damage)
    assert letters.find(row("a").key) is None
    assert letters.put(row("a"), REFUSAL), "it is written anew"
    assert letters.find(row("a").key) is not None


def test_a_file_of_an_earlier_version_has_no_doubt_about_its_clock(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.put(row("a"), REFUSAL)
    [path] = letters.paths()
    path.write_text(path.read_text().replace(',\n  "clock_suspect": false', ""))
    letter = letters.find(row("a").key)
    assert letter is not None
    assert letter.row == row("a")
