"""What /metrics shows; docs/analyzer.md explains each."""

import re

from posture_common.mqtt import Mishap
from prometheus_client import Counter, Gauge, Histogram

_TOPIC = re.compile(r"images/([A-Za-z0-9_-]{1,64})")

IMAGES = Counter("posture_images_total", "Images whose row was committed, by status.", ["pi_id", "status"])
REPEATED = Counter("posture_images_repeated_total", "Images that came again after their row was committed.", ["pi_id"])
REFUSED = Counter(
    "posture_rows_refused_total", "Rows that the database refused; they are kept as dead letters.", ["pi_id"]
)
IGNORED = Counter("posture_messages_ignored_total", "Messages on a topic that is not images/<pi_id>.")
ENDED = Counter(
    "posture_decoders_ended_total",
    "Images that crashed their decoder or made it go over a limit of memory or time.",
    ["pi_id"],
)
MISHAPS = Counter(
    "posture_messages_mishaps_total",
    "Messages dropped (QoS 0), unreadable, or taken without their properties.",
    ["pi_id", "mishap"],
)
WITHHELD = Counter(
    "posture_pictures_withheld_total",
    "Pictures of which nothing was kept: by the setting, or because no head to blur was surely found.",
    ["pi_id", "reason"],
)
IN_WORK = Gauge("posture_images_in_work", "Images taken from the broker and not yet committed.")
HANDOVERS = Counter(
    "posture_handovers_total",
    "Handovers: streams taken from an older epoch (in), given to a newer one (out).",
    ["direction"],
)
BROKER_HEAP = Gauge("posture_broker_heap_bytes", "The broker's memory, as it says.")
BROKER_STORED = Gauge("posture_broker_stored_bytes", "Payloads that the broker holds, as it says.")
BROKER_DROPPED = Gauge("posture_broker_dropped_messages", "Messages that found a queue full since the broker's start.")
BROKER_CLIENTS = Gauge("posture_broker_clients", "Clients that are connected to the broker.")
DISK_FREE = Gauge("posture_disk_free_bytes", "Free space of the disk of the annotated pictures.")
DISK_FLOOR = Gauge("posture_disk_floor_bytes", "Free space below which no image is taken.")
READY = Gauge("posture_analyzer_ready", "1 while the analyzer takes images.")
FRAME_AGE = Histogram(
    "posture_frame_age_seconds",
    "From the capture of an image (its arrival, where the capture is unknown, suspect or over a day old) to its row.",
    buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200),
)
INFERENCE = Histogram(
    "posture_inference_seconds",
    "Pose estimation of one image, all passes.",
    buckets=(0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2),
)


def count_mishap(topic: str, mishap: Mishap) -> None:
    """Count a message that did not come as it was sent; on another topic than images/<pi_id>, for no Pi."""
    found = _TOPIC.fullmatch(topic)
    MISHAPS.labels(found[1] if found else "", mishap).inc()
