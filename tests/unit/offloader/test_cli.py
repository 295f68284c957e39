"""The command line: shapes that tools read, and errors that name the cause."""

import json
from pathlib import Path
from typing import Any

import pytest
from posture_offloader.cli import main
from posture_offloader.trace import Trace

from tests.support import scenarios


def write(trace: Trace, path: Path) -> Path:
    lines = [trace.header.as_json(), *({"t": tick.time, "loads": tick.loads} for tick in trace.ticks)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write(scenarios.own_load(), tmp_path / "trace.jsonl")


def output(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_replay_prints_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = output(capsys, "replay", trace, "--closed-loop")
    assert set(result) == {"moves", "flaps", "overload_seconds", "moves_per_hour", "placements"}
    assert [(move["t"], move["stream"], move["from"], move["to"]) for move in result["moves"]] == [
        (0, "pi1", None, "nuc"),
        (66, "pi1", "nuc", "agx"),
    ]
    assert (result["flaps"], result["overload_seconds"], result["moves_per_hour"]) == (0, 6, 1)
    assert result["placements"] == {"pi1": "agx"}


def test_replay_prints_what_a_person_reads(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(trace), "--closed-loop"]) == 0
    text = capsys.readouterr().out
    assert "66 s  pi1: nuc -> agx  (nuc is overloaded" in text
    assert "1 moves in 1.00 h, 1.0 an hour; 0 flaps; 6 s overloaded" in text
    assert text.endswith("in the end: pi1 on agx\n")


def test_replay_draws_a_picture(trace: Path, tmp_path: Path) -> None:
    picture = tmp_path / "replay.png"
    assert main(["replay", str(trace), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_limit_of_streams_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = output(capsys, "replay", write(scenarios.herd(), tmp_path / "herd.jsonl"), "--streams-per-node", 1)
    placed = [node for node in result["placements"].values() if node]
    assert sorted(placed) == ["agx", "nuc", "orin"]  # home, though it is busy, as the last resort


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay", "none.jsonl"], "none.jsonl: cannot be read"),
        (["explain"], "no node is known: give --inventory"),
        (["explain", "--worker", "agx"], "no Prometheus is known: give --prometheus"),
        (["explain", "--inventory", "nowhere"], "inventory nowhere: there is no such file"),
        (["explain", "--worker", "agx", "--prometheus", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["explain", "--worker", "agx", "--prometheus", "nuc"], "must be like http://"),
    ],
)
def test_an_error_is_one_line_that_names_the_cause(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("posture-offloader: ")
    assert said in lines[0]


def test_a_picture_of_no_known_format_is_refused(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(trace), "--plot", "replay.docx"]) == 1
    assert "replay.docx: Format 'docx' is not supported" in capsys.readouterr().err


def test_a_trace_is_never_written_over(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = trace.read_bytes()
    assert main(["record", str(trace), "--worker", "agx", "--prometheus", "http://127.0.0.1:9"]) == 1
    assert "is there already: choose another name" in capsys.readouterr().err
    assert trace.read_bytes() == before
