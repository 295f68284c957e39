"""The lab's network: a namespace with a bridge as switch and router, an uplink to this computer, links to machines.

machine (eth0) --- bridge br0 [namespace <name>] uplink --- <name>-up [this computer] --- package registries
"""

import json

from tests.lab import host
from tests.lab.settings import NODES, Settings
from tests.lab.tools import run


def make(settings: Settings) -> None:
    """Make switch, router and uplink: machines reach name servers and the web through it, and nothing else."""
    name = settings.name
    up, down = settings.uplink[1], settings.uplink[2]
    run("ip", "netns", "add", name)
    run("ip", "link", "add", f"{name}-up", "type", "veth", "peer", "name", "uplink", "netns", name)
    _batch(
        name,
        "link set lo up",
        "link add br0 type bridge",
        f"addr add {settings.router}/{settings.subnet.prefixlen} dev br0",
        "link set br0 up",
        f"addr add {down}/{settings.uplink.prefixlen} dev uplink",
        "link set uplink up",
        f"route add default via {up}",
        *(f"route add {settings.pods_of(node)} via {settings.address(node)}" for node in NODES),
    )
    _batch(
        "",
        f"addr add {up}/{settings.uplink.prefixlen} dev {name}-up",
        f"link set {name}-up up",
        f"route add {settings.subnet} via {down}",
    )
    inside = ("nsenter", f"--net=/run/netns/{name}")
    run(*inside, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    servers = "".join(
        f"-A FORWARD -d {server} -p {p} --dport 53 -j ACCEPT\n" for server in host.nameservers() for p in ("udp", "tcp")
    )
    run(
        *inside,
        "iptables-restore",
        stdin=f"""\
*nat
-A POSTROUTING -o uplink -j MASQUERADE
COMMIT
*filter
-A FORWARD ! -o uplink -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
{servers}-A FORWARD -d {up} -j REJECT
-A FORWARD -p tcp -m multiport --dports 80,443 -j ACCEPT
-A FORWARD -j REJECT
COMMIT
""",
    )


def remove(settings: Settings) -> None:
    """Take away switch, router, uplink and every machine's namespace, whatever of them is there."""
    links = {link["ifname"] for link in json.loads(run("ip", "-j", "link"))}
    if f"{settings.name}-up" in links:
        run("ip", "link", "del", f"{settings.name}-up")
    for namespace in host.namespaces():
        if namespace == settings.name or namespace.startswith(f"{settings.name}-"):
            run("ip", "netns", "del", namespace)


def attach(settings: Settings, machine: str) -> None:
    """Give a machine its namespace with the link eth0 in it; its hardware address is always the same."""
    namespace = settings.namespace(machine)
    address = settings.address(machine)
    run("ip", "netns", "add", namespace)
    hardware = "02:00:" + ":".join(f"{byte:02x}" for byte in address.packed)
    _batch(
        settings.name,
        f"link add {machine} type veth peer name eth0 address {hardware} netns {namespace}",
        f"link set {machine} master br0 up",
    )
    pods = [
        f"route add {settings.pods_of(node)} via {settings.address(node)}"
        for node in NODES
        if machine in NODES and node != machine
    ]
    _batch(
        namespace,
        "link set lo up",
        f"addr add {address}/{settings.subnet.prefixlen} dev eth0",
        "link set eth0 up",
        f"route add default via {settings.router}",
        *pods,
    )


def detach(settings: Settings, machine: str) -> None:
    """Take a machine's namespace and link away."""
    if settings.namespace(machine) in host.namespaces():
        run(
            "ip", "-n", settings.name, "link", "del", machine
        )  # at once; with the namespace alone it would take a moment
        run("ip", "netns", "del", settings.namespace(machine))


def set_link(settings: Settings, machine: str, *, up: bool) -> None:
    """Plug a machine's cable in or out, at the switch."""
    run("ip", "-n", settings.name, "link", "set", machine, "up" if up else "down")


def link_is_up(settings: Settings, machine: str) -> bool:
    """Whether the cable of a machine that is on is plugged in."""
    (link,) = json.loads(run("ip", "-n", settings.name, "-j", "link", "show", machine))
    return "UP" in link["flags"]


def _batch(namespace: str, *commands: str) -> None:
    run("ip", *(["-n", namespace] if namespace else []), "-batch", "-", stdin="\n".join(commands) + "\n")
