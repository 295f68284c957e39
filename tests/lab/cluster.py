"""Kubernetes on the node machines: writes what their base leaves open (addresses, certificates), waits for Ready.

The software and its units are in the base (node/play.yml). A unit runs where its files are: the control plane and the
DNS server on one node, kubelet and kube-proxy on each.
"""

import json
from collections.abc import Sequence

import requests

from tests.lab.api import Api, wait_for
from tests.lab.machine import Machine
from tests.lab.settings import CONTROL, Settings
from tests.support.certificates import Authority, key_pair

_PKI = "etc/kubernetes"


def configure(settings: Settings, nodes: Sequence[Machine]) -> None:
    """Write each node's files before its first start, and the administrator's kubeconfig to the state directory."""
    authority = Authority()
    server = f"https://{settings.address(CONTROL)}:6443"
    admin = authority.kubeconfig(server, authority.sign("admin", group="system:masters"))
    path = settings.state / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(admin)
    for node in nodes:
        _configure_node(settings, authority, node, server)
        if node.name == CONTROL:
            _configure_control(settings, authority, node)


def wait_ready(settings: Settings, nodes: Sequence[Machine]) -> None:
    """Return when the nodes are Ready and pods can be created."""
    names = {node.name for node in nodes}
    with Api(settings.state / "kubeconfig") as api:
        wait_for(lambda: names <= api.ready_nodes(), timeout=settings.boot_s, what=f"{', '.join(sorted(names))} Ready")
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_for(lambda: api.exists(account), timeout=settings.boot_s, what="the default service account exists")


def ready_nodes(settings: Settings) -> set[str]:
    """Return the Ready nodes; none where there is no API server."""
    try:
        with Api(settings.state / "kubeconfig") as api:
            return api.ready_nodes()
    except (requests.RequestException, FileNotFoundError):
        return set()


def _configure_node(settings: Settings, authority: Authority, node: Machine, server: str) -> None:
    address = settings.address(node.name)
    environment = {
        "NODE": node.name,
        "ADDRESS": address,
        "CONTROL": settings.address(CONTROL),
        "PODS": settings.pods,
        "SERVICES": settings.services,
    }
    node.write("etc/posture-lab/node.env", "".join(f"{name}={value}\n" for name, value in environment.items()))
    kubelet = authority.sign(f"system:node:{node.name}", group="system:nodes", hosts=(node.name,), addresses=(address,))
    proxy = authority.sign("system:kube-proxy")
    node.write(f"{_PKI}/ca.crt", authority.certificate)
    node.write(f"{_PKI}/kubelet.crt", kubelet.public)
    node.write(f"{_PKI}/kubelet.key", kubelet.key, mode=0o600)
    node.write(f"{_PKI}/kubelet.kubeconfig", authority.kubeconfig(server, kubelet), mode=0o600)
    node.write(f"{_PKI}/proxy.kubeconfig", authority.kubeconfig(server, proxy), mode=0o600)
    ipam = {"type": "host-local", "subnet": str(settings.pods_of(node.name)), "routes": [{"dst": "0.0.0.0/0"}]}
    # Not a bridge: on one, answers between two pods of a node would pass by the Service's address translation.
    plugins = [{"type": "ptp", "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    network = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
    node.write("etc/cni/net.d/10-pods.conflist", json.dumps(network, indent=2))


def _configure_control(settings: Settings, authority: Authority, node: Machine) -> None:
    server = "https://127.0.0.1:6443"
    own = settings.address(node.name)
    apiserver = authority.sign(
        "kube-apiserver",
        hosts=("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", node.name),
        addresses=(own, settings.services[1], type(own)("127.0.0.1")),
    )
    pairs = {
        "apiserver": apiserver,
        "apiserver-kubelet": authority.sign("apiserver-kubelet", group="system:masters"),
    }
    for name, pair in pairs.items():
        node.write(f"{_PKI}/{name}.crt", pair.public)
        node.write(f"{_PKI}/{name}.key", pair.key, mode=0o600)
    accounts = key_pair()
    node.write(f"{_PKI}/accounts.key", accounts.key, mode=0o600)
    node.write(f"{_PKI}/accounts.pub", accounts.public)
    for name in ("controller-manager", "scheduler"):
        pair = authority.sign(f"system:kube-{name}")
        node.write(f"{_PKI}/{name}.kubeconfig", authority.kubeconfig(server, pair), mode=0o600)
    dns = authority.sign("lab-dns", group="system:masters")
    node.write(f"{_PKI}/coredns.kubeconfig", authority.kubeconfig(server, dns), mode=0o600)
    node.write(
        f"{_PKI}/Corefile",
        f"""\
.:53 {{
    errors
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig /{_PKI}/coredns.kubeconfig
        ttl 5
    }}
    forward . /etc/resolv.conf
}}
""",
    )
