# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that names a machine as a certificate does."""

import ipaddress
from collections.abc import Callable, Iterable


def certificate_names(names: Iterable[str]) -> list[str]:
    """Return the names and addresses as a certificate's subject alternative names, each once, in their order."""
    return list(dict.fromkeys(_named(str(name)) for name in names if name))


def _named(name: str) -> str:
    # A link's own address is written with its interface, which is no part of it.
    address = name.strip("[]").partition("%")[0]
    try:
        return f"IP:{ipaddress.ip_address(address).compressed}"
    except ValueError:
        return f"DNS:{name.lower().rstrip('.')}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters of this file by name."""
        return {"certificate_names": certificate_names}
