#!/usr/bin/python
# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402 - ansible-test wants the documentation before the imports
"""Module that reads the nodes' load from Prometheus."""

DOCUMENTATION = r"""
module: node_load_info
short_description: Read the GPU, CPU and memory load of nodes from Prometheus
version_added: 0.1.0
description:
  - Asks Prometheus one query for each metric, for all nodes at once, and returns each node's load with the age of its
    samples.
  - A node without a metric that it must have, with samples older than three scrape intervals, with two series or with
    a value that cannot be is unknown, and RV(unknown) says why. It is never taken for idle; the task does not fail.
  - Fails where Prometheus itself cannot be asked.
author:
  - The founders of posture.edge (@posture-edge)
extends_documentation_fragment:
  - posture.edge.prometheus
options:
  nodes:
    description: The machines whose load is wanted.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The node's name, which its series carry as label RV(ignore:node).
        type: str
        required: true
      address:
        description:
          - Finds series without such a label by their C(instance), with or without its port.
          - The name, where it is not given.
        type: str
      role:
        description: Decides which metrics the node must have.
        type: str
        choices: [home, worker]
        default: worker
notes:
  - It needs the library C(requests) where it runs. Delegate it to C(localhost), or to the host of Prometheus.
seealso:
  - module: ansible.builtin.uri
"""

EXAMPLES = r"""
- name: Read the load of a lab
  posture.edge.node_load_info:
    prometheus_url: http://10.77.0.30:9090
    nodes:
      - name: nuc
        role: home
      - name: agx
        address: 10.77.0.31
  register: lab
  delegate_to: localhost
  run_once: true

- name: Stop where a node's load is not known
  ansible.builtin.assert:
    that: lab.unknown == {}
    fail_msg: "{{ lab.unknown.values() | join('\n') }}"

- name: Take the GPU from another exporter, and a memory limit of one's own
  posture.edge.node_load_info:
    prometheus_url: https://prometheus.lab.example
    token: "{{ prometheus_token }}"
    ca_file: /etc/ssl/certs/lab.pem
    scrape_interval: 5
    nodes:
      - name: agx
    metrics:
      - name: gpu
        preset: jetson_stats
      - name: memory
        high: 70
        low: 60
      - name: disk
        query: max by (node) (rate(node_disk_io_time_seconds_total[$window]))
        scale: ratio
        high: 80
        low: 60
"""

RETURN = r"""
loads:
  description: The metrics of each node that are known, in percent, and how many seconds old their oldest sample is.
  returned: success
  type: dict
  sample:
    agx:
      cpu: {percent: 12.3, age_s: 0.81}
      gpu: {percent: 45.0, age_s: 1.3}
      memory: {percent: 61.7, age_s: 0.81}
    nuc: {}
unknown:
  description: Why the load of a node is not known, for each such node.
  returned: success
  type: dict
  sample:
    nuc: >-
      metric cpu of node nuc is missing: none of the query's 1 series is its own, check that its exporter runs and is
      scraped (query: avg by (node) (my_cpu))
missing:
  description: For each such node the metrics that it must have and of which there is no value.
  returned: success
  type: dict
  sample:
    nuc: [cpu]
stale:
  description: For each such node the metrics whose samples are too old, with their age in seconds.
  returned: success
  type: dict
  sample:
    agx:
      gpu: 17.2
errors:
  description: Queries that failed, and series that cannot be, each with metric, node or series, and query.
  returned: success
  type: list
  elements: str
  sample:
    - >-
      metric gpu of node agx cannot be 250 percent, as jetson_gpu_usage_percent{instance="10.77.0.31:9401", node="agx"}
      says: check its exporter, and the metric's scale
      (query: jetson_gpu_usage_percent or jetson_orin_gpu_load_percent)
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.posture.edge.plugins.module_utils.arguments import (
    ARGUMENTS,
    hide_password,
    loads_for,
    readings_of,
)
from ansible_collections.posture.edge.plugins.module_utils.load import REQUESTS_MISSING, PrometheusError

NODES = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {
        "name": {"type": "str", "required": True},
        "address": {"type": "str"},
        "role": {"type": "str", "choices": ["home", "worker"], "default": "worker"},
    },
}


def main() -> None:
    """Read, and exit with what there is."""
    module = AnsibleModule({**ARGUMENTS, "nodes": NODES}, supports_check_mode=True)
    hide_password(module)
    if REQUESTS_MISSING:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_MISSING)
    try:
        report = loads_for(module.params)
    except (PrometheusError, ValueError) as error:
        module.fail_json(msg=str(error))
    nodes = report.nodes.items()
    module.exit_json(
        changed=False,
        loads={name: readings_of(load) for name, load in nodes},
        unknown={name: load.unknown for name, load in nodes if load.unknown},
        missing={name: list(load.missing) for name, load in nodes if load.missing},
        stale={
            name: {metric: round(age_s, 2) for metric, age_s in load.stale.items()}
            for name, load in nodes
            if load.stale
        },
        errors=list(report.errors),
    )


if __name__ == "__main__":
    main()
