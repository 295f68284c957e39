"""What /metrics says about the publisher."""

from prometheus_client import Counter, Gauge

TAKEN = Counter("posture_publisher_taken", "Pictures that the camera gave.")
DROPPED = Counter(
    "posture_publisher_dropped",
    "Pictures lost: spool_full (the oldest made room), disk (it could not be written), refused (too large or not "
    "readable), damaged (the disk gave back other bytes).",
    ["reason"],
)
NOT_TAKEN = Counter(
    "posture_publisher_not_taken",
    "What lies in a replayed directory and is not taken, each once: name (that of no picture), directory, special (not "
    "a file), empty.",
    ["reason"],
)
PUBLISHED = Counter("posture_publisher_published", "Images that the broker has taken, repeated ones included.")
REPEATED = Counter("posture_publisher_repeated", "Images published again because their row was not confirmed.")
REFUSED = Counter("posture_publisher_refused", "Publish attempts that the broker refused; the image stays spooled.")
CONFIRMED = Counter("posture_publisher_confirmed", "Images whose row is committed.")
CONNECTIONS = Counter("posture_publisher_connections", "Connections made to the broker.")

CONNECTED = Gauge("posture_publisher_connected", "1 while connected to the broker.")
SPOOLED_IMAGES = Gauge("posture_publisher_spooled_images", "Images in the spool: not known to be committed.")
SPOOLED_BYTES = Gauge("posture_publisher_spooled_bytes", "Size of the spool.")
OUT_IMAGES = Gauge("posture_publisher_out_images", "Images sent and not yet confirmed.")
OLDEST_SECONDS = Gauge("posture_publisher_oldest_unconfirmed_age_seconds", "How long the oldest image is spooled.")

for _reason in ("spool_full", "disk", "refused", "damaged"):
    DROPPED.labels(reason=_reason)
for _reason in ("name", "directory", "special", "empty"):
    NOT_TAKEN.labels(reason=_reason)
