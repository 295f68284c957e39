"""Keep the memory of pictures: what the C library gives back and takes anew for each costs a third of decoding one."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PICTURE = 16 * 2**20
"""Five million pixels; larger ones are rare and are given back."""


def keep_pictures() -> None:
    """Let the memory of ordinary pictures stay with this process; without effect where the C library is not glibc."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _PICTURE)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _PICTURE)
