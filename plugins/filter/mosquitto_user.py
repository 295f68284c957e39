# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that writes a line of mosquitto's password file."""

import base64
import hashlib
from collections.abc import Callable

ITERATIONS = 10_000
ITERATIONS_GENERATED = 101
"""As mosquitto_passwd's own. 32 random characters cannot be guessed however fast a guess is, and each attempt to log in
costs the broker's only thread as much as one.
"""
SALT_BYTES = 12  # mosquitto refuses any other length


def mosquitto_user(user: str, password: str, generated: bool = False) -> str:
    """Return the line of `user` in mosquitto's password file: PBKDF2-HMAC-SHA512, as `mosquitto_passwd` writes it.

    A `generated` password is random and long, and is not stretched. The salt is worked out from user and password, so
    that the same two give the same line and a second run changes nothing. It takes as long to work out as the hash
    itself: a quick digest here would be the shorter way to a guess.
    """
    rounds = ITERATIONS_GENERATED if generated else ITERATIONS
    salt = hashlib.pbkdf2_hmac("sha512", password.encode(), b"posture.edge:" + user.encode(), rounds, dklen=SALT_BYTES)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"{user}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters of this file by name."""
        return {"mosquitto_user": mosquitto_user}
