"""The tests' broker is set up as the role's: what a test finds out about it holds for a deployment."""

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.support.brokers import Broker
from tests.support.certificates import Authority
from tests.support.mosquitto import Mosquitto

ROLE = Path(__file__).parents[2] / "roles/broker"
DIFFERENT = {
    "user": "the tests may run as root",
    "autosave_interval": "a kill is to lose little time, not a minute of it",
    "max_inflight_messages": "cameras that send at once fill a queue sooner",
    "max_packet_size": "images that are too large are to reach the analyzer",
    "max_queued_bytes": "nothing comes near it",
    "max_inflight_bytes": "images that are too large are to reach the analyzer",
    "memory_limit": "nothing comes near it",
    "persistent_client_expiration": "no test takes 30 days",
    "log_type": "a failed test is to show more",
    "connection_messages": "a failed test is to show more",
}


def rendered(name: str, **variables: Any) -> str:
    """Render a template of the role as Ansible does."""
    loader = FileSystemLoader(ROLE / "templates")
    environment = Environment(loader=loader, trim_blocks=True, undefined=StrictUndefined)  # noqa: S701  (no HTML)
    return environment.get_template(name).render(variables)


def directives(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def general(lines: list[str]) -> dict[str, str]:
    """Return what stands before the listeners, without what differs on purpose."""
    pairs = (line.split(" ", 1) for line in takewhile(lambda line: not line.startswith("listener "), lines))
    return {name: value for name, value in pairs if name not in DIFFERENT}


def listeners(lines: list[str]) -> list[str]:
    return lines[next(at for at, line in enumerate(lines) if line.startswith("listener ")) :]


@pytest.mark.parametrize("tls", [False, True])
def test_the_settings_are_the_roles(tmp_path: Path, tls: bool) -> None:
    plugin = tmp_path / "usr/lib/mosquitto_dynamic_security.so"
    plugin.parent.mkdir(parents=True)
    plugin.touch()
    mosquitto = Mosquitto(tmp_path / "usr/sbin/mosquitto", (2, 0, 15), {})
    broker = Broker(mosquitto, tmp_path, pis=[], authority=Authority() if tls else None)
    ours = directives(broker.configuration())
    roles = directives(
        rendered(
            "mosquitto.conf.j2",
            __broker_listeners=broker.listeners,
            broker_queue_bytes_max=1,
            broker_packet_size_max=1,
            broker_memory_max=1,
            __broker_etc=tmp_path,
            __broker_plugin=plugin,
            __broker_data=tmp_path / "store",
            __common_broker_address="127.0.0.1",
        )
    )
    assert general(ours) == general(roles)
    assert listeners(ours) == listeners(roles)
