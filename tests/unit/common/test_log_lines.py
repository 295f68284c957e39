"""The log is bounded: the first lines of a kind are shown, the others counted."""

import logging
import re
import subprocess
import sys

import pytest
from posture_common import log_lines
from posture_common.log_lines import LINES, MOST_KINDS, WINDOW_S, Collapsing, about


class Log:
    """A log whose clock the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self.filter = Collapsing(lambda record: self.lines.append(record.getMessage()), clock=lambda: self.now)

    def write(
        self, template: str, *names: object, level: int = logging.WARNING, logger: str = "posture", camera: str = ""
    ) -> None:
        record = logging.LogRecord(logger, level, __file__, 1, template, names, None)
        vars(record).update(about(camera))
        if self.filter.filter(record):
            self.lines.append(record.getMessage())


def test_the_first_of_a_kind_are_shown_with_what_they_name_and_the_others_counted() -> None:
    log = Log()
    for number in range(LINES + 230):
        log.write("image %d of %s is refused", number, "pi1")
    log.write("something else")
    assert log.lines == [*(f"image {number} of pi1 is refused" for number in range(LINES)), "something else"]
    log.now += WINDOW_S
    log.write("image %d of %s is refused", 9999, "pi1")
    assert log.lines[LINES + 1 :] == [
        f"230 more like it in the last minute, the last: image {LINES + 229} of pi1 is refused",
        "image 9999 of pi1 is refused",
    ]


def test_levels_and_modules_are_different_kinds() -> None:
    log = Log()
    for logger in ("one", "other"):
        for level in (logging.INFO, logging.ERROR):
            for _ in range(2 * LINES):
                log.write("the same", level=level, logger=logger)
    assert len(log.lines) == 4 * LINES


def test_one_camera_does_not_hide_what_is_said_of_another() -> None:
    log = Log()
    for number in range(3 * LINES):
        log.write("image %d of %s is refused", number, "pi1", camera="pi1")
    log.write("image %d of %s is refused", 1, "pi2", camera="pi2")
    assert log.lines[LINES:] == ["image 1 of pi2 is refused"]


def test_few_lines_pass_and_a_single_one_more_is_shown_as_it_was() -> None:
    log = Log()
    for number in range(LINES + 1):
        log.write("line %d", number)
    log.filter.flush()
    log.filter.flush()
    assert log.lines == [f"line {number}" for number in range(LINES + 1)]


def test_who_debugs_sees_all() -> None:
    log = Log()
    for number in range(5 * LINES):
        log.write("line %d", number, level=logging.DEBUG)
    assert len(log.lines) == 5 * LINES


def test_its_memory_is_bounded_although_each_line_is_a_kind_of_its_own() -> None:
    log = Log()
    for number in range(3 * MOST_KINDS):
        log.now += 0.001
        log.write(f"line {number}")
    assert len(log.filter._kinds) <= MOST_KINDS
    assert len(log.lines) == 3 * MOST_KINDS


def test_the_count_is_told_although_no_further_line_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "WINDOW_S", 0.05)
    log = Log()
    for _ in range(LINES + 2):
        log.write("the same")
    assert log.filter._timer is not None
    log.filter._timer.join(5)
    assert log.lines[-1] == "2 more like it in the last minute, the last: the same"


def test_a_program_tells_the_count_at_its_end() -> None:
    program = (
        "import logging; from posture_common.service import set_up_logging; set_up_logging('INFO')\n"
        "for number in range(250): logging.getLogger('posture').warning('image %d', number)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    lines = said.splitlines()
    assert len(lines) == LINES + 1
    assert re.fullmatch(
        r"\S+ \S+ WARNING posture: 50 more like it in the last minute, the last: image 249", lines[-1]
    ), lines[-1]
