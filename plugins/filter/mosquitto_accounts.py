# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that writes the broker's accounts, each with its rights, as mosquitto's dynamic-security plugin reads them."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ITERATIONS = 10_000
ITERATIONS_GENERATED = 101
"""As mosquitto_passwd's own. 32 random characters cannot be guessed however fast a guess is, and each attempt to log in
costs the broker's only thread as much as one.
"""
SALT_BYTES = 12  # the plugin refuses any other length
ANALYZER = "posture-analyzer"
OFFLOADER = "posture-offloader"
ANY_PI = "all"


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who may log in at the broker, and with what. Whatever is not listed is refused."""

    name: str
    client_id: str = ""
    """The only id with which it may connect, on whichever port; empty: any."""
    reads: tuple[str, ...] = ()
    """Topic filters: it may subscribe to them, and to what lies within them."""
    writes: tuple[str, ...] = ()


def pi(pi_id: str) -> Account:
    """Return the account of a Pi or another camera: it cannot take anybody else's session, nor be taken for another."""
    return Account(name=pi_id, client_id=pi_id, reads=(f"posture/results/{pi_id}",), writes=(f"images/{pi_id}",))


def analyzer(stream: str) -> Account:
    """Return the account of a stream's analyzers. They connect with several ids, so none is required."""
    pi_id = "+" if stream == ANY_PI else stream
    return Account(
        name=f"{ANALYZER}-{stream}",
        reads=(f"images/{pi_id}", f"posture/streams/{stream}/#", "$SYS/broker/#"),
        writes=(f"posture/results/{pi_id}", f"posture/streams/{stream}/+/status", f"posture/streams/{stream}/trial"),
    )


def offloader() -> Account:
    """Return the offloader's account."""
    return Account(name=OFFLOADER, reads=("posture/#",), writes=("posture/streams/#", "posture/offloader/#"))


def reader(name: str) -> Account:
    """Return an account for a dashboard: no pictures, and nothing to write."""
    return Account(name=name, reads=("posture/results/#", "posture/streams/+/+/status", "posture/offloader/status"))


def rendered(accounts: Iterable[Account], given: Mapping[str, str], generated: Mapping[str, str]) -> dict[str, Any]:
    """Return the plugin's configuration. An account without a password lets nobody in."""
    accounts = sorted(accounts, key=lambda account: account.name)
    return {
        "defaultACLAccess": dict.fromkeys(("publishClientSend", "publishClientReceive", "subscribe"), False)
        | {"unsubscribe": True},
        "clients": [_client(account, given, generated) for account in accounts],
        "groups": [],
        # The plugin knows no placeholder for a user's name, so each account has a role of its own.
        "roles": [{"rolename": account.name, "acls": _rights(account)} for account in accounts],
    }


def mosquitto_accounts(
    generated: Mapping[str, str],
    *,
    given: Mapping[str, str],
    pis: Iterable[str] = (),
    streams: Iterable[str] = (),
    readers: Iterable[str] = (),
    with_offloader: bool = False,
) -> dict[str, Any]:
    """Return the accounts of a deployment with their passwords: the given one, else the generated one."""
    accounts = [*map(pi, pis), *map(analyzer, streams), *map(reader, readers)]
    return rendered([*accounts, *([offloader()] if with_offloader else [])], given, generated)


def _client(account: Account, given: Mapping[str, str], generated: Mapping[str, str]) -> dict[str, Any]:
    name = account.name
    made = generated.get(name) or ""
    password = given.get(name) or made
    return {
        "username": name,
        **({"clientid": account.client_id} if account.client_id else {}),
        "roles": [{"rolename": name}],
        **(_hashed(name, password, ITERATIONS_GENERATED if password == made else ITERATIONS) if password else {}),
    }


def _hashed(user: str, password: str, rounds: int) -> dict[str, Any]:
    """Return PBKDF2-HMAC-SHA512 of the password, as mosquitto computes it.

    The salt is worked out from user and password, so that the same two give the same hash and a second run changes
    nothing. It takes as long to work out as the hash itself: a quick digest here would be the shorter way to a guess.
    """
    salt = hashlib.pbkdf2_hmac("sha512", password.encode(), b"posture.edge:" + user.encode(), rounds, dklen=SALT_BYTES)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return {"password": base64.b64encode(key).decode(), "salt": base64.b64encode(salt).decode(), "iterations": rounds}


def _rights(account: Account) -> list[dict[str, Any]]:
    kinds = [(kind, topic) for topic in account.reads for kind in ("subscribePattern", "publishClientReceive")]
    kinds += [("publishClientSend", topic) for topic in account.writes]
    return [{"acltype": kind, "topic": topic, "allow": True} for kind, topic in kinds]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        """Return the filters of this file by name."""
        return {"mosquitto_accounts": mosquitto_accounts}
