# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What modules that read load from Prometheus have in common."""


class ModuleDocFragment:
    """What Ansible looks for; the arguments themselves are in module_utils/arguments.py."""

    DOCUMENTATION = r"""
requirements:
  - python >= 3.11
  - requests
options:
  prometheus_url:
    description:
      - Where Prometheus answers, with its path prefix if it has one.
      - Logs show it. Credentials belong into O(token), or O(user) and O(password).
    type: str
    required: true
  token:
    description: Bearer token. Excludes O(user).
    type: str
  user:
    description: User for basic authentication.
    type: str
  password:
    description: Password for basic authentication.
    type: str
  ca_file:
    description: Certificate of the authority that signed Prometheus's own, a PEM file where the module runs.
    type: path
  validate_certs:
    description: Whether Prometheus's certificate must be valid.
    type: bool
    default: true
  timeout:
    description: Seconds to wait for the connection, and again for the answer to each query.
    type: float
    default: 5
  scrape_interval:
    description:
      - Seconds between two scrapes of the exporters. Samples older than three of them make a node unknown.
    type: float
    default: 2
  metrics:
    description:
      - What load is. C(gpu), C(cpu) and C(memory) have defaults, which an entry of that name changes key by key.
      - Without this, those three.
    type: list
    elements: dict
    suboptions:
      name:
        description: The metric's name.
        type: str
        required: true
      preset:
        description:
          - Takes the query for the exporter of that name.
          - All but V(node_exporter) have C(gpu), V(tegrastats) and V(node_exporter) have C(cpu) and C(memory).
        type: str
        choices: [lab_jetson, jetson_stats, tegrastats, node_exporter]
      query:
        description:
          - PromQL that gives one series for each node. It wins over O(metrics[].preset).
          - C($window) in it stands for a range that holds two samples for certain, as C(irate) needs it.
        type: str
      scale:
        description: Whether the query gives percent or a ratio of 1. V(percent) where it is not given.
        type: str
        choices: [percent, ratio]
      high:
        description: From this many percent on the node is overloaded.
        type: float
      low:
        description: Below this many percent a home is free again.
        type: float
      node_label:
        description: The label that names the node, C(node) where it is not given.
        type: str
      required_by:
        description: V(all), V(workers), or a list of nodes. A node without a metric that it must have is unknown.
        type: raw
      sampled_at:
        description:
          - PromQL for the Unix time of each node's samples, for queries whose selectors do not tell it.
          - An example is C(node_textfile_mtime_seconds), where a script writes the values to a file.
        type: str
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise.
    support: full
    details: It only reads.
  diff_mode:
    description: Returns details on what has changed in diff mode.
    support: none
    details: It changes nothing.
  action_group:
    description: C(group/posture.edge.posture) in C(module_defaults) sets options for all modules that read load.
    support: full
    membership: [posture.edge.posture]
"""
