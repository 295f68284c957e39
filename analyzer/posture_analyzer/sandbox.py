"""A process of its own in which pictures are decoded and drawn: whatever a picture does there costs that picture.

    analyzer's process                      sandbox's process (sandboxed.py), one for each worker
    encoded image  ------------------------>  decode, turn upright, keep; resize
    pose model     <-- small picture -------
    landmarks, posture --------------------->  draw on the kept picture, encode
    annotated JPEG <------------------------

The sandbox has limits of memory and processor time, and the analyzer waits for an answer no longer than a limit of wall
time. A sandbox that crashed or went over a limit is replaced. What it answers is JSON and bytes: a decoder that was
taken over gets no objects into the process that holds the passwords, and no secret is in its environment.
"""

import json
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from posture_common.service import FailedError, LastingError
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from . import picture
from .angles import Landmarks, Posture
from .pipe import Pipe
from .privacy import Backdrop

BYTES_PER_PIXEL = 15
"""Most that a picture asks for, for each of its pixels, while it is decoded, turned and encoded (docs/bench.md)."""
OVERHEAD_BYTES = 48 * 2**20
"""The encoded image twice, the annotated picture, and what an allocator keeps."""
WALL_S = 30.0
"""An overloaded machine gives little processor time; one that gives none for so long has hung."""
CPU_S = 2.0
"""Processor seconds for a small image, which takes a few milliseconds."""
CPU_S_PER_BYTE = 0.25 / 2**20
LONGEST_CPU_S = 4.0
DRAW_CPU_S = 2.0

SHARED_BYTES = 3 * picture.LONGEST_SIDE**2
_DEATH_S = 2.0
_ENVIRONMENT = ("PATH", "LANG", "TZ")
_ENVIRONMENT_PREFIXES = ("PYTHON", "LD_", "LC_", "OPENBLAS_", "OMP_")
_START_S = 60.0


Side = Annotated[int, Field(strict=True, ge=1, le=picture.LONGEST_SIDE)]


class EndedError(picture.UndecodableError):
    """The picture ended the sandbox, or would have gone over a limit of it."""


class KilledError(EndedError):
    """The sandbox was killed from outside, as the kernel does where memory is short, or got no time at all.

    The picture may be innocent.
    """


class _Answer(BaseModel):
    """What the sandbox says of a result: nothing in it is believed before it is looked at."""

    model_config = ConfigDict(extra="forbid")

    problem: StrictStr | None
    over_limit: StrictBool
    shape: tuple[Side, Side, Literal[3]] = (1, 1, 3)


def cpu_limit_s(size: int) -> float:
    """Return the processor seconds that decoding an encoded image of `size` bytes may take."""
    return min(LONGEST_CPU_S, CPU_S + CPU_S_PER_BYTE * size)


def memory_limit(max_pixels: int) -> int:
    """Return the bytes that a sandbox may take above what it has before the first picture."""
    return OVERHEAD_BYTES + BYTES_PER_PIXEL * max_pixels


class Sandbox:
    """Decodes one picture at a time in a process of its own; for one thread.

    Args:
        max_pixels: pictures with more are refused; it also sets the memory limit.
        jpeg_quality: of the annotated pictures.

    Raises:
        LastingError: the operating system does not let the process start.
    """

    _pipe: Pipe
    _process: subprocess.Popen[bytes]
    _started: bool

    def __init__(self, *, max_pixels: int, jpeg_quality: int) -> None:
        # The small picture comes back here: a socket would take it in many pieces, and each is a switch of processes.
        self._shared_file = os.memfd_create("small-picture")
        os.ftruncate(self._shared_file, SHARED_BYTES)
        self._shared = mmap.mmap(self._shared_file, SHARED_BYTES)
        limits = {"max_pixels": max_pixels, "jpeg_quality": jpeg_quality, "memory": memory_limit(max_pixels)}
        arguments = json.dumps({**limits, "shared": self._shared_file})
        self._command = [sys.executable, "-P", "-m", "posture_analyzer.sandboxed", arguments]
        self._longest_answer = memory_limit(max_pixels)
        self._start()

    def open(self, image: bytes, *, rotate: int = 0, cpu_s: float | None = None) -> picture.Pixels:
        """Decode an encoded image, turn it `rotate` degrees clockwise, keep it, and return it as the model wants it.

        What is returned is overwritten by the next picture.

        Raises:
            EndedError: it crashed the decoder, or went over a limit of memory or time.
            UndecodableError: it is not a picture that can be analysed.
        """
        limit_s = cpu_limit_s(len(image)) if cpu_s is None else cpu_s
        answer, _ = self._ask("decoding", limit_s, image, rotate=rotate)
        return np.frombuffer(self._shared, np.uint8, math.prod(answer.shape)).reshape(answer.shape)

    def annotate(self, looks: Sequence[Landmarks], posture: Posture, *, backdrop: Backdrop = "picture") -> bytes:
        """Draw on what `backdrop` leaves of the picture opened last and return it as JPEG.

        The first look's skeleton is drawn; they are in pixels of what `open` returned.

        Raises:
            EndedError: as `open` does.
        """
        points = [landmarks.tolist() for landmarks in looks]
        answer = self._ask("drawing", DRAW_CPU_S, looks=points, posture=asdict(posture), backdrop=backdrop)
        return bytes(answer[1])

    def await_start(self) -> None:
        """Wait until the process is ready for a picture.

        Raises:
            FailedError: it does not start, which is no picture's fault.
        """
        if self._started:
            return
        try:
            self._pipe.receive(longest=self._longest_answer)
        except (EOFError, OSError, ValueError) as cause:
            code = None if isinstance(cause, TimeoutError) else self._exit_code()
            why = "does not say that it is ready" if code is None else f"ends with exit code {code}"
            self._end()
            raise FailedError(
                f"the process that decodes pictures does not start, it {why}: what it said stands above; try "
                "`python -m posture_analyzer.sandboxed` in the analyzer's environment"
            ) from None
        self._pipe.patience(WALL_S)
        self._started = True

    def close(self) -> None:
        """End the process."""
        self._end()
        os.close(self._shared_file)

    def _end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, doing: str, cpu_s: float, data: bytes = b"", **request: Any) -> tuple[_Answer, bytearray]:
        """Have the sandbox do something; return what it says of the result, and the result."""
        self.await_start()
        try:
            self._pipe.send({"do": doing, "cpu_s": cpu_s, **request}, data)
            about, result = self._pipe.receive(longest=self._longest_answer)
            answer = _Answer.model_validate(about)
        except (EOFError, OSError, ValueError) as cause:
            error = self._death(doing, cpu_s, cause)
            self._end()
            self._start()
            raise error from None
        if answer.over_limit:
            raise EndedError(answer.problem)
        if answer.problem is not None:
            raise picture.UndecodableError(answer.problem)
        return answer, result

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
        }
        # numpy's linear algebra would start threads that nothing here needs: half of the time to start.
        environment["OPENBLAS_NUM_THREADS"] = "1"
        try:
            with theirs:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=[self._shared_file],
                )
        except OSError as error:
            ours.close()
            raise LastingError(
                f"cannot start the process that decodes pictures: {error.strerror}; allow the user one process more "
                "for each worker"
            ) from None
        self._started = False
        self._pipe = Pipe(ours)
        self._pipe.patience(_START_S)

    def _death(self, doing: str, cpu_s: float, cause: Exception) -> EndedError:
        """Return what the process died of, or has to die of."""
        if isinstance(cause, TimeoutError):
            # A picture that keeps the processor busy is ended sooner: the machine is frozen, or the process waits.
            return KilledError(f"{doing} it took longer than {WALL_S:.0f} s")
        code = self._exit_code()
        if code is None:
            return EndedError(f"{doing} it gave an answer that cannot be read")
        match -code:
            case signal.SIGPROF:
                return EndedError(f"{doing} it took more than {cpu_s:.1f} s of processor time")
            case signal.SIGKILL:
                return KilledError(f"the process that was {doing} it was killed (is the machine short of memory?)")
            case number:
                return EndedError(f"{doing} it crashed the decoder (exit code {-number})")

    def _exit_code(self) -> int | None:
        """Return the exit code of a process that has hung up, None where it runs on."""
        try:
            return self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:
            return None
