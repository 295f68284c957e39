"""The offloader's settings; docs/offload.md lists them for users."""

import json
from pathlib import Path
from typing import Annotated, Any, Self

from posture_common.settings import ANY_PI, Port, Settings, pi_id
from pydantic import BeforeValidator, Field, SecretStr, model_validator

from posture_edge import load, placement
from posture_edge.observed import limits_of, number_of

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _streams(text: Any) -> tuple[str, ...]:
    streams = tuple(part.strip() for part in str(text).split(",") if part.strip())
    return tuple(dict.fromkeys(stream if stream == ANY_PI else pi_id(stream) for stream in streams))


def _metrics(text: Any) -> tuple[load.Metric, ...]:
    return load.metrics_from(_json(text, list))


def _stream_load(text: Any) -> dict[str, float]:
    given = {name: number_of(value, name) for name, value in _json(text, dict).items()}
    return {**placement.DEFAULT_STREAM_LOAD, **given}


def _json(text: Any, kind: type) -> Any:
    value = json.loads(text)
    if not isinstance(value, kind):
        what = "list" if kind is list else "mapping"
        raise ValueError(f"JSON of a {what} is expected, not {text}")  # noqa: TRY004  (pydantic takes no TypeError)
    return value


def _limit(text: Any) -> int | None:
    return int(number_of(text, "it")) or None


class OffloaderSettings(Settings):
    """What the running offloader needs; times in seconds."""

    http_port: Port = 9330
    namespace: str = "posture"
    streams: Annotated[tuple[str, ...], BeforeValidator(_streams)]
    home: str | None = None
    worker_label: str = "role=worker"
    prometheus_url: str
    prometheus_user: str | None = None
    prometheus_password: SecretStr | None = None
    prometheus_token: SecretStr | None = None
    prometheus_ca_file: Path | None = None
    scrape_interval: Seconds = 2.0
    metrics: Annotated[tuple[load.Metric, ...], BeforeValidator(_metrics)] = load.DEFAULT_METRICS
    stream_load: Annotated[dict[str, float], BeforeValidator(_stream_load)] = Field(
        default_factory=lambda: dict(placement.DEFAULT_STREAM_LOAD)
    )
    streams_per_node: Annotated[int | None, BeforeValidator(_limit)] = None
    tick: Seconds = 3.0
    ready_timeout: Seconds = 180.0

    @model_validator(mode="after")
    def _prometheus_can_be_asked(self) -> Self:
        self.make_prometheus()
        return self

    @property
    def policy(self) -> placement.Settings:
        """The settings as the policy takes them."""
        return placement.Settings(
            limits=limits_of(self.metrics), stream_load=self.stream_load, streams_per_node=self.streams_per_node
        )

    def make_prometheus(self) -> load.Prometheus:
        """Return the Prometheus that knows the nodes' loads; raises ValueError for a URL that is none."""
        secrets = (self.prometheus_token, self.prometheus_password)
        token, password = (None if each is None else each.get_secret_value() for each in secrets)
        ca_file = None if self.prometheus_ca_file is None else str(self.prometheus_ca_file)
        return load.Prometheus(
            self.prometheus_url, token=token, user=self.prometheus_user, password=password, ca_file=ca_file
        )
