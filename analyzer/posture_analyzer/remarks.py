"""Keeps MediaPipe's remarks, which nobody can act on, out of the log, and gives the log what it says beside them.

Its C++ code writes to C's `stderr`, and no setting silences it: it asks neither GLOG_minloglevel nor
TF_CPP_MIN_LOG_LEVEL. So C's `stderr` points to a file in memory while a remark is to be expected. File descriptor 2
stays what it is: the log, child processes, Python's and the C library's own last words do not notice.
"""

import ctypes
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_UNBUFFERED = 2
_LAST = "landmark_projection_calculator.cc"
_REMARKS = re.compile(
    rf"""I\d{{4}}\ |INFO:\ |WARNING:\ All\ log\ messages\ before\ absl
    |W\d{{4}}\ .*(inference_feedback_manager\.cc|{re.escape(_LAST)})""",
    re.VERBOSE,
)
_ERROR = re.compile(r"[EF]\d{4} |ERROR: |FATAL: ")


class Remarks:
    """Holds back what is written to C's `stderr`, for any number of threads at once."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.fdopen.restype = ctypes.c_void_p
        libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
        self._stderr = ctypes.c_void_p.in_dll(libc, "stderr")
        self._own = self._stderr.value
        self._file = os.memfd_create("stderr")
        # Never closed: a thread of MediaPipe's may still be about to write there.
        self._held = libc.fdopen(self._file, b"a")
        libc.setvbuf(self._held, None, _UNBUFFERED, 0)
        self._lock = threading.Lock()
        self._users = 0
        self._all_made = False

    @contextmanager
    def of_a_new_model(self) -> Iterator[None]:
        """Hold back the remarks on the model that is loaded and used for the first time in the block."""
        self._hold()
        try:
            yield
        finally:
            self._let_go()

    @contextmanager
    def of_an_inference(self) -> Iterator[None]:
        """Hold back those of the inference in the block. The last one is made where the first person is found."""
        if self._all_made:
            yield
            return
        with self.of_a_new_model():
            yield

    def _hold(self) -> None:
        with self._lock:
            self._users += 1
            self._stderr.value = self._held

    def _let_go(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._stderr.value = self._own
            text = os.pread(self._file, 2**20, 0).decode(errors="replace")
            os.ftruncate(self._file, 0)
        self._all_made = self._all_made or _LAST in text
        for line in text.splitlines():
            if not _REMARKS.match(line):
                log.log(logging.ERROR if _ERROR.match(line) else logging.WARNING, "the pose model says: %s", line)


remarks = Remarks()
