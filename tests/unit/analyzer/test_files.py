"""`posture-analyzer image`: what people and tools read."""

import json
import os
from pathlib import Path

import pytest
from posture_analyzer import cli
from posture_analyzer.angles import Posture
from posture_analyzer.files import FileResult, table

from tests.support.images import SAMPLES, nobody

KEYS = {"file", "posture_status", "neck_angle", "body_angle", "uncertainty", "confidence", "landmarks_detected"}


def image(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setenv("POSTURE_PASSES", "2")
    monkeypatch.setattr("sys.argv", ["posture-analyzer", "image", *map(str, arguments)])
    return cli.main()


def test_a_result_as_tools_read_it() -> None:
    assert FileResult(Path("a b.jpg"), Posture("Good", 30.456, 5.0, 1.0049, "sure", True)).as_dict() == {
        "file": "a b.jpg",
        "posture_status": "Good",
        "neck_angle": 30.46,
        "body_angle": 5.0,
        "uncertainty": 1.0,
        "confidence": "sure",
        "landmarks_detected": True,
    }


def test_what_was_not_measured_is_null() -> None:
    result = FileResult(Path("x"), Posture("Undecodable image"), "cut short").as_dict()
    assert json.loads(json.dumps(result)) == dict.fromkeys(KEYS) | {
        "file": "x",
        "posture_status": "Undecodable image",
        "landmarks_detected": False,
    }


def test_the_table_as_people_read_it() -> None:
    results = [
        FileResult(Path("camera.jpg"), Posture("Bad", 59.46, 127.7, 1.64, "sure", True)),
        FileResult(Path("b.jpg"), Posture("No person detected", confidence="sure")),
        FileResult(Path("c"), Posture("Undecodable image"), "the image's data is damaged or cut short"),
    ]
    assert table(results).splitlines() == [
        "file        status              neck   body   +-  confidence",
        "camera.jpg  Bad                 59.5  127.7  1.6  sure",
        "b.jpg       No person detected     -      -    -  sure",
        "c           Undecodable image      -      -    -  the image's data is damaged or cut short",
    ]
    assert table([]) == "file  status  neck  body  +-  confidence"


def test_files_of_all_kinds_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no image", encoding="ascii")
    files = [SAMPLES / "camera.jpg", SAMPLES / "astronaut.jpg", SAMPLES / "camera-nobody.jpg", text]
    assert image(monkeypatch, *files, "--json", "--save", tmp_path / "out" / "here") == 0

    results = json.loads(capsys.readouterr().out)
    assert [set(result) for result in results] == [KEYS] * 4
    assert [result["file"] for result in results] == [str(file) for file in files]
    camera, astronaut, nobody, undecodable = results
    assert (camera["posture_status"], camera["confidence"], camera["landmarks_detected"]) == ("Bad", "sure", True)
    assert camera["neck_angle"] == pytest.approx(61, abs=4)
    assert camera["body_angle"] == pytest.approx(29, abs=3)
    assert astronaut["posture_status"] == "Landmarks not visible"
    assert astronaut["neck_angle"] == pytest.approx(10, abs=4)
    assert astronaut["body_angle"] is None
    assert (nobody["posture_status"], nobody["landmarks_detected"]) == ("No person detected", False)
    assert (undecodable["posture_status"], undecodable["confidence"]) == ("Undecodable image", None)
    assert sorted(file.name for file in (tmp_path / "out" / "here").iterdir()) == [
        "astronaut.jpg",
        "camera-nobody.jpg",
        "camera.jpg",
    ]


def test_a_file_that_cannot_be_read_is_named_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert image(monkeypatch, tmp_path / "missing.jpg", tmp_path) == 1
    output = capsys.readouterr().out
    assert "cannot read the file: No such file or directory" in output
    assert "cannot read the file: Is a directory" in output


def test_saving_overwrites_neither_a_source_nor_an_earlier_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources = [tmp_path / "monday" / "shot.jpg", tmp_path / "tuesday" / "shot.png"]
    for source in sources:
        source.parent.mkdir()
        source.write_bytes(nobody())
    assert image(monkeypatch, *sources, "--save", tmp_path / "monday") == 0
    assert [source.read_bytes() for source in sources] == [nobody()] * 2
    assert sorted(file.name for file in (tmp_path / "monday").iterdir()) == ["shot-2.jpg", "shot-3.jpg", "shot.jpg"]


def test_a_name_that_is_not_text_is_analysed_and_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    file.write_bytes(nobody())
    assert image(monkeypatch, file) == 0
    assert "caf?.jpg  No person detected" in capsys.readouterr().out
    assert image(monkeypatch, file, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["file"] == str(file)


def test_a_wrong_setting_is_one_line_and_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTURE_NECK_THRESHOLD", "steep")
    assert image(monkeypatch, "x.jpg") == 78
    captured = capsys.readouterr()
    assert captured.err.startswith("posture-analyzer: POSTURE_NECK_THRESHOLD: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
