"""A stream's epochs in a test: who assigns them, what its analyzers say, a feed of images, a link that can be cut."""

import contextlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
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

    def wait(self, epoch: int, state: str) -> None:
        """Return when that is what the epoch's analyzer said last."""
        wait_until(lambda: self.last(epoch) == state, timeout=20, describe=lambda: f"{state}: {self.states(epoch)}")

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
    """A camera that sends a new image now and then while the block runs, and many at once when asked to."""

    def __init__(self, broker: Broker, *, interval_s: float = 0.2) -> None:
        self.sent: list[Shot] = []
        self._shots = iter(shots(1000, person_every=5))
        self._camera = Camera(broker, STREAM)
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._camera.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)
        self._camera.__exit__(kind, error, trace)

    def send(self, count: int) -> None:
        """Send that many images and return when the broker has them."""
        with self._lock:
            new = list(islice(self._shots, count))
            self._camera.send(new)
            self.sent += new

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.send(1)


class Relay:
    """A link to the broker that can be cut, and then lets only some of the clients through again."""

    def __init__(self, broker: Broker) -> None:
        self.port = free_port()
        self._to = broker.port
        self._passes = re.compile(b"")
        self._changed = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", self.port))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        _end(self._server)
        self._server.close()

    def cut(self) -> None:
        """End every connection, and let none through."""
        self.mend(only="(?!)")
        for end in self._sockets:
            _end(end)

    def mend(self, *, only: str = "") -> None:
        """Let clients through, waiting ones too, whose first packet matches the pattern."""
        with self._changed:
            self._passes = re.compile(only.encode())
            self._changed.notify_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        first = near.recv(65536)
        with self._changed:
            self._changed.wait_for(lambda: self._passes.search(first))
        with socket.create_connection(("127.0.0.1", self._to)) as far, near:
            far.sendall(first)
            self._sockets += [near, far]
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@dataclass(kw_only=True)
class Stage:
    """A broker, a database, the assigner, an ear for results, and the analyzers that a test starts."""

    broker: Broker
    database: Database
    assigner: Assigner
    results: Results
    directory: Path
    stack: ExitStack = field(repr=False)
    programs: dict[int, Program] = field(default_factory=dict)

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
        self.programs[epoch] = program
        return program

    def started(self, epoch: int, state: str = "ready", **settings: str) -> Program:
        """Start the analyzer of an epoch and return it when it says so."""
        program = self.analyzer(epoch, **settings)
        program.start()
        self.wait(epoch, state)
        return program

    def active(self, epoch: int, **settings: str) -> Program:
        """Start the analyzer of an epoch, assign the stream to it, and return it when it has it."""
        program = self.started(epoch, **settings)
        self.move(epoch)
        return program

    def move(self, epoch: int) -> None:
        """Assign the stream to the epoch and return when its analyzer has it."""
        self.assigner.assign(epoch)
        self.wait(epoch, "active")

    def move_with_images(self, epoch: int, feed: Feed, *, count: int = 10) -> None:
        """Move the stream while that many images and more wait in it."""
        feed.send(count)
        self.move(epoch)
        assert self.database.count() < len(feed.sent), "no image was waiting"

    def wait(self, epoch: int, state: str, *, timeout: float = 30) -> None:
        """Return when the epoch's analyzer says so; raise with its log where it does not."""

        program = self.programs[epoch]

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

    def finish(self, sent: list[Shot], last: int, *, repeats: bool) -> None:
        """End the last epoch's analyzer, and compare what was sent with rows, pictures and session.

        Unless `repeats` may be, no image was done twice either.
        """
        self.wait_rows(len(sent))
        assert sorted(row["filename"] for row in self.database.rows()) == sorted(shot.filename for shot in sent)
        pictures = list((self.directory / f"images/analyzed_images_from_{STREAM}").iterdir())
        assert len(pictures) == len(sent)
        assert {picture.suffix for picture in pictures} == {".jpg"}
        if not repeats:
            wait_until(lambda: len(self._confirmed()) >= len(sent), timeout=5, describe="a result of every image")
            assert [image for image, count in self._confirmed().items() if count > 1] == [], "done twice"
            assert self.repeated(last) == 0
        assert self.programs[last].terminate() == 0
        self.assigner.wait(last, "done")
        assert self.assigner.states(last)[-3:] == ["active", "draining", "done"]
        assert left_in_session(self.broker, STREAM) == 0

    def repeated(self, epoch: int) -> float:
        """Return how many images came to the epoch's analyzer that had their row already."""
        lines = self.programs[epoch].get("/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("posture_images_repeated_total{"))

    def _confirmed(self) -> Counter[str]:
        return Counter(result["image_id"] for _, result in tuple(self.results.messages))

    def _last_words(self) -> str:
        return "\n".join(
            f"{log.parent.name}: {log.read_text()[-1500:]}" for log in self.directory.glob("epoch-*/*.log")
        )


@contextmanager
def stage(broker: Broker, database: Database, directory: Path) -> Iterator[Stage]:
    """Set up what a handover needs; the stream's session is there and empty."""
    open_session(broker, STREAM)
    (directory / "images").mkdir()
    with Assigner(broker) as assigner, Results(broker) as results, ExitStack() as stack:
        yield Stage(
            broker=broker,
            database=database,
            assigner=assigner,
            results=results,
            directory=directory,
            stack=stack,
        )
