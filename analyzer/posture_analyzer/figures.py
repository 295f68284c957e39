"""The broker's own figures among the analyzer's metrics: mosquitto publishes them on $SYS and nowhere else."""

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from posture_common.mqtt import Broker, Connection, ConnectionLostError
from posture_common.service import LastingError, Stop, delays

from . import metrics

log = logging.getLogger(__name__)

TOPICS = {
    "$SYS/broker/heap/current": metrics.BROKER_HEAP,
    "$SYS/broker/store/messages/bytes": metrics.BROKER_STORED,
    "$SYS/broker/publish/messages/dropped": metrics.BROKER_DROPPED,
    "$SYS/broker/clients/connected": metrics.BROKER_CLIENTS,
}


@contextmanager
def broker_figures(broker: Broker, stream: str, stop: Stop) -> Iterator[None]:
    """Keep the metrics at what the broker says of itself while the block runs, as far as it lets us know."""
    client_id = f"posture-figures-{stream}-{secrets.token_hex(4)}"
    thread = threading.Thread(target=_follow, args=(broker, client_id, stop), name="figures", daemon=True)
    thread.start()
    yield


def _follow(broker: Broker, client_id: str, stop: Stop) -> None:
    for delay in delays(longest_s=60):
        try:
            with (
                Connection(broker, client_id=client_id, topics=list(TOPICS)) as connection,
                stop.calling(connection.interrupt),
            ):
                for messages in connection.batches(len(TOPICS)):
                    for message in messages:
                        message.acknowledge()
                        with suppress(ValueError):  # another broker's idea of it
                            TOPICS[message.topic].set(float(message.payload))
        except ConnectionLostError:
            pass  # whoever needs the broker says so
        except LastingError as error:
            log.info("no figures of the broker among the metrics: %s", error)
            return
        if stop.wait(delay):
            return
