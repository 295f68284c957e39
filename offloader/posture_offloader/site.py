"""What the commands look at: Prometheus, nodes and streams, from an inventory of Ansible or from the command line."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posture_edge import load, placement
from posture_edge.observed import limits_of, nodes_of, number_of


class SiteError(ValueError):
    """Inventory or command line do not say what is needed; the message names what, and how to give it."""


@dataclass(frozen=True)
class Site:
    """A lab as the policy needs to know it. `home` is its home's name; `tainted`: it carries the taint for others."""

    prometheus: load.Prometheus
    metrics: tuple[load.Metric, ...]
    nodes: tuple[load.Node, ...]
    streams: tuple[str, ...]
    home: str | None
    tainted: bool
    scrape_interval_s: float
    settings: placement.Settings

    def look(self) -> list[placement.Node]:
        """Ask Prometheus once and return all nodes as they are now; raises load.PrometheusError."""
        report = load.read_loads(self.prometheus, self.metrics, self.nodes, scrape_interval_s=self.scrape_interval_s)
        return nodes_of(
            report, [placement.Node(each.name, tainted=self.tainted and each.name == self.home) for each in self.nodes]
        )

    @property
    def free_home(self) -> str | None:
        """The home that streams may go to."""
        return None if self.tainted else self.home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `from_arguments` reads."""
    parser.add_argument("-i", "--inventory", type=Path, help="Ansible's inventory: nodes, streams and settings")
    parser.add_argument("--prometheus", metavar="URL", help="instead of the inventory's, e.g. http://nuc:9090")
    parser.add_argument("--home", metavar="NAME[=ADDRESS]", help="the node that streams come home to")
    parser.add_argument("--worker", action="append", default=[], metavar="NAME[=ADDRESS]", help="once for each")
    parser.add_argument("--stream", action="append", default=[], metavar="NAME", help="once for each; default: all")


def from_arguments(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Site:
    """Return the site; what the command line says wins over the inventory. Raises SiteError."""
    inventory = _read_inventory(arguments.inventory) if arguments.inventory else _Inventory({})
    variables = inventory.variables
    home = _node(arguments.home, worker=False) if arguments.home else inventory.home()
    workers = [_node(text, worker=True) for text in arguments.worker] or inventory.workers()
    nodes = (*([home] if home else []), *(worker for worker in workers if not home or worker.name != home.name))
    if not nodes:
        raise SiteError(
            "no node is known: give --inventory with hosts in the groups home and workers, or --worker NAME"
        )
    try:
        _check(variables, "posture_prometheus_url" if not arguments.prometheus else "")
        metrics = load.metrics_from(variables.get("posture_metrics"))
        prometheus = load.Prometheus(
            arguments.prometheus or inventory.prometheus_url(),
            token=_secret(environ, variables, "posture_prometheus_token"),
            user=variables.get("posture_prometheus_user"),
            password=_secret(environ, variables, "posture_prometheus_password"),
            ca_file=variables.get("posture_prometheus_ca_file"),
        )
        scrape_interval_s = number_of(variables.get("posture_scrape_interval") or 2, "posture_scrape_interval")
        tainted = _is_true(variables.get("posture_taint_home"))
        settings = settings_from(metrics, variables)
    except ValueError as error:
        raise SiteError(str(error)) from None
    return Site(
        prometheus=prometheus,
        metrics=metrics,
        nodes=nodes,
        streams=tuple(arguments.stream) or inventory.streams(),
        home=home.name if home else None,
        tainted=tainted,
        scrape_interval_s=scrape_interval_s,
        settings=settings,
    )


def settings_from(metrics: Iterable[load.Metric], variables: Mapping[str, Any]) -> placement.Settings:
    """Return the policy's settings from the metrics and from Ansible's variables."""
    wanted = variables.get("posture_stream_load") or {}
    if not isinstance(wanted, Mapping):
        raise SiteError(f"posture_stream_load: it is percent by metric, not {wanted!r}")
    given = {metric: number_of(more, f"posture_stream_load: {metric}") for metric, more in wanted.items()}
    return placement.Settings(
        limits=limits_of(metrics),
        stream_load={**placement.DEFAULT_STREAM_LOAD, **given},
        streams_per_node=int(number_of(variables.get("posture_streams_per_node") or 0, "posture_streams_per_node"))
        or None,
    )


def _check(variables: Mapping[str, Any], *also: str) -> None:
    """Raise SiteError for a variable that only a playbook can work out: `ansible-inventory` does not."""
    ours = ("posture_metrics", "posture_stream_load", "posture_streams_per_node", "posture_taint_home", *also)
    ours += ("posture_scrape_interval", "posture_prometheus_user", "posture_prometheus_ca_file")
    for name in ours:
        text = json.dumps(variables.get(name))
        if "{{" in text or "__ansible_vault" in text:
            raise SiteError(f"{name} is a template or in a Vault, which only a playbook can read: write it out")


def _is_true(value: object) -> bool:
    """Return what Ansible takes the value for: an inventory in INI form says "false"."""
    return str(value).strip().lower() in ("true", "yes", "on", "1", "y", "t", "1.0")


@dataclass(frozen=True)
class _Inventory:
    """The output of `ansible-inventory --list`."""

    listed: Mapping[str, Any]

    @property
    def variables(self) -> Mapping[str, Any]:
        """The variables of the first node: what concerns the whole site is the same on all."""
        hosts = self._hosts("home") or self._hosts("workers") or self._hosts("metrics")
        return self._variables_of(hosts[0]) if hosts else {}

    def home(self) -> load.Node | None:
        hosts = self._hosts("home")
        if len(hosts) > 1:
            raise SiteError(f"group home has {len(hosts)} hosts ({', '.join(hosts)}): leave one")
        return load.Node(hosts[0], self._address(hosts[0]), worker=False) if hosts else None

    def workers(self) -> list[load.Node]:
        return [load.Node(host, self._address(host)) for host in self._hosts("workers")]

    def streams(self) -> tuple[str, ...]:
        return tuple(str(self._variables_of(pi).get("pi_id", pi)) for pi in self._hosts("pis")) or ("all",)

    def prometheus_url(self) -> str:
        url = self.variables.get("posture_prometheus_url")
        if url:
            return str(url)
        hosts = self._hosts("metrics")
        if not hosts:
            raise SiteError(
                "no Prometheus is known: give --prometheus URL, posture_prometheus_url or a host in group metrics"
            )
        return f"http://{self._address(hosts[0])}:{self.variables.get('posture_prometheus_port', 9090)}"

    def _address(self, host: str) -> str:
        variables = self._variables_of(host)
        if variables.get("ansible_connection") == "local":
            return "127.0.0.1"
        return str(variables.get("posture_address") or variables.get("ansible_host") or host)

    def _hosts(self, group: str) -> list[str]:
        found = self.listed.get(group, {})
        return [*found.get("hosts", []), *(host for child in found.get("children", []) for host in self._hosts(child))]

    def _variables_of(self, host: str) -> Mapping[str, Any]:
        variables: Mapping[str, Any] = self.listed.get("_meta", {}).get("hostvars", {}).get(host, {})
        return variables


def _read_inventory(path: Path) -> _Inventory:
    if not path.exists():
        raise SiteError(f"inventory {path}: there is no such file or directory")
    command = shutil.which("ansible-inventory", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if command is None:
        raise SiteError(
            "ansible-inventory, which reads --inventory, is not installed: run `make up` once, or name the nodes"
        )
    ran = subprocess.run([command, "-i", str(path), "--list"], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SiteError(f"inventory {path}: ansible-inventory says: {ran.stderr.strip()}")
    return _Inventory(json.loads(ran.stdout))


def _node(text: str, *, worker: bool) -> load.Node:
    name, _, address = text.partition("=")
    return load.Node(name, address or None, worker=worker)


def _secret(environ: Mapping[str, str], variables: Mapping[str, Any], name: str) -> str | None:
    """Return a secret of the environment or a file of it, else the inventory's; the command line would show it."""
    if path := environ.get(f"{name.upper()}_FILE"):
        return Path(path).read_text(encoding="utf-8").strip()
    secret = environ.get(name.upper()) or variables.get(name)
    if isinstance(secret, Mapping) or "{{" in str(secret):
        raise SiteError(f"{name} is a template or in a Vault, which only a playbook can read: set {name.upper()}")
    return None if secret is None else str(secret)
