"""What is read from docker's answers: the state of an image in a registry, and why something failed."""

import json
from typing import Any

import pytest

from plugins.filter.docker_answers import docker_problem, image_state

DIGEST = "sha256:" + 64 * "a"


def answer(**platforms: dict[str, str]) -> str:
    """Return what imagetools prints for an index whose images have these labels."""
    images: dict[str, Any] = {
        f"linux/{name}": {"architecture": name, "os": "linux", "config": {"Labels": labels}}
        for name, labels in platforms.items()
    }
    return json.dumps({"manifest": {"digest": DIGEST}, "image": images})


def test_an_index_has_what_its_images_have_in_common() -> None:
    state = image_state(answer(arm64={"key": "k", "base": "b1"}, amd64={"key": "k", "base": "b2"}))
    assert state == {"digest": DIGEST, "platforms": ["linux/amd64", "linux/arm64"], "labels": {"key": "k"}}


def test_an_image_for_one_platform() -> None:
    image = {"architecture": "arm64", "os": "linux", "config": {"Labels": {"key": "k"}}}
    state = image_state(json.dumps({"manifest": {"digest": DIGEST}, "image": image}))
    assert state == {"digest": DIGEST, "platforms": ["linux/arm64"], "labels": {"key": "k"}}


@pytest.mark.parametrize("config", [None, {}, {"Labels": None}])
def test_an_image_without_labels(config: dict[str, Any] | None) -> None:
    image = {"linux/amd64": {"architecture": "amd64", "os": "linux", "config": config}}
    assert image_state(json.dumps({"manifest": {"digest": DIGEST}, "image": image}))["labels"] == {}


@pytest.mark.parametrize("text", ["", "\n"])
def test_no_image(text: str) -> None:
    assert image_state(text) == {"digest": "", "platforms": [], "labels": {}}


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("write /x: no space left on device", "a disk is full"),
        ('Head "https://r/v2/": http: server gave HTTP response to HTTPS client', "posture_registry_insecure: true"),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "image_ca_file"),
        ("error: invalid peer certificate: UnknownIssuer", "image_ca_file"),
        ("unexpected status from HEAD request to http://r/v2/p/blobs/x: 401 Unauthorized", "docker login r:5000"),
        ("pull access denied for posture", "docker login r:5000"),
        ("dial tcp 10.0.0.1:5000: connect: connection refused", "it cannot be reached"),
        ("dial tcp: lookup r on 10.0.0.1:53: no such host", "it cannot be reached"),
        ("unexpected status from PUT request to http://r/v2/: 500 Internal Server Error", "whether its disk is full"),
        ("exec /bin/sh: exec format error", "image_base"),
        ("r:5000/python:2.7: not found", "there is no such image"),
    ],
)
def test_a_cause_has_its_next_step(said: str, advice: str) -> None:
    told = docker_problem(f"#1 [internal] load\n\n{said}\n------\n", "r:5000")
    assert told.startswith(said)
    assert advice in told
    assert "\n" not in told


def test_digests_are_not_taken_for_answers() -> None:
    told = docker_problem("ERROR: layer sha256:9401f503 is odd", "r:5000")
    assert told == "ERROR: layer sha256:9401f503 is odd. The whole output is shown with -v."


def test_something_unknown_is_told_by_its_last_error() -> None:
    assert docker_problem("one\nERROR: first\nERROR: second.\nmore", "r").startswith("ERROR: second. The whole")
    assert docker_problem("", "r").startswith("docker said nothing")


def test_a_long_line_is_cut_at_its_beginning() -> None:
    assert len(docker_problem(f"ERROR: {'x' * 5000} end", "r")) < 500
