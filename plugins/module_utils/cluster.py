# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node object of Kubernetes says, as the policy and load.py take it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .placement import Node

# Kubernetes says by a taint too that a node is cordoned or not Ready; these are no taints that somebody set.
_SAID_AGAIN = frozenset(f"node.kubernetes.io/{what}" for what in ("unschedulable", "not-ready", "unreachable"))


def node_state(node: Mapping[str, Any]) -> Node:
    """Return all that the policy needs of a node but its loads."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
    taints = [each for each in spec.get("taints") or [] if each["key"] not in _SAID_AGAIN]
    return Node(
        node["metadata"]["name"],
        ready=conditions.get("Ready") == "True",
        cordoned=bool(spec.get("unschedulable")),
        tainted=any(each["effect"] in ("NoSchedule", "NoExecute") for each in taints),
    )


def node_address(node: Mapping[str, Any]) -> str | None:
    """Return the address by which the other nodes know it."""
    addresses = (node.get("status") or {}).get("addresses") or []
    return next((each["address"] for each in addresses if each["type"] == "InternalIP"), None)
