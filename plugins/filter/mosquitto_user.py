# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that writes a line of mosquitto's password file."""

import base64
import hashlib
from collections.abc import Callable

ITERATIONS = 10_000
SALT_BYTES = 12  # mosquitto refuses any other length


def mosquitto_user(user: str, password: str) -> str:
    """Return the line of `user` in mosquitto's password file: PBKDF2-HMAC-SHA512, as `mosquitto_passwd` writes it.

    The salt is worked out from user and password, so that the same two give the same line and a second run changes
    nothing. It takes as long to work out as the hash itself: a quick digest here would be the shorter way to a guess.
    """
    salt = hashlib.pbkdf2_hmac(
        "sha512", password.encode(), b"posture.edge:" + user.encode(), ITERATIONS, dklen=SALT_BYTES
    )
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"{user}:$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[[str, str], str]]:
        """Return the filters of this file by name."""
        return {"mosquitto_user": mosquitto_user}
