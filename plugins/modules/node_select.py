#!/usr/bin/python
# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402 - ansible-test wants the documentation before the imports
"""Module that chooses the node for one more stream."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_select
short_description: Choose the node that has room for one more stream, and say why
version_added: 0.1.0
description:
  - Reads the load of the candidates from Prometheus and chooses as the offloader does for a stream that has no node.
    That is the home if it has room, else the candidate with the lowest expected pressure.
  - A node's pressure is the largest of its loads in parts of that metric's C(high), so 1 is too busy. The expected
    pressure is the one with one more stream, O(stream_load).
  - A node whose load is not known, that is not Ready, cordoned, tainted, too busy, full or would be made too busy is
    rejected, and RV(rejected) says why.
  - It looks once. What happened before, such as three busy samples of five, only the offloader takes into account.
author:
  - The founders of posture.edge (@posture-edge)
extends_documentation_fragment:
  - posture.edge.prometheus
options:
  candidates:
    description:
      - The nodes to choose from, either a name each or a dictionary of C(name), C(address), C(role) and C(tainted).
      - The role V(home) is the same as naming the node in O(home). One that is C(tainted) takes no streams.
    type: list
    elements: raw
  label_selector:
    description: Chooses from the cluster's nodes with these labels instead, for example V(role=worker).
    type: str
  kubeconfig:
    description: How to reach the cluster. Without it E(KUBECONFIG) or C(~/.kube/config).
    type: path
  context:
    description: The context of O(kubeconfig), else its current one.
    type: str
  home:
    description: The candidate that is preferred as long as it has room.
    type: str
  streams:
    description: How many streams each node has already, for O(streams_per_node) and to break ties.
    type: dict
    default: {}
  stream_load:
    description:
      - What one stream adds to its node, in percent by metric. What it leaves out is 15 for C(cpu), 2 for C(memory) and
        0 for others.
    type: dict
    default: {}
  streams_per_node:
    description: How many streams a node takes at most. Without it there is no limit.
    type: int
  when_none:
    description: Whether the task fails where no node has room, or returns an empty RV(node).
    type: str
    choices: [fail, empty]
    default: fail
notes:
  - It needs the library C(requests) where it runs, and C(kubernetes) for O(label_selector).
    Delegate it to C(localhost).
seealso:
  - module: posture.edge.node_load_info
"""

EXAMPLES = r"""
- name: Choose between the home and two Jetsons
  posture.edge.node_select:
    prometheus_url: http://10.77.0.30:9090
    home: nuc
    candidates: [nuc, agx, orin]
  register: choice
  delegate_to: localhost
  run_once: true

- name: Show where the next stream goes, and why
  ansible.builtin.debug:
    msg: "{{ choice.node }}: {{ choice.reason }}"

- name: Choose among the cluster's workers; a full lab is no failure
  posture.edge.node_select:
    prometheus_url: http://10.77.0.30:9090
    label_selector: role=worker
    kubeconfig: ~/.kube/config
    streams_per_node: 1
    streams:
      agx: 1
    when_none: empty
  register: choice
  delegate_to: localhost
"""

RETURN = r"""
node:
  description: The chosen node, empty where there is none.
  returned: success
  type: str
  sample: agx
reason:
  description: Why it was chosen, or why none was.
  returned: always
  type: str
  sample: gpu 12 % of 60 %
load:
  description: The chosen node's metrics, in percent, and how many seconds old their oldest sample is.
  returned: success
  type: dict
  sample:
    cpu: {percent: 8.1, age_s: 0.81}
    gpu: {percent: 12.0, age_s: 1.3}
    memory: {percent: 41.7, age_s: 0.81}
ranking:
  description: All candidates, the best one first.
  returned: always
  type: list
  elements: dict
  sample:
    - node: agx
      role: worker
      verdict: target
      reason: gpu 12 % of 60 %
      pressure: 0.46
      expected: 0.49
      loads:
        cpu: {percent: 8.1, age_s: 0.81}
        gpu: {percent: 12.0, age_s: 1.3}
        memory: {percent: 41.7, age_s: 0.81}
    - node: nuc
      role: home
      verdict: busy
      reason: cpu 71 % of 60 %
      pressure: 1.18
      expected: 1.43
      loads:
        cpu: {percent: 71.0, age_s: 0.81}
        memory: {percent: 35.2, age_s: 0.81}
rejected:
  description: The candidates that have no room, and why.
  returned: always
  type: dict
  sample:
    nuc: "busy: cpu 71 % of 60 %"
"""

import json
import traceback
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.posture.edge.plugins.module_utils.arguments import (
    ARGUMENTS,
    hide_password,
    loads_for,
    readings_of,
)
from ansible_collections.posture.edge.plugins.module_utils.cluster import node_address, node_state
from ansible_collections.posture.edge.plugins.module_utils.load import (
    REQUESTS_MISSING,
    LoadReport,
    PrometheusError,
    metrics_from,
)
from ansible_collections.posture.edge.plugins.module_utils.observed import limits_of, nodes_of, number_of
from ansible_collections.posture.edge.plugins.module_utils.placement import (
    DEFAULT_STREAM_LOAD,
    Node,
    Settings,
    Verdict,
    Word,
    choose,
    judge,
)

OPTIONS = {
    **ARGUMENTS,
    "candidates": {"type": "list", "elements": "raw"},
    "label_selector": {"type": "str"},
    "kubeconfig": {"type": "path"},
    "context": {"type": "str"},
    "home": {"type": "str"},
    "streams": {"type": "dict", "default": {}},
    "stream_load": {"type": "dict", "default": {}},
    "streams_per_node": {"type": "int"},
    "when_none": {"type": "str", "choices": ["fail", "empty"], "default": "fail"},
}


def main() -> None:
    """Choose, and exit with the choice."""
    module = AnsibleModule(
        OPTIONS,
        supports_check_mode=True,
        mutually_exclusive=[("candidates", "label_selector")],
        required_one_of=[("candidates", "label_selector")],
        required_by={"kubeconfig": "label_selector", "context": "label_selector"},
    )
    hide_password(module)
    if REQUESTS_MISSING:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_MISSING)
    try:
        result = select(module.params)
    except (PrometheusError, ValueError) as error:
        module.fail_json(msg=str(error))
    except ImportError:
        module.fail_json(msg=missing_required_lib("kubernetes"), exception=traceback.format_exc())
    if not result["node"] and module.params["when_none"] == "fail":
        module.fail_json(msg=f"No node has room for one more stream: {result['reason']}", **result)
    module.exit_json(changed=False, **result)


def select(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the module returns; raises ValueError (wrong argument, no cluster), PrometheusError, ImportError."""
    settings = _settings(arguments)
    streams = {name: int(count) for name, count in _numbers(arguments, "streams").items()}
    entries, states = _candidates(arguments)
    home = _home(arguments["home"], entries)
    report = loads_for({**arguments, "nodes": [{**each, "role": _role(each["name"], home)} for each in entries]})
    verdicts = judge(nodes_of(report, states), settings, streams=streams)
    chosen = choose(verdicts, home)
    rejected = {
        name: f"{verdict.word.value}: {verdict.reason}"
        for name, verdict in verdicts.items()
        if verdict.word is not Word.TARGET
    }
    return {
        "node": chosen.node if chosen else "",
        "reason": chosen.reason if chosen else "; ".join(f"{name} {why}" for name, why in rejected.items()),
        "load": readings_of(report.nodes[chosen.node]) if chosen else {},
        "ranking": [_ranked(verdict, home, report) for verdict in _in_order(verdicts, chosen)],
        "rejected": rejected,
    }


def _settings(arguments: Mapping[str, Any]) -> Settings:
    limits = limits_of(metrics_from(arguments["metrics"]))
    stream_load = {**DEFAULT_STREAM_LOAD, **_numbers(arguments, "stream_load")}
    return Settings(limits=limits, stream_load=stream_load, streams_per_node=arguments["streams_per_node"])


def _numbers(arguments: Mapping[str, Any], option: str) -> dict[str, float]:
    return {name: number_of(value, f"{option}: {name}") for name, value in arguments[option].items()}


def _candidates(arguments: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Node]]:
    if arguments["label_selector"] is not None:
        return _from_cluster(arguments)
    if wrong := [each for each in arguments["candidates"] if not isinstance(each, (str, Mapping))]:
        raise ValueError(f"candidates: {wrong[0]!r} is neither a name nor a dictionary with one")
    entries = [{"name": each} if isinstance(each, str) else dict(each) for each in arguments["candidates"]]
    if not entries:
        raise ValueError("candidates is empty: name at least one node")
    if wrong := [each for each in entries if not isinstance(each.get("name"), str)]:
        raise ValueError(f"candidates: {wrong[0]} has no name")
    for each in entries:
        if unknown := sorted(each.keys() - {"name", "address", "role", "tainted"}):
            raise ValueError(
                f"candidates: {each['name']} has {unknown[0]}, and only name, address, role and tainted are known"
            )
        if each.get("role") not in (None, "home", "worker"):
            raise ValueError(f"candidates: the role of {each['name']} is home or worker, not {each['role']}")
    states = [Node(each["name"], tainted=boolean(each.pop("tainted", False), strict=False)) for each in entries]
    return entries, states


def _from_cluster(arguments: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Node]]:
    # It takes two seconds, and most tasks name their candidates.
    import kubernetes
    import urllib3
    import yaml

    selector = arguments["label_selector"]
    try:
        client = kubernetes.config.new_client_from_config(arguments["kubeconfig"], arguments["context"])
        api = kubernetes.client.CoreV1Api(client)
        listed = api.list_node(label_selector=selector, _request_timeout=10, _preload_content=False)
        found = json.loads(listed.data)["items"]
    except (
        OSError,
        kubernetes.config.ConfigException,
        kubernetes.client.ApiException,
        urllib3.exceptions.HTTPError,
        yaml.YAMLError,
    ) as error:
        raise ValueError(f"the cluster cannot be asked for its nodes with {selector}: {error}") from error
    if not found:
        raise ValueError(f"no node of the cluster has the labels {selector}: kubectl get nodes --show-labels")
    entries = [{"name": node["metadata"]["name"], "address": node_address(node)} for node in found]
    return entries, [node_state(node) for node in found]


def _home(named: str | None, entries: list[dict[str, Any]]) -> str | None:
    homes = {each["name"] for each in entries if each.get("role") == "home"} | ({named} if named else set())
    if len(homes) > 1:
        raise ValueError(f"there can be one home, not {' and '.join(sorted(homes))}")
    return next(iter(homes), None)


def _role(name: str, home: str | None) -> str:
    return "home" if name == home else "worker"


def _in_order(verdicts: Mapping[str, Verdict], chosen: Verdict | None) -> list[Verdict]:
    return sorted(
        verdicts.values(), key=lambda verdict: (verdict is not chosen, verdict.word is not Word.TARGET, verdict.rank)
    )


def _ranked(verdict: Verdict, home: str | None, report: LoadReport) -> dict[str, Any]:
    return {
        "node": verdict.node,
        "role": _role(verdict.node, home),
        "verdict": verdict.word.value,
        "reason": verdict.reason,
        "pressure": None if verdict.pressure is None else round(verdict.pressure, 3),
        "expected": None if verdict.expected is None else round(verdict.expected, 3),
        "loads": readings_of(report.nodes[verdict.node]),
    }


if __name__ == "__main__":
    main()
