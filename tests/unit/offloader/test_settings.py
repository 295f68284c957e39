"""The offloader's settings: what is taken, and what is said of what is not."""

import pytest
from posture_common.settings import SettingsError
from posture_offloader.settings import OffloaderSettings

NEEDED = {"POSTURE_STREAMS": "pi1, pi2,pi1", "POSTURE_PROMETHEUS_URL": "http://10.0.0.2:9090"}


def read(**more: str) -> OffloaderSettings:
    return OffloaderSettings.read(NEEDED | {f"POSTURE_{name}": value for name, value in more.items()})


def test_defaults() -> None:
    settings = read()
    assert settings.streams == ("pi1", "pi2")
    assert [metric.name for metric in settings.metrics] == ["gpu", "cpu", "memory"]
    assert (settings.home, settings.policy.streams_per_node, settings.tick) == (None, None, 3.0)
    assert settings.policy.stream_load == {"gpu": 0.0, "cpu": 15.0, "memory": 2.0}


def test_the_policy_gets_what_is_given() -> None:
    policy = read(
        METRICS='[{"name": "cpu", "high": 70, "low": 40}]', STREAM_LOAD='{"cpu": 20}', STREAMS_PER_NODE="1"
    ).policy
    assert (policy.limits["cpu"].high, policy.limits["cpu"].low) == (70, 40)
    assert (policy.stream_load["cpu"], policy.streams_per_node) == (20, 1)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("STREAMS", "pi1,Pi 2", "POSTURE_STREAMS: 'Pi 2' is not a Pi's id"),
        ("METRICS", "{", "POSTURE_METRICS: "),
        ("METRICS", '{"name": "cpu"}', "POSTURE_METRICS: JSON of a list is expected"),
        ("METRICS", '[{"name": "disk"}]', "POSTURE_METRICS: metric disk: high is missing"),
        ("STREAM_LOAD", '{"cpu": "much"}', "POSTURE_STREAM_LOAD: cpu must be a number from 0 on"),
        ("STREAMS_PER_NODE", "-1", "POSTURE_STREAMS_PER_NODE: "),
        ("TICK", "0", "POSTURE_TICK: "),
        ("PROMETHEUS_URL", "nuc:9090", "the URL of Prometheus must be like"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str, problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(**{name: value})
    assert problem in str(error.value)
