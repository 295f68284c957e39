"""A stream's epochs in a test: who assigns them, what its analyzers say, a feed of images, a link that can be cut."""

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support import programs
from tests.support.brokers import OFFLOADER, Broker
from tests.support.cameras import Camera, Results, left_in_session, open_session
from tests.support.databases import Database
from tests.support.images import Shot, shots
from tests.support.programs import Program
from tests.support.waiting import free_port, wait_until

STREAM = "pi1"
ENDS = {"done", "gone"}


class Assigner:
    """Says which epoch the stream is assigned to, and hears what the analyzers say, as the offloader does."""

    def __init__(self, broker: Broker) -> None:
        self.history: list[tuple[int, str]] = []
        """Every state that was said, retained ones on each connection again."""
        self._port = broker.port
        self._states: dict[int, str] = {}
        self._client = client = Client(CallbackAPIVersion.VERSION2, OFFLOADER, protocol=MQTTProtocolVersion.MQTTv5)
        client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]  # seconds, fractions too
        client.username_pw_set(OFFLOADER, broker.passwords[OFFLOADER])
        client.on_connect = self._subscribe
        client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def assign(self, epoch: int, node: str | None = "") -> None:
        """Assign the stream to the epoch, by default on the node that `Stage` starts it with."""
        self.say("assignment", json.dumps({"epoch": epoch, "node": f"node-{epoch}" if node == "" else node}))

    def say(self, topic: str, payload: str | bytes) -> None:
        """Publish on a topic of the stream, retained, and return when the broker has it."""
        self._client.publish(f"posture/streams/{STREAM}/{topic}", payload, qos=1, retain=True).wait_for_publish(10)

    def states(self, epoch: int) -> list[str]:
        """Return what the epoch's analyzer said, without repeats in a row."""
        said = [state for other, state in tuple(self.history) if other == epoch]
        return [state for at, state in enumerate(said) if at == 0 or said[at - 1] != state]

    def last(self, epoch: int) -> str | None:
        """Return what the epoch's analyzer said last."""
        return self._states.get(epoch)

    def forget(self) -> None:
        """Forget what was said so far."""
        self.history.clear()
        self._states.clear()

    def _subscribe(self, client: Client, *_: Any) -> None:
        client.subscribe(f"posture/streams/{STREAM}/#", qos=1)

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        *_, epoch, name = message.topic.split("/")
        if name == "status" and message.payload:
            state = json.loads(message.payload)["state"]
            self.history.append((int(epoch), state))
            self._states[int(epoch)] = state


class Feed:
    """A camera that sends a new image every `interval_s` seconds while the block runs."""

    def __init__(self, broker: Broker, *, interval_s: float = 0.03) -> None:
        self.sent: list[Shot] = []
        self._broker = broker
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)
        if self._error and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            with Camera(self._broker, STREAM) as camera:
                for shot in shots(3000):
                    camera.send([shot])
                    self.sent.append(shot)
                    if self._stop.wait(self._interval_s):
                        return
        except Exception as error:  # raised where the test waits for it
            self._error = error


class Relay:
    """A link to the broker that can be cut as a pulled cable is: packets are lost and nobody is told."""

    def __init__(self, broker: Broker) -> None:
        self.port = free_port()
        self._to = broker.port
        self._whole = threading.Event()
        self._whole.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server = socket.create_server(("127.0.0.1", self.port))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.end()

    def cut(self) -> None:
        """Let nothing through any more; connections stay open on both sides."""
        self._whole.clear()

    def end(self) -> None:
        """End every connection on both sides, as the keepalive does in the end."""
        for pair in self._pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let new connections through again."""
        self._whole.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self._whole.wait()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._pairs.append((near, far))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._whole.is_set():
                    continue
                sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


@dataclass(kw_only=True)
class Stage:
    """A broker, a database, the assigner, an ear for results, and the analyzers that a test starts."""

    broker: Broker
    database: Database
    assigner: Assigner
    results: Results
    directory: Path
    commits: list[tuple[float, str, str]]
    """When (monotonic) which node's row of which image was known to be committed."""
    stack: ExitStack = field(repr=False)

    def analyzer(self, epoch: int, **settings: str) -> Program:
        """Return the analyzer of an epoch, on a node of its own, not yet started; it ends with the stage."""
        program = programs.analyzer(
            self.broker,
            self.database,
            self.directory / f"epoch-{epoch}",
            stream=STREAM,
            **{
                "EPOCH": str(epoch),
                "NODE": f"node-{epoch}",
                "IMAGES_DIR": str(self.directory / "images"),
                "WORKERS": "1",
            }
            | settings,
        )
        self.stack.push(program)
        return program

    def started(self, epoch: int, state: str = "ready", **settings: str) -> Program:
        """Start the analyzer of an epoch and return it when it says so."""
        program = self.analyzer(epoch, **settings)
        program.start()
        self.wait(program, epoch, state)
        return program

    def active(self, epoch: int, **settings: str) -> Program:
        """Start the analyzer of an epoch, assign the stream to it, and return it when it has it."""
        program = self.started(epoch, **settings)
        self.assigner.assign(epoch)
        self.wait(program, epoch, "active")
        return program

    def wait(self, program: Program, epoch: int, state: str, *, timeout: float = 20) -> None:
        """Return when the epoch's analyzer says so; raise with its log where it does not."""

        def said() -> bool:
            if state not in ENDS and program.process.poll() is not None:
                raise RuntimeError(f"epoch {epoch} ended with {program.process.returncode}: {program.output[-3000:]}")
            return self.assigner.last(epoch) == state

        wait_until(
            said,
            timeout=timeout,
            describe=lambda: (
                f"epoch {epoch} is {state}, it said {self.assigner.states(epoch)}: {program.output[-3000:]}"
            ),
        )

    def wait_rows(self, count: int, *, timeout: float = 40) -> None:
        """Return when there are at least that many rows."""
        wait_until(
            lambda: self.database.count() >= count,
            timeout=timeout,
            describe=lambda: f"{count} rows, there are {self.database.count()}; {self._last_words()}",
        )

    def wait_more_rows(self, count: int) -> None:
        """Return when there are that many rows more than now."""
        self.wait_rows(self.database.count() + count)

    def owners(self) -> list[str]:
        """Return the node of each row, without repeats in a row: who had the stream, in turn."""
        nodes = [row["processed_by"] for row in self.database.rows()]
        return [node for at, node in enumerate(nodes) if at == 0 or nodes[at - 1] != node]

    def stream_connections(self) -> int:
        """Return how often somebody has connected to the stream's session so far."""
        return self.broker.log.read_text().count(f" as posture-stream-{STREAM} ")

    def finish(self, sent: list[Shot], last: Program, *, repeats: bool) -> None:
        """Compare what was sent with rows, pictures and session; unless `repeats` may be, no image was done twice."""
        self.wait_rows(len(sent))
        assert sorted(row["filename"] for row in self.database.rows()) == sorted(shot.filename for shot in sent)
        pictures = list((self.directory / f"images/analyzed_images_from_{STREAM}").iterdir())
        assert len(pictures) == len(sent)
        assert {picture.suffix for picture in pictures} == {".jpg"}
        confirmed = {shot.image_id for shot in sent}
        if not repeats:
            wait_until(
                lambda: {image for _, _, image in tuple(self.commits)} == confirmed, timeout=5, describe="every result"
            )
            counts = Counter(image for _, _, image in self.commits)
            assert {image for image, count in counts.items() if count > 1} == set(), "done twice"
        assert last.terminate() == 0
        assert left_in_session(self.broker, STREAM) == 0

    def gap_s(self, old: int, new: int) -> float:
        """Return the seconds from the old epoch's last commit to the new one's first."""
        last = max(at for at, node, _ in self.commits if node == f"node-{old}")
        first = min(at for at, node, _ in self.commits if node == f"node-{new}")
        return first - last

    def _last_words(self) -> str:
        return "\n".join(
            f"{log.parent.name}: {log.read_text()[-1500:]}" for log in self.directory.glob("epoch-*/*.log")
        )


@contextmanager
def stage(broker: Broker, database: Database, directory: Path) -> Iterator[Stage]:
    """Set up what a handover needs; the stream's session is there and empty."""
    commits: list[tuple[float, str, str]] = []

    def note(result: dict[str, Any]) -> None:
        commits.append((time.monotonic(), result["processed_by"], result["image_id"]))

    open_session(broker, STREAM)
    on_result: Callable[[dict[str, Any]], None] = note
    (directory / "images").mkdir()
    with Assigner(broker) as assigner, Results(broker, on_result=on_result) as results, ExitStack() as stack:
        yield Stage(
            broker=broker,
            database=database,
            assigner=assigner,
            results=results,
            directory=directory,
            commits=commits,
            stack=stack,
        )
