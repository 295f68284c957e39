"""The lab's authority and what it signs: made once, renewed in time, by whatever authority there is."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tests.support.checkout import CHECKOUT
from tests.support.plays import Task, refusals, refused, role, run_play

GROUPS = ["broker", "database"]
SECRET = "Geheim-passphrase"


Variables = dict[str, Any]
pytestmark = pytest.mark.timeout(600)


class Lab:
    """The files of a lab on its control machine; its one machine is `localhost` at 10.9.8.7."""

    def __init__(self, directory: Path) -> None:
        self.files = directory / "secrets/tls"
        self.variables: Variables = {
            "posture_secrets_dir": str(directory / "secrets"),
            "__common_addresses": {"localhost": "10.9.8.7"},
            "common_certificate": "broker",
        }

    def task(self, **variables: Any) -> Task:
        """Return the task that makes the broker's certificate."""
        return role("common", self.variables | variables, tasks_from="certificate")

    def certificate(self, name: str = "broker") -> x509.Certificate:
        """Return a certificate."""
        return x509.load_pem_x509_certificate((self.files / f"{name}.crt").read_bytes())

    def contents(self) -> dict[str, bytes]:
        """Return all files, by name."""
        return {path.name: path.read_bytes() for path in self.files.iterdir()}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def run(directory: Path, *tasks: Task, arguments: tuple[str, ...] = ()) -> str:
    """Run the tasks; returns what Ansible says, in one line."""
    ran = run_play(directory, tasks, groups=GROUPS, arguments=arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return " ".join(ran.stdout.split())  # Ansible breaks long lines.


def verify(certificate: x509.Certificate, authority: x509.Certificate, name: x509.DNSName | x509.IPAddress) -> None:
    """Verify as a careful client does; raises where the certificate is not one for the name."""
    PolicyBuilder().store(Store([authority])).build_server_verifier(name).verify(certificate, [])


def test_the_broker_gets_a_certificate_of_the_labs_own_authority_once(lab: Lab, tmp_path: Path) -> None:
    output = run(tmp_path, lab.task(), arguments=("-vvv",))
    before = lab.contents()
    assert before.keys() == {"ca.crt", "ca.key", "broker.crt", "broker.key"}
    for name in ("ca.key", "broker.key"):
        assert before[name].decode().splitlines()[1] not in output
    assert {oct(path.stat().st_mode & 0o777) for path in lab.files.iterdir()} == {"0o600"}
    assert oct(lab.files.stat().st_mode & 0o777) == "0o700"
    for wanted in (x509.DNSName("localhost"), x509.IPAddress(ip_address("10.9.8.7"))):
        verify(lab.certificate(), lab.certificate("ca"), wanted)
    with pytest.raises(VerificationError):
        verify(lab.certificate(), lab.certificate("ca"), x509.IPAddress(ip_address("10.9.8.6")))
    now = datetime.now(UTC)
    assert timedelta(days=364) < lab.certificate().not_valid_after_utc - now < timedelta(days=366)
    assert lab.certificate("ca").not_valid_after_utc - now > timedelta(days=3640)
    assert "changed=0" in run(tmp_path, lab.task())
    assert lab.contents() == before


def test_a_dry_run_makes_nothing(lab: Lab, tmp_path: Path) -> None:
    assert "broker.crt would be made" in run(tmp_path, lab.task(), arguments=("--check",))
    assert not lab.files.exists()
    run(tmp_path, lab.task())
    assert "changed=0" in run(tmp_path, lab.task(), arguments=("--check", "--diff"))


CHANGES: dict[str, tuple[Variables, Variables, set[str]]] = {
    "ends soon": ({"__common_certificate_days": 59}, {}, {"broker.crt"}),
    "ends later": ({"__common_certificate_days": 62}, {}, set()),
    "another address": ({}, {"__common_addresses": {"localhost": "10.9.8.8"}}, {"broker.crt"}),
    "authority ends soon": ({"__common_ca_days": 700}, {}, {"ca.crt"}),
}


def test_what_is_not_right_any_more_is_made_again(tmp_path: Path) -> None:
    labs = {name: Lab(tmp_path / name) for name in CHANGES}
    for name in CHANGES:
        (tmp_path / name).mkdir()
    run(tmp_path, *(labs[name].task(**first) for name, (first, _, _) in CHANGES.items()))
    before = {name: (lab.contents(), lab.certificate("ca")) for name, lab in labs.items()}
    again = [labs[name].task(**then) for name, (_, then, _) in CHANGES.items()]
    run(tmp_path, *again)
    for name, (_, then, new) in CHANGES.items():
        lab, (contents, authority) = labs[name], before[name]
        assert {file for file, content in lab.contents().items() if contents[file] != content} == new, name
        addresses = then.get("__common_addresses", {"localhost": "10.9.8.7"})
        wanted = x509.IPAddress(ip_address(addresses["localhost"]))
        # Who has the authority's former certificate trusts the new one, and the other way round.
        verify(lab.certificate(), authority, wanted)
        verify(lab.certificate(), lab.certificate("ca"), wanted)
    assert "changed=0" in run(tmp_path, *again)


def test_where_the_authority_is_gone_there_is_another_and_it_signs_again(lab: Lab, tmp_path: Path) -> None:
    run(tmp_path, lab.task())
    before = lab.contents()
    (lab.files / "ca.key").unlink()
    run(tmp_path, lab.task())
    after = lab.contents()
    assert {name for name in before if before[name] != after[name]} == {"ca.key", "ca.crt", "broker.crt"}
    verify(lab.certificate(), lab.certificate("ca"), x509.DNSName("localhost"))


def test_the_authoritys_key_can_have_a_passphrase(lab: Lab, tmp_path: Path) -> None:
    run(tmp_path, lab.task(posture_ca_passphrase=SECRET))
    before = lab.contents()
    load_pem_private_key(before["ca.key"], SECRET.encode())
    with pytest.raises(TypeError, match="encrypted"):
        load_pem_private_key(before["ca.key"], None)
    attempts = {
        "right": lab.task(posture_ca_passphrase=SECRET),
        "none": lab.task(),
        "wrong": lab.task(posture_ca_passphrase="another"),
    }
    ran = run_play(tmp_path, refusals(tmp_path, attempts), groups=GROUPS, arguments=["-vvv"])
    assert SECRET not in ran.stdout + ran.stderr
    said = refused(tmp_path)
    assert said.pop("right") is None
    for message in said.values():
        assert (message or "").startswith(f"The authority's key {lab.files}/ca.key cannot be used. Give the"), said
    assert lab.contents() == before


def test_a_given_authority_signs_instead(tmp_path: Path) -> None:
    given, lab = Lab(tmp_path / "given"), Lab(tmp_path / "lab")
    for each in (given, lab):
        each.files.parent.parent.mkdir()
    run(tmp_path, given.task())
    _encrypt_with_vault(given.files / "ca.key", tmp_path / "word")
    variables = {"posture_ca_cert": str(given.files / "ca.crt"), "posture_ca_key": str(given.files / "ca.key")}
    signed, again = lab.task(**variables), lab.task(**variables)
    stranger = lab.task(**variables | {"posture_ca_key": str(lab.files / "broker.key")})
    vault = ("--vault-password-file", str(tmp_path / "word"))
    run_play(tmp_path, [signed, *refusals(tmp_path, {"stranger": stranger})], groups=GROUPS, arguments=vault)
    assert "cannot sign the certificate of the broker: " in (refused(tmp_path)["stranger"] or "")
    assert lab.contents().keys() == {"broker.crt", "broker.key"}
    verify(lab.certificate(), given.certificate("ca"), x509.DNSName("localhost"))
    assert "changed=0" in run(tmp_path, again, arguments=vault)


def _encrypt_with_vault(path: Path, word: Path) -> None:
    word.write_text("a word\n")
    subprocess.run(
        [Path(sys.executable).with_name("ansible-vault"), "encrypt", "--vault-password-file", word, path],
        env=os.environ | {"ANSIBLE_CONFIG": f"{CHECKOUT}/ansible.cfg"},
        check=True,
        capture_output=True,
    )
