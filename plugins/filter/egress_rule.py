# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that lets pods reach an address, as a rule of a Kubernetes NetworkPolicy."""

import ipaddress
from collections.abc import Callable
from typing import Any


def egress_rule(address: str, port: int) -> dict[str, Any]:
    """Return the rule. It cannot hold a name: behind one, each address is allowed at this port."""
    rule: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": int(port)}]}
    try:
        network = ipaddress.ip_network(address)
    except ValueError:
        return rule
    return {**rule, "to": [{"ipBlock": {"cidr": str(network)}}]}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file by name."""
        return {"egress_rule": egress_rule}
