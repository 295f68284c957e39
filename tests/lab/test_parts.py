"""The lab's parts that need no machine: settings, cache, record, command line."""

import json
import subprocess
import tarfile
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.lab import cache, images
from tests.lab.__main__ import main
from tests.lab.record import Record
from tests.lab.settings import KINDS, NODES, Settings, from_environment
from tests.lab.tools import LabError, build, run
from tests.support.certificates import Authority


def test_settings_come_from_the_environment() -> None:
    settings = from_environment({"POSTURE_LAB_NAME": "mine", "POSTURE_LAB_SUBNET": "10.9.0.0/24", "HOME": "/root"})
    assert (settings.name, str(settings.address("nuc")), str(settings.router)) == ("mine", "10.9.0.30", "10.9.0.1")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"POSTURE_LAB_NAME": "much-too-long"}, "POSTURE_LAB_NAME=much-too-long: one to eight letters"),
        ({"POSTURE_LAB_SUBNET": "10.9.0.0"}, r"POSTURE_LAB_SUBNET=10\.9\.0\.0/32 is too small"),
        ({"POSTURE_LAB_SUBNET": "ten"}, "POSTURE_LAB_SUBNET=ten: "),
        ({"POSTURE_LAB_UPLINK": "10.77.0.8/30"}, r"networks 10\.77\.0\.0/24 and 10\.77\.0\.8/30 overlap"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(LabError, match=message):
        from_environment(environment)


def test_every_machine_and_every_nodes_pods_have_addresses_of_their_own() -> None:
    settings = Settings()
    assert len({settings.address(name) for name in KINDS}) == len(KINDS)
    pods = [settings.pods_of(node) for node in NODES]
    assert [str(network) for network in pods] == ["10.88.1.0/24", "10.88.2.0/24", "10.88.3.0/24"]
    assert all(network.subnet_of(settings.pods) for network in pods)


def test_the_example_inventory_has_the_default_addresses() -> None:
    text = (Path(__file__).parents[2] / "inventory/lab/hosts.yml").read_text()
    settings = Settings()
    for name in ("nuc", "agx", "orin", "pi1", "pi2"):
        assert f"{name}:\n          ansible_host: {settings.address(name)}" in text


def test_a_record_is_read_back_with_its_settings(tmp_path: Path) -> None:
    settings = Settings(name="other", state=tmp_path, subnet=IPv4Network("10.5.0.0/24"))
    Record(settings, complete=True).save()
    assert Record.load(tmp_path) == Record(settings, complete=True)
    assert Record.load(tmp_path / "nothing") is None


def test_a_cache_entry_is_made_once_and_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def make(part: Path) -> None:
        made.append(part)
        assert not list(part.iterdir())
        (part / "half").touch()
        if len(made) == 1:
            raise LabError("interrupted")

    with pytest.raises(LabError):
        cache.entry("thing", "1", make)
    path = cache.entry("thing", "1", make)
    assert cache.entry("thing", "1", make) == path
    assert (len(made), (path / "half").exists()) == (2, True)
    assert cache.entry("thing", "2", make) != path


def test_a_key_changes_with_every_part(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    keys = {cache.key_of(tmp_path), cache.key_of(tmp_path, "x"), cache.key_of("x"), cache.key_of("x", "x")}
    (tmp_path / "a").write_text("2")
    keys.add(cache.key_of(tmp_path))
    assert len(keys) == 5


def test_a_failed_build_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"the end of .*log:\nno such wheel"):
        build("sh", "-c", "echo no such wheel; exit 3", log=tmp_path / "log")


def test_a_missing_program_is_named_with_what_installs_it() -> None:
    with pytest.raises(LabError, match=r"no-such-program is not on this machine: .*packages\.yml"):
        run("no-such-program")


def test_certificates_are_signed_by_the_authority(tmp_path: Path) -> None:
    authority = Authority()
    pair = authority.sign(
        "system:node:agx", group="system:nodes", hosts=("agx",), addresses=(Settings().address("agx"),)
    )
    (tmp_path / "ca").write_text(authority.certificate)
    (tmp_path / "crt").write_text(pair.public)
    checks = ("-verify_hostname", "agx", "-purpose", "sslserver")
    subprocess.run(
        ["openssl", "verify", "-x509_strict", *checks, "-CAfile", tmp_path / "ca", tmp_path / "crt"], check=True
    )
    assert json.loads(authority.kubeconfig("https://x", pair))["clusters"][0]["cluster"]["server"] == "https://x"


def test_an_image_has_the_program_and_its_names(tmp_path: Path) -> None:
    (tmp_path / "busybox").write_bytes(b"program")
    images.write(tmp_path / "image.tar", "localhost/thing:1", tmp_path / "busybox")
    with tarfile.open(tmp_path / "image.tar") as image:
        manifest = image.extractfile("manifest.json")
        assert manifest
        (entry,) = json.load(manifest)
        layer = image.extractfile(entry["Layers"][0])
        assert entry["RepoTags"] == ["localhost/thing:1"]
        with tarfile.open(fileobj=layer) as files:
            assert files.getmember("bin/sh").linkname == "busybox"


def test_commands_on_a_lab_that_is_not_there_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTURE_LAB_STATE", str(tmp_path / "none"))
    assert main(["status"]) == 0
    assert main(["power-off", "agx"]) == 1
    assert main(["set-load", "agx", "gpu=70"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "There is no lab. Bring it up: make lab\n"
    assert captured.err.count("lab: there is no machine agx in the lab; there are none: make lab brings them up") == 2
    with pytest.raises(SystemExit):
        main(["set-load", "agx", "gpu"])
