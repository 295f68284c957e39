"""Analyzers that a test plays: their Jobs are real and only sleep, and the test says what analyzers would say."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from posture_common.epochs import status_topic
from posture_common.mqtt import Broker, Connection, ConnectionLostError

from tests.lab import images
from tests.lab.api import Api

LABEL = "app.kubernetes.io/name=posture-analyzer"
TEMPLATE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {},
    "spec": {
        "ttlSecondsAfterFinished": 60,
        "template": {
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "analyzer",
                        "image": images.BUSYBOX,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "600"],
                    }
                ],
            }
        },
    },
}


class Cast:
    """The played analyzers of a namespace: each gets ready, takes its stream when assigned, and leaves when replaced.

    On a node of `silent` they never get ready.
    """

    def __init__(self, api: Api, namespace: str, connection: Connection) -> None:
        self.silent: set[str] = set()
        self.assignments: dict[str, list[int]] = defaultdict(list)
        self._api = api
        self._namespace = namespace
        self._connection = connection
        self._said: dict[tuple[str, int], str] = {}
        self._turn = threading.RLock()  # assignments and new Jobs come on two threads

    @property
    def active(self) -> dict[str, str]:
        """The node that each stream is on."""
        nodes = {(stream, epoch): node for stream, epoch, node in self._jobs()}
        with self._turn:
            return {stream: nodes[stream, epoch] for (stream, epoch), said in self._said.items() if said == "active"}

    def play(self) -> None:
        """Follow the assignments until the connection is interrupted or lost."""
        with suppress(ConnectionLostError):
            for batch in self._connection.batches(10):
                for message in batch:
                    message.acknowledge()
                    if message.topic.endswith("/assignment") and message.payload:
                        stream = message.topic.split("/")[2]
                        self.assignments[stream].append(json.loads(message.payload)["epoch"])
                        self._hand_over(stream)

    def enter(self) -> None:
        """Let those whose Job is new say that they are ready."""
        for stream, epoch, node in self._jobs():
            if (stream, epoch) not in self._said and node not in self.silent:
                self._say(stream, epoch, "ready")
                self._hand_over(stream)

    def kill(self, stream: str) -> None:
        """End the stream's analyzer as a crash does."""
        epoch = max(epoch for (of, epoch), said in self._said.items() if of == stream and said == "active")
        self._end(stream, epoch, "gone")

    def _hand_over(self, stream: str) -> None:
        with self._turn:
            assigned = self.assignments[stream][-1] if self.assignments[stream] else 0
            for (of, epoch), said in sorted(self._said.items()):
                if of == stream and epoch < assigned and said in ("ready", "active"):
                    self._end(stream, epoch, "done")
                if of == stream and epoch == assigned and said == "ready":
                    self._say(stream, epoch, "active")

    def _end(self, stream: str, epoch: int, said: str) -> None:
        self._say(stream, epoch, said)
        selector = f"posture.edge/stream={stream},posture.edge/epoch={epoch}"
        pods = f"/api/v1/namespaces/{self._namespace}/pods"
        for pod in self._api.get(pods, labelSelector=selector)["items"]:
            with suppress(LookupError):  # it went with its Job meanwhile
                self._api.delete(f"{pods}/{pod['metadata']['name']}")

    def _say(self, stream: str, epoch: int, state: str) -> None:
        with self._turn:
            self._said[stream, epoch] = state
        said = {"epoch": epoch, "node": "somewhere", "state": state}
        self._connection.publish(status_topic(stream, epoch), json.dumps(said), retain=True)

    def _jobs(self) -> list[tuple[str, int, str]]:
        listed = self._api.get(f"/apis/batch/v1/namespaces/{self._namespace}/jobs", labelSelector=LABEL)
        return [
            (
                job["metadata"]["labels"]["posture.edge/stream"],
                int(job["metadata"]["labels"]["posture.edge/epoch"]),
                job["spec"]["template"]["spec"]["nodeName"],
            )
            for job in listed["items"]
        ]


@contextmanager
def playing(api: Api, namespace: str, broker: Broker) -> Iterator[Cast]:
    """Play the analyzers while the block runs."""
    over = threading.Event()
    with Connection(broker, client_id="cast", topics=["posture/streams/#"]) as connection:
        cast = Cast(api, namespace, connection)

        def watch() -> None:
            while not over.wait(0.2):
                cast.enter()

        threads = [threading.Thread(target=each) for each in (cast.play, watch)]
        for thread in threads:
            thread.start()
        try:
            yield cast
        finally:
            over.set()
            connection.interrupt()
            for thread in threads:
                thread.join()
