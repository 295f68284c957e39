"""What runs inside the sandbox (sandbox.py): `python -m posture_analyzer.sandboxed LIMITS`, a socket as its input.

A request is a JSON object and bytes; so is an answer. The program imports little, so that it starts in 0.1 s.
"""

import json
import mmap
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from . import heap, picture
from .angles import Posture
from .annotate import annotate
from .pipe import Pipe
from .privacy import Backdrop

_NO_MEMORY = "decoding it takes more memory than a picture of POSTURE_MAX_PIXELS does"


class Desk:
    """The picture that is being worked on."""

    def __init__(self, shared: NDArray[np.uint8], *, max_pixels: int, jpeg_quality: int) -> None:
        self._shared = shared
        self._max_pixels = max_pixels
        self._jpeg_quality = jpeg_quality
        self._pixels: picture.Pixels | None = None
        self._small_size = (0, 0)

    def open(self, image: bytes, *, rotate: int) -> tuple[dict[str, Any], bytes]:
        """Decode an image and keep it; share the small picture and return its shape."""
        self._pixels = None
        self._pixels = picture.read(image, max_pixels=self._max_pixels, rotate=rotate)
        small = picture.resize(self._pixels)
        self._small_size = small.shape[1], small.shape[0]
        self._shared[: small.size] = small.reshape(-1)
        return {"shape": small.shape}, b""

    def annotate(
        self, _: bytes, *, looks: Sequence[Sequence[Sequence[float]]], posture: dict[str, Any], backdrop: Backdrop
    ) -> tuple[dict[str, Any], bytes]:
        """Draw on the picture that is kept and let go of it; return the JPEG."""
        if self._pixels is None:
            raise picture.UndecodableError("no picture is open")
        pixels, self._pixels = self._pixels, None
        width, height = self._small_size
        scale = (pixels.shape[1] / width, pixels.shape[0] / height, 1)
        annotate(pixels, [np.array(points) * scale for points in looks], Posture(**posture), backdrop=backdrop)
        return {}, picture.to_jpeg(pixels, quality=self._jpeg_quality)


def serve(pipe: Pipe, desk: Desk) -> None:
    """Answer requests until the analyzer hangs up."""
    actions: dict[str, Callable[..., tuple[dict[str, Any], bytes]]] = {"decoding": desk.open, "drawing": desk.annotate}
    while True:
        request, data = pipe.receive(longest=sys.maxsize)
        action = actions[request.pop("do")]
        signal.setitimer(signal.ITIMER_PROF, request.pop("cpu_s"))
        problem, over_limit = None, False
        about: dict[str, Any] = {}
        result = b""
        try:
            about, result = action(bytes(data), **request)
        except picture.UndecodableError as error:
            problem = str(error)
        except MemoryError:
            problem, over_limit = _NO_MEMORY, True
        except cv2.error as error:
            over_limit = error.code == cv2.Error.StsNoMem
            problem = _NO_MEMORY if over_limit else f"OpenCV refuses it: {error.err}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        del data
        pipe.send({"problem": problem, "over_limit": over_limit, **about}, result)


def main() -> None:
    """Set the limits and serve."""
    limits = json.loads(sys.argv[1])
    # Who stops a whole group signals us too. The analyzer still needs its images in work, and then hangs up.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # inherited from the analyzer, which blocks some
    shared = np.frombuffer(mmap.mmap(limits.pop("shared"), 0), np.uint8)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _data_bytes() + limits.pop("memory")
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    cv2.setNumThreads(1)
    heap.keep_pictures()
    pipe = Pipe(socket.socket(fileno=sys.stdin.fileno()))
    with suppress(EOFError, ConnectionError):
        pipe.send({"ready": True})
        serve(pipe, Desk(shared, **limits))


def _data_bytes() -> int:
    """Return how much of the memory that RLIMIT_DATA counts is in use."""
    [kilobytes] = re.findall(
        r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE
    )
    return int(kilobytes) * 1024


if __name__ == "__main__":
    main()
