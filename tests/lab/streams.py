"""What is said at the broker of streams: which analyzer has which, and what the offloader says; as it happens."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.waiting import wait_until

_ASSIGNMENT = re.compile(r"posture/streams/([^/]+)/assignment")
_STATE = re.compile(r"posture/streams/([^/]+)/([0-9]+)/status")
_STATUS = "posture/offloader/status"
ASSIGNED = "assigned"


class Streams:
    """Listens while the `with` block runs, also after the broker was away."""

    def __init__(self, address: str, port: int, *, user: str, password: str, ca: Path) -> None:
        self._address, self._port = address, port
        self._assignments: dict[str, Mapping[str, Any]] = {}
        self._states: dict[tuple[str, int], str] = {}
        self._hooks: dict[tuple[str, str], Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._status: Mapping[str, Any] = {}
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, client_id="lab-streams", protocol=MQTTProtocolVersion.MQTTv5
        )
        client.username_pw_set(user, password)
        client.tls_set(ca_certs=str(ca))
        client.reconnect_delay_set(min_delay=1, max_delay=1)
        client.on_connect = self._subscribe
        client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect(self._address, self._port)
        self._client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def status(self) -> Mapping[str, Any]:
        """What the offloader said last."""
        return self._status

    def reason(self, stream: str) -> str:
        """Return why a stream is where it is, or does not get where it should, in the offloader's words."""
        reasons = (str(each["reason"]) for each in self._status.get("streams", ()) if each["stream"] == stream)
        return next(reasons, "")

    def epoch(self, stream: str) -> int:
        """Return the epoch that the stream is assigned to; 0 before the first."""
        return int(self._assignments.get(stream, {}).get("epoch", 0))

    def state(self, stream: str, epoch: int) -> str:
        """Return what the analyzer of an epoch said last of itself."""
        return self._states.get((stream, epoch), "")

    def node(self, stream: str) -> str | None:
        """Return the node where the stream is active, None while it is on its way."""
        epoch = self.epoch(stream)
        return self._assignments[stream]["node"] if epoch and self.state(stream, epoch) == "active" else None

    def retained(self) -> list[str]:
        """Return the topics of all that is retained of streams, as far as it has been told."""
        states = [f"{stream}/{epoch}" for (stream, epoch), state in self._states.items() if state]
        return [*states, *(stream for stream, said in self._assignments.items() if said)]

    def wait_for(self, nodes: Mapping[str, str], *, timeout: float) -> None:
        """Return when each of these streams is active on its node."""
        wait_until(
            lambda: all(self.node(stream) == node for stream, node in nodes.items()),
            timeout=timeout,
            describe=lambda: f"streams are active as in {dict(nodes)}; {self}",
        )

    @contextmanager
    def at(self, stream: str, what: str, action: Callable[[], None]) -> Iterator[threading.Event]:
        """Act within a millisecond of the stream's next analyzer saying so, or, for ASSIGNED, of the assignment."""
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        with self._lock:
            self._hooks[stream, what] = act
        try:
            yield done
        finally:
            with self._lock:
                self._hooks.pop((stream, what), None)

    def __str__(self) -> str:
        return f"assigned {self._assignments}, said {self._states}, status {json.dumps(self._status)}"

    def _subscribe(self, *_: Any) -> None:
        self._client.subscribe([("posture/streams/#", 1), (_STATUS, 1)])

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        said = json.loads(message.payload) if message.payload else {}
        if message.topic == _STATUS:
            self._status = said
        elif found := _STATE.fullmatch(message.topic):
            self._states[found[1], int(found[2])] = said.get("state", "")
            self._act(message, found[1], said.get("state", ""))
        elif found := _ASSIGNMENT.fullmatch(message.topic):
            self._assignments[found[1]] = said
            self._act(message, found[1], ASSIGNED)

    def _act(self, message: MQTTMessage, stream: str, what: str) -> None:
        if message.retain:  # it was said before
            return
        with self._lock:
            action = self._hooks.pop((stream, what), None)
        if action:
            action()
