"""`posture-analyzer image`: what people and tools read."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from posture_analyzer import cli
from posture_analyzer.analysis import Analysis, Analyst
from posture_analyzer.angles import Posture
from posture_analyzer.files import FileResult, analyse_files, table
from posture_analyzer.settings import AnalysisSettings
from posture_common.service import LastingError

from tests.support.images import SAMPLES, nobody, opened
from tests.support.waiting import wait_until

COMMAND = str(Path(sys.executable).parent / "posture-analyzer")

KEYS = {
    "file",
    "posture_status",
    "neck_angle",
    "body_angle",
    "uncertainty",
    "confidence",
    "landmarks_detected",
    "problem",
}


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
        "problem": None,
    }


def test_what_was_not_measured_is_null() -> None:
    result = FileResult(Path("x"), Posture("Undecodable image"), "cut short").as_dict()
    assert json.loads(json.dumps(result)) == dict.fromkeys(KEYS) | {
        "file": "x",
        "posture_status": "Undecodable image",
        "landmarks_detected": False,
        "problem": "cut short",
    }


def test_the_table_as_people_read_it() -> None:
    results = [
        FileResult(Path("camera.jpg"), Posture("Bad", 59.46, 127.7, 1.64, "sure", True)),
        FileResult(Path("b.jpg"), Posture("No person detected", confidence="sure")),
        FileResult(Path("c\n\x1b[2J"), Posture("Undecodable image"), "the image's data is damaged or cut short"),
    ]
    assert table(results).splitlines() == [
        "file        status              neck   body   +-  confidence",
        "camera.jpg  Bad                 59.5  127.7  1.6  sure",
        "b.jpg       No person detected     -      -    -  sure",
        "c??[2J      Undecodable image      -      -    -  the image's data is damaged or cut short",
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
    assert [bool(result["problem"]) for result in results] == [False, False, False, True]
    assert sorted(file.name for file in (tmp_path / "out" / "here").iterdir()) == [
        "astronaut.jpg",
        "camera-nobody.jpg",
        "camera.jpg",
    ]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("missing", "No such file or directory"),
        ("directory", "Is a directory"),
        ("fifo", "it is a pipe or a device, not a regular file"),
        ("/dev/zero", "it is a pipe or a device, not a regular file"),
        ("loop", "Too many levels of symbolic links"),
        ("n" * 300, "File name too long"),
        ("10 GB", "it has more than the 20971520 bytes of POSTURE_MAX_IMAGE_BYTES"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_the_others_follow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, problem: str
) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "10 GB").open("wb") as huge:
        huge.truncate(10 * 2**30)
    (tmp_path / "good.jpg").write_bytes(nobody())
    assert image(monkeypatch, tmp_path / kind, tmp_path / "good.jpg", "--json", "--save", tmp_path / "out") == 1
    wrong, good = json.loads(capsys.readouterr().out)
    assert (wrong["posture_status"], wrong["problem"]) == ("Undecodable image", f"cannot read the file: {problem}")
    assert (good["posture_status"], good["problem"]) == ("No person detected", None)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    for name in ("secret.jpg", "good.jpg"):
        (tmp_path / name).write_bytes(nobody())
    (tmp_path / "secret.jpg").chmod(0)
    # root reads everything; without its capabilities it does not
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    command = [*unprivileged, COMMAND, "image", str(tmp_path / "secret.jpg"), str(tmp_path / "good.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot read the file: Permission denied" in done.stdout
    assert "good.jpg    No person detected" in done.stdout


@pytest.mark.parametrize("stem", [250 * "x", 83 * "摄", "x" + 83 * "像", 62 * "🙂" + "xx"], ids=len)
def test_a_name_of_any_length_has_a_readable_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, stem: str
) -> None:
    same_beginning = [f"{stem}.jpg", f"{stem}.JPG"]
    for name in same_beginning:
        (tmp_path / name).write_bytes(nobody())
    assert image(monkeypatch, *(tmp_path / name for name in same_beginning), "--save", tmp_path / "out") == 0
    second, first = sorted((path.name for path in (tmp_path / "out").iterdir()), key=lambda name: name[-6:])
    for name, ending in ((first, ".jpg"), (second, "-2.jpg")):
        assert name.endswith(ending)
        assert stem.startswith(name.removesuffix(ending))
        assert len(os.fsencode(name)) > 230, "as much of it as can be"


def test_a_picture_that_cannot_be_written_is_its_files_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(nobody())
    out = tmp_path / "out"
    (out / "b.jpg").mkdir(parents=True)
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg"]
    assert image(monkeypatch, *files, "--json", "--save", out) == 1
    results = json.loads(capsys.readouterr().out)
    assert [result["posture_status"] for result in results] == ["No person detected"] * 3
    assert [result["problem"] for result in results] == [
        None,
        f"cannot write the annotated picture into {out}: Is a directory",
        None,
    ]
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_directory_that_cannot_be_made_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(nobody())
    assert image(monkeypatch, tmp_path / "file", "--save", tmp_path / "file" / "out") == 78
    captured = capsys.readouterr()
    assert captured.err == (
        f"posture-analyzer: cannot make {tmp_path / 'file' / 'out'}: Not a directory; choose another --save directory\n"
    )
    assert captured.out == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_prints_what_there_is(tmp_path: Path, as_json: bool) -> None:
    count = 500
    (tmp_path / "a.jpg").write_bytes(nobody())
    out = tmp_path / "out"
    files = [str(tmp_path / "a.jpg")] * count
    command = [COMMAND, "image", *files, "--save", str(out), *(["--json"] if as_json else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: (out / "a-3.jpg").exists(), timeout=60, describe="the third picture")
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=20)
    assert process.returncode == 130
    printed = len(json.loads(output)) if as_json else output.count("No person detected")
    assert 2 <= printed < count
    assert error == f"posture-analyzer: interrupted after {printed} of {count} files\n"
    assert not list(out.glob(".*")), "half of a picture"


@pytest.mark.parametrize("library", ["numpy", "cv2", "_framework_bindings"])
def test_an_interrupt_of_the_start_is_one_line(tmp_path: Path, library: str) -> None:
    (tmp_path / "a.jpg").write_bytes(nobody())
    command = [COMMAND, "image", *[str(tmp_path / "a.jpg")] * 500, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        libraries = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: library in libraries.read_text(), timeout=20, describe=f"{library} is loaded", pause=0.001)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error == f"posture-analyzer: interrupted after {len(json.loads(output))} of 500 files\n"


def test_results_are_printed_although_a_later_file_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(nobody())
    analyse, calls = Analyst.analyse, itertools.count()

    def failing(self: Analyst, data: bytes, *, rotate: int) -> Analysis:
        if next(calls) == 2:
            raise LastingError("cannot use the pose model; choose another")
        return analyse(self, data, rotate=rotate)

    monkeypatch.setattr(Analyst, "analyse", failing)
    assert image(monkeypatch, *[tmp_path / "a.jpg"] * 4, "--json") == 78
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 2
    assert captured.err == "posture-analyzer: cannot use the pose model; choose another\n"


def test_a_terminal_without_the_names_characters_gets_the_table(tmp_path: Path) -> None:
    (tmp_path / "摄.jpg").write_bytes(nobody())
    done = subprocess.run(
        [COMMAND, "image", "摄.jpg"],
        cwd=tmp_path,
        env=dict(os.environ) | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b"?.jpg  No person detected" in done.stdout


def test_pictures_of_a_turned_camera_are_turned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    upright = SAMPLES / "camera.jpg"
    hanging = tmp_path / "hanging.png"
    opened(upright.read_bytes()).transpose(Image.Transpose.ROTATE_90).save(hanging)
    found = []
    for arguments in ([upright], [hanging, "--rotate", 90, "--save", tmp_path / "out"]):
        assert image(monkeypatch, *arguments, "--json") == 0
        [result] = json.loads(capsys.readouterr().out)
        found.append([result[key] for key in ("posture_status", "neck_angle", "body_angle")])
    assert found[0] == found[1]
    assert opened((tmp_path / "out" / "hanging.jpg").read_bytes()).size == opened(upright.read_bytes()).size


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


def test_what_is_not_to_be_kept_is_not_saved_and_said(tmp_path: Path) -> None:
    settings = AnalysisSettings(pictures="none")
    [result] = analyse_files([SAMPLES / "camera.jpg"], settings, save_to=tmp_path)
    assert (result.problem, result.failed) == ("no picture is kept: POSTURE_PICTURES is none", False)
    assert not list(tmp_path.iterdir())
    [unsaved] = analyse_files([SAMPLES / "camera.jpg"], settings, save_to=None)
    assert (unsaved.problem, unsaved.posture) == (None, result.posture)
