"""The Job that role analyzer makes is one that the offloader fills in, without secrets; a lab may have another."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from posture_analyzer.run import MESSAGES_PER_WORKER
from posture_analyzer.sandbox import memory_limit
from posture_analyzer.settings import AnalysisSettings
from posture_common.mqtt import QOS_0_BYTES_MAX
from posture_common.settings import MAX_IMAGE_BYTES

from posture_edge.job import render
from tests.support.plays import refusals, refused, role, run_play

Object = dict[str, Any]
SECRET = "Geheim"
MB = 2**20
GROUPS = ("broker", "database", "home", "metrics", "offloader")
IMAGES = {"analyzer": f"registry.example:5000/posture@sha256:{64 * 'a'}", "offloader": "x"}
SECRETS = {
    "posture_mqtt_analyzer_passwords": {"all": SECRET},
    "posture_database_password": SECRET,
    "posture_registry_password": SECRET,
}
VARIABLES = {**SECRETS, "posture_registry_username": "u", "__common_images": IMAGES}


def rendered(directory: Path, **variables: Any) -> Object:
    """Return the Job of the role with these variables."""
    text = directory / "job.yml"
    directory.mkdir(exist_ok=True)
    task = role("analyzer", VARIABLES | variables, tasks_from="template")
    write = {"ansible.builtin.copy": {"content": "{{ analyzer_job_text }}", "dest": str(text), "mode": "0600"}}
    ran = run_play(directory, [task, write], groups=GROUPS, arguments=["-e", "posture_address=10.0.0.1", "-vvv"])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert SECRET not in ran.stdout + ran.stderr + text.read_text()
    job: Object = yaml.safe_load(text.read_text())
    return job


def test_the_digest_of_its_secrets_cannot_be_computed_from_a_guess(tmp_path: Path) -> None:
    """Whoever may read Jobs sees it, and a password that somebody chose may be short."""
    digests = [
        rendered(tmp_path / name, __common_fingerprint=fingerprint)["spec"]["template"]["metadata"]["annotations"]
        for name, fingerprint in (("first", "a"), ("again", "a"), ("other", "b"))
    ]
    assert digests[0] == digests[1] != digests[2]


def pod(job: Object) -> Object:
    found: Object = job["spec"]["template"]["spec"]
    return found


def variables_of(job: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in pod(job)["containers"][0]["env"]}


def test_the_job_is_one_that_the_offloader_fills_in(tmp_path: Path) -> None:
    job = rendered(tmp_path, posture_workers=3)
    filled = render(job, stream="pi1", epoch=4, node="agx")
    assert filled["metadata"]["name"] == "posture-pi1-4"
    assert variables_of(filled) == {
        "POSTURE_STREAM": "pi1",
        "POSTURE_EPOCH": "4",
        "POSTURE_NODE": "agx",
        "POSTURE_MQTT_HOST": "10.0.0.1",
        "POSTURE_MQTT_PORT": "8883",
        "POSTURE_MQTT_CA_FILE": "/run/posture/ca/mqtt.crt",
        "POSTURE_MQTT_USER": "posture-analyzer-pi1",
        "POSTURE_MQTT_PASSWORD_FILE": "/run/posture/secrets/mqtt-password",
        "POSTURE_DATABASE_URL_FILE": "/run/posture/secrets/database-url",
        "POSTURE_DATABASE_CA_FILE": "/run/posture/ca/database.crt",
        "POSTURE_IMAGES_DIR": "/app/analyzed_images",
        "POSTURE_HTTP_HOST": "0.0.0.0",  # noqa: S104  (the address of its own pod)
        "POSTURE_HTTP_PORT": "9310",
        "POSTURE_WORKERS": "3",
        "POSTURE_PASSES": "2",
        "POSTURE_MODEL": "full",
        "POSTURE_NECK_THRESHOLD": "40",
        "POSTURE_BODY_THRESHOLD": "10",
        "POSTURE_MAX_IMAGE_BYTES": "20971520",
        "POSTURE_MAX_PIXELS": "16777216",
        "POSTURE_JPEG_QUALITY": "85",
        "POSTURE_PICTURES": "all",
        "POSTURE_BLUR_FACES": "false",
        "POSTURE_DISK_FLOOR": "5% or 2GB",
        "POSTURE_LOG_LEVEL": "INFO",
    }
    assert pod(job)["containers"][0]["image"] == IMAGES["analyzer"]
    assert pod(job)["imagePullSecrets"] == [{"name": "posture-registry"}]
    volumes = {volume.pop("name"): volume for volume in pod(filled)["volumes"]}
    assert volumes["secrets"] == {"secret": {"secretName": "posture-analyzer-pi1", "defaultMode": 288}}
    assert volumes["pictures"] == {"hostPath": {"path": "/var/lib/posture/images", "type": "Directory"}}
    assert {mount["name"] for mount in pod(job)["containers"][0]["volumeMounts"]} == set(volumes)


def test_a_claim_a_model_and_certificates_have_their_places(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("-")
    job = rendered(
        tmp_path,
        posture_images_claim="pictures",
        posture_model="heavy",
        posture_model_file="/srv/heavy.task",
        posture_tls=False,
        posture_mqtt_tls_ca=str(tmp_path / "ca.crt"),
    )
    volumes = {volume.pop("name"): volume for volume in pod(job)["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in pod(job)["containers"][0]["volumeMounts"]}
    assert volumes["pictures"] == {"persistentVolumeClaim": {"claimName": "pictures"}}
    assert volumes["model"] == {"hostPath": {"path": "/srv/heavy.task", "type": "File"}}
    assert set(mounts) == set(volumes)
    variables = variables_of(job)
    assert variables["POSTURE_MODEL_FILE"] == mounts["model"]
    assert variables["POSTURE_MQTT_CA_FILE"] == f"{mounts['ca']}/mqtt.crt"
    assert "POSTURE_DATABASE_CA_FILE" not in variables


def test_a_lab_has_a_template_of_its_own(tmp_path: Path) -> None:
    template = tmp_path / "mine.yml.j2"
    own = {"kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "analyzer", "image": "mine:1"}]}}}}
    template.write_text(json.dumps(own))
    job = rendered(tmp_path, analyzer_job_template=str(template))
    assert pod(render(job, stream="pi1", epoch=1, node="agx"))["containers"][0]["image"] == "mine:1"


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "does not give YAML"), ("kind: Pod", "does not give a Job with a container 'analyzer'")]
)
def test_a_template_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    template = tmp_path / "mine.yml.j2"
    template.write_text(text)
    attempt = role("analyzer", VARIABLES | {"analyzer_job_template": str(template)}, tasks_from="template")
    run_play(
        tmp_path,
        refusals(tmp_path, {"it": attempt}),
        groups=GROUPS,
        arguments=["-e", "posture_address=10.0.0.1"],
    )
    message = refused(tmp_path)["it"] or ""
    assert message.startswith(f"analyzer_job_template {template} ")
    assert said in message


def memory_of(job: Object) -> int:
    text: str = pod(job)["containers"][0]["resources"]["limits"]["memory"]
    assert text.endswith("Mi")
    return int(text.removesuffix("Mi")) * MB


def needed(*, workers: int, pixels: int, image_bytes: int) -> float:
    """Return what docs/analyzer.md says an analyzer takes at most."""
    sandbox = memory_limit(pixels) + 35 * MB
    waiting = MESSAGES_PER_WORKER * image_bytes * 4 / 3
    coming_in = image_bytes * (4 / 3 + 4 / 3 + 1)
    return 140 * MB + workers * (110 * MB + sandbox + waiting) + coming_in + QOS_0_BYTES_MAX


def test_the_memory_limit_is_what_the_largest_images_take(tmp_path: Path) -> None:
    at_least = needed(workers=2, pixels=AnalysisSettings().max_pixels, image_bytes=MAX_IMAGE_BYTES)
    assert at_least <= memory_of(rendered(tmp_path / "default")) <= at_least + 64 * MB
    variables = {"posture_workers": 4, "analyzer_image_pixels_max": 64_000_000, "posture_image_bytes_max": 40 * MB}
    at_least = needed(workers=4, pixels=64_000_000, image_bytes=40 * MB)
    assert at_least <= memory_of(rendered(tmp_path / "more", **variables)) <= at_least + 64 * MB


def test_a_memory_limit_that_the_largest_images_exceed_is_refused(tmp_path: Path) -> None:
    tries = {
        limit: role(
            "analyzer", VARIABLES | {"analyzer_job_resources": {"limits": {"memory": limit}}}, tasks_from="template"
        )
        for limit in ("512Mi", "1Gi", "1400Mi", "2Gi", "1500M")
    }
    run_play(tmp_path, refusals(tmp_path, tries), groups=GROUPS, arguments=["-e", "posture_address=10.0.0.1"])
    said = refused(tmp_path)
    assert "memory limit 512Mi is too low: 2 workers" in (said["512Mi"] or "")
    assert "take up to 1357Mi" in (said["1Gi"] or "")
    assert [said[limit] for limit in ("1400Mi", "2Gi", "1500M")] == [None] * 3
