"""Which ports a broker has that gets TLS, and for whom: nobody is shut out who may not have come over yet."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.plays import Task, role, run_play

PORTS = {
    "posture_mqtt_port": 1,
    "posture_mqtt_pi_port": 2,
    "posture_mqtt_tls_port": 3,
    "posture_mqtt_tls_pi_port": 4,
}
PLAIN = "listener 1 127.0.0.1\nlistener 2 127.0.0.1\n"
WITH_TLS = "listener 3 127.0.0.1\ncertfile /etc/posture/broker/broker.crt\n"
CAMERA: dict[str, Any] = {"posture_camera_passwords": {"desk-7": "Geheim"}, "__common_pi_ids": []}
pytestmark = pytest.mark.timeout(600)


class Site:
    """A broker's directory in a play on this machine, which is a Pi and has an analyzer, too."""

    def __init__(self, directory: Path, settings: str = "", plain: str = "", **variables: Any) -> None:
        self.etc = directory / "broker"
        self.etc.mkdir(parents=True)
        for name, content in (("mosquitto.conf", settings), ("plain", plain)):
            if content:
                (self.etc / name).write_text(content)
        owned = {"__broker_etc": str(self.etc), "__broker_data": str(self.etc / "data"), "__broker_plugin": "-"}
        self._variables = {**PORTS, "posture_tls": True, **owned, **variables}

    def look(self) -> list[Task]:
        """Find out who has not come over, as at the beginning of `up`, and write the settings."""
        return [
            role("broker", self._variables, tasks_from="plain"),
            role("broker", self._variables, tasks_from="settings"),
        ]

    def come_over(self, *facts: str) -> list[Task]:
        """Close what can be closed at the end of `up`, where the roles have set these facts."""
        come_over = role("broker", self._variables, tasks_from="come_over")
        setting: list[Task] = [{"ansible.builtin.set_fact": dict.fromkeys(facts, True)}] if facts else []
        return [*setting, come_over, role("broker", self._variables, tasks_from="settings")]

    @property
    def ports(self) -> list[int]:
        """Where it listens."""
        lines = (self.etc / "mosquitto.conf").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("listener ")]

    @property
    def noted(self) -> list[str]:
        """Who has not come over."""
        path = self.etc / "plain"
        return path.read_text().splitlines() if path.exists() else []


def run(directory: Path, tasks: list[Task]) -> str:
    """Needs root, or sudo without a password: the files are the broker's."""
    groups = ["broker", "database", "pis", "analyzers"]
    ran = run_play(directory, tasks, groups=groups, become=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return " ".join(ran.stdout.split())


def test_the_plain_ports_are_open_for_those_who_have_not_come_over(tmp_path: Path) -> None:
    both = ["publisher on localhost", "analyzers on localhost"]
    cases = {
        "fresh": (Site(tmp_path / "fresh"), [3, 4], []),
        "plain so far": (Site(tmp_path / "plain", PLAIN), [3, 4, 1, 2], both),
        "one is missing": (Site(tmp_path / "missing", WITH_TLS, both[0]), [3, 4, 1, 2], both[:1]),
        "one is gone": (Site(tmp_path / "gone", WITH_TLS, "publisher on pi9"), [3, 4], []),
        "all came over": (Site(tmp_path / "all", WITH_TLS), [3, 4], []),
        "an old camera": (Site(tmp_path / "old", WITH_TLS, posture_mqtt_plain_cameras=["pi1"]), [3, 4, 2], []),
        "cameras": (Site(tmp_path / "cameras", PLAIN, **CAMERA), [3, 4, 1, 2], [*both, "camera desk-7"]),
    }
    run(tmp_path, [task for site, _, _ in cases.values() for task in site.look()])
    found = {name: (site.ports, site.noted) for name, (site, _, _) in cases.items()}
    assert found == {name: (ports, noted) for name, (_, ports, noted) in cases.items()}


def test_they_are_closed_when_everybody_has_come_over(tmp_path: Path) -> None:
    site = Site(tmp_path, PLAIN)
    output = run(tmp_path, [*site.look(), *site.come_over("analyzer_over")])
    assert (site.ports, site.noted) == ([3, 4, 1, 2], ["publisher on localhost"])
    assert "Not everybody has come over to TLS yet: publisher on localhost. For them the plain ports 1 and 2" in output
    assert "Not everybody" not in run(tmp_path, [*site.look(), *site.come_over("publisher_over")])
    assert (site.ports, site.noted) == ([3, 4], [])


def test_for_cameras_that_are_not_ours_somebody_has_to_say(tmp_path: Path) -> None:
    over = ("publisher_over", "analyzer_over")
    site = Site(tmp_path / "first", PLAIN, **CAMERA)
    output = run(tmp_path, [*site.look(), *site.come_over(*over)])
    assert site.noted == ["camera desk-7"]
    assert "set posture_mqtt_plain_cameras to those that cannot do TLS ([] for none)" in output
    said = Site(tmp_path / "said", PLAIN, **CAMERA, posture_mqtt_plain_cameras=[])
    kept = Site(tmp_path / "kept", PLAIN, **CAMERA, posture_mqtt_plain_cameras=["desk-7"])
    run(tmp_path, [*said.look(), *said.come_over(*over), *kept.look(), *kept.come_over(*over)])
    assert (said.ports, said.noted) == ([3, 4], [])
    assert (kept.ports, kept.noted) == ([3, 4, 2], [])
