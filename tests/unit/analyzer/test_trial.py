"""The note about what analyzers died of."""

import pytest
from posture_analyzer.trial import Note

A, B = ("pi1", "a"), ("pi2", "b")


@pytest.mark.parametrize(
    "note",
    [
        Note(owner="x", workers=2),
        Note(owner="x", workers=1, alone=A),
        Note(owner="x", workers=64, alone=A, ended=(A, B)),
    ],
)
def test_a_note_comes_back_from_the_broker(note: Note) -> None:
    assert Note.parse(note.to_json().encode()) == note


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"owner": 1}',
        b'{"owner": "x", "workers": "many", "alone": null, "ended": []}',
        b'{"owner": "x", "workers": 1e999, "alone": null, "ended": []}',
        b'{"owner": "x", "workers": 2, "alone": ["pi1"], "ended": []}',
        b'{"owner": "x", "workers": 2, "alone": null, "ended": 7}',
    ],
)
def test_what_is_not_a_note_is_ignored(payload: bytes) -> None:
    assert Note.parse(payload) is None


def test_an_absurd_number_of_workers_is_bounded() -> None:
    note = Note.parse(Note(owner="x", workers=10**9).to_json().encode())
    assert note is not None
    assert note.workers == 64


def test_what_was_tried_alone_at_a_death_has_had_two() -> None:
    former = Note(owner="old", workers=2, alone=A, ended=(B,))
    assert former.inherited(owner="new", workers=4) == Note(owner="new", workers=4, ended=(B, A))
    assert Note(owner="old", workers=2).inherited(owner="new", workers=4) == Note(owner="new", workers=4)


def test_the_list_is_bounded() -> None:
    ended = tuple(("pi1", str(number)) for number in range(500))
    inherited = Note(owner="old", workers=2, alone=A, ended=ended).inherited(owner="new", workers=2)
    assert len(inherited.ended) == 100
    assert inherited.ended[-1] == A
