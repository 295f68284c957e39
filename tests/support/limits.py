"""The limits that role broker sets by default, and a broker with them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from posture_common.settings import MAX_IMAGE_BYTES

from tests.support.brokers import Broker
from tests.support.mosquitto import Mosquitto

ROLE = Path(__file__).parents[2] / "roles/broker"
MIB = 2**20


def rendered(text: str, variables: Mapping[str, Any]) -> str:
    environment = Environment(loader=FileSystemLoader(ROLE / "templates"), trim_blocks=True, undefined=StrictUndefined)  # noqa: S701  (no HTML)
    return environment.from_string(text).render(variables)


def limits(streams: int, cameras: int = 0) -> dict[str, int]:
    """Return the role's default limits for so many streams."""
    variables: dict[str, Any] = {
        "posture_image_bytes_max": MAX_IMAGE_BYTES,
        "__common_streams": list(range(streams)),
        "posture_camera_passwords": dict.fromkeys(range(cameras), ""),
    }
    publishers = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__broker_publishers"]
    variables["__broker_publishers"] = rendered(publishers, variables)
    for name, default in yaml.safe_load((ROLE / "defaults/main.yml").read_text()).items():
        if name.endswith("_max"):
            variables[name] = rendered(str(default), variables).strip()
    return {name: int(value) for name, value in variables.items() if name.endswith("_max")}


class LimitedBroker(Broker):
    """A broker with the role's own limits, and a store that is written more often."""

    def __init__(self, mosquitto: Mosquitto, directory: Path, *, pis: Iterable[str], limits: Mapping[str, int]) -> None:
        super().__init__(mosquitto, directory, pis=pis)
        self._limits = limits

    def configuration(self) -> str:
        """Return the tests' settings with these limits."""
        lines = (ROLE / "templates/mosquitto.conf.j2").read_text().splitlines()
        bounds = [line for line in lines if re.match("max_|memory_limit", line)]
        ours = re.sub("max_queued_messages.*|max_inflight_messages.*", "", super().configuration())
        return rendered("\n".join(bounds), self._limits) + "\n" + ours
