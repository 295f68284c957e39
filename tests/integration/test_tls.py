"""Broker and database speak TLS, and analyzer and publisher trust only the authority that they are told."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from posture_analyzer.connecting import DatabaseUnavailableError
from posture_analyzer.database import Database as AnalyzersDatabase
from posture_common.service import LastingError

from tests.conftest import PIS
from tests.support import programs
from tests.support.brokers import Broker, Listener
from tests.support.certificates import Authority
from tests.support.checkout import CHECKOUT
from tests.support.databases import Cluster, Database
from tests.support.images import nobody, shots
from tests.support.mosquitto import NEW, Mosquitto
from tests.support.plays import Task, run_play
from tests.support.programs import Program
from tests.support.waiting import accepts, free_port, wait_until


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def tls_broker(mosquittos: dict[str, Mosquitto], authority: Authority, tmp_path: Path) -> Iterator[Broker]:
    with Broker(mosquittos[NEW], tmp_path / "broker", pis=PIS, authority=authority) as broker:
        yield broker


@pytest.fixture
def tls_database(cluster: Cluster, database: Database, authority: Authority) -> Iterator[Database]:
    with cluster.tls(authority):
        yield database


def verified(database: Database) -> str:
    return f"{database.url.replace('127.0.0.1', 'localhost')}?sslmode=verify-full&channel_binding=require"


def written(authority: Authority, path: Path) -> str:
    path.write_text(authority.certificate)
    return str(path)


def test_an_image_becomes_a_row_over_tls_all_the_way(
    tls_broker: Broker, tls_database: Database, authority: Authority, tmp_path: Path, run: Callable[[Program], Program]
) -> None:
    ca = written(authority, tmp_path / "ca.crt")
    source = tmp_path / "source"
    source.mkdir()
    (source / "shot.jpg").write_bytes(nobody())
    url = verified(tls_database)
    analyzer = programs.analyzer(
        tls_broker, tls_database, tmp_path, DATABASE_URL=url, DATABASE_CA_FILE=ca, MQTT_CA_FILE=ca
    )
    run(analyzer)
    publisher = run(programs.publisher(tls_broker, tmp_path, pi_id="pi1", source=source, MQTT_CA_FILE=ca))
    wait_until(
        lambda: "posture_publisher_confirmed_total 1.0" in publisher.get("/metrics")[1],
        timeout=20,
        describe=lambda: f"the image is confirmed; {analyzer.output[-1000:]} {publisher.output[-1000:]}",
    )
    assert tls_database.count() == 1


def test_a_certificate_of_another_authority_is_refused_and_named(
    tls_broker: Broker, tls_database: Database, tmp_path: Path
) -> None:
    ca = written(Authority(), tmp_path / "other.crt")
    url = verified(tls_database)
    program = programs.analyzer(
        tls_broker,
        tls_database,
        tmp_path,
        arguments=["check"],
        DATABASE_URL=url,
        DATABASE_CA_FILE=ca,
        MQTT_CA_FILE=ca,
    )
    with program:
        assert program.wait(timeout=60) == 1
    broker, database, *_ = program.output.splitlines()
    assert broker.startswith(f"FAIL broker 127.0.0.1:{tls_broker.port}")
    assert f"not to be trusted: self-signed certificate in certificate chain; its authority must be in {ca}" in broker
    assert database.startswith(f"FAIL database {tls_database.name} at localhost:{tls_database.port}")
    assert "shows a certificate that is not to be trusted: " in database
    assert f"certificate verify failed; its authority must be in {ca} (POSTURE_DATABASE_CA_FILE)" in database


def test_an_analyzer_waits_for_a_database_that_it_can_trust(
    tls_broker: Broker, tls_database: Database, authority: Authority, tmp_path: Path
) -> None:
    other = written(Authority(), tmp_path / "other.crt")
    url = verified(tls_database)
    ca = written(authority, tmp_path / "ca.crt")
    analyzer = programs.analyzer(
        tls_broker, tls_database, tmp_path, DATABASE_URL=url, DATABASE_CA_FILE=other, MQTT_CA_FILE=ca
    )
    with analyzer:
        wait_until(
            lambda: "not to be trusted" in analyzer.get("/readyz")[1], timeout=30, describe=lambda: analyzer.output
        )
        # As a clock that the network has set at last: what was not valid has become so.
        Path(other).write_text(authority.certificate)
        analyzer.wait_ready()
        assert analyzer.terminate() == 0


@pytest.mark.parametrize(
    ("signed", "host"),
    [
        ({"hosts": ("localhost",), "begins_in": timedelta(days=1)}, "localhost"),
        ({"hosts": ("elsewhere",)}, "localhost"),
        ({"hosts": ("localhost",)}, "127.0.0.1"),
    ],
    ids=["not yet valid", "another host", "an address"],
)
def test_a_certificate_that_is_not_right_yet_is_waited_for(
    cluster: Cluster, database: Database, authority: Authority, tmp_path: Path, signed: dict[str, Any], host: str
) -> None:
    ca = written(authority, tmp_path / "ca.crt")
    url = verified(database).replace("localhost", host)
    with (
        cluster.tls(authority, **signed),
        pytest.raises(DatabaseUnavailableError, match=r"is not to be trusted: .*certificate.*its names must fit"),
    ):
        AnalyzersDatabase(f"{url}&sslrootcert={ca}").check()


def test_a_certificate_authority_that_is_missing_is_named(tls_database: Database, tmp_path: Path) -> None:
    missing = tmp_path / "ca.crt"
    with pytest.raises(LastingError, match=f'root certificate file "{missing}" does not exist; correct the settings'):
        AnalyzersDatabase(f"{verified(tls_database)}&sslrootcert={missing}").check()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("server", ["broker", "broker of the Pis", "database"])
def test_old_tls_is_refused(
    tls_broker: Broker, tls_database: Database, authority: Authority, server: str, version: ssl.TLSVersion
) -> None:
    port = {"broker": tls_broker.port, "broker of the Pis": tls_broker.pi_port, "database": tls_database.port}[server]
    context = ssl.create_default_context(cadata=authority.certificate)
    context.check_hostname = False
    # What this machine's OpenSSL has switched off is let through here: the server is to refuse it.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        if server == "database":
            plain.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # SSLRequest
            assert plain.recv(1) == b"S"
        if version is ssl.TLSVersion.TLSv1_1:
            with pytest.raises(ssl.SSLError, match=r"(?i)alert.*protocol.version"):
                context.wrap_socket(plain).close()
        else:
            with context.wrap_socket(plain) as connection:
                assert connection.version() == version.name.replace("_", ".")


@pytest.mark.parametrize(
    ("signed", "said"),
    [
        ({"life": timedelta(seconds=-60)}, "certificate has expired; run up, which renews it"),
        ({"begins_in": timedelta(days=365)}, "certificate is not yet valid; the clock of this machine"),
        ({"addresses": (IPv4Address("127.0.0.2"),)}, "IP address mismatch"),
    ],
    ids=["expired", "a clock a year behind", "another address"],
)
def test_a_broker_that_cannot_be_trusted_is_waited_for_and_no_image_is_lost(
    tls_broker: Broker,
    authority: Authority,
    tmp_path: Path,
    signed: dict[str, Any],
    said: str,
) -> None:
    here = (IPv4Address("127.0.0.1"),)
    tls_broker.stop()
    tls_broker.show(authority.sign("broker", **{"addresses": here} | signed))
    tls_broker.start()
    source = tmp_path / "source"
    source.mkdir()
    (source / "shot.jpg").write_bytes(nobody())
    ca = written(authority, tmp_path / "ca.crt")
    with programs.publisher(tls_broker, tmp_path, pi_id="pi1", source=source, MQTT_CA_FILE=ca) as publisher:
        wait_until(lambda: said in publisher.get("/readyz")[1], timeout=20, describe=lambda: publisher.output)
        assert publisher.get("/healthz")[0] == 200
        tls_broker.stop()
        tls_broker.show(authority.sign("broker", addresses=here))
        tls_broker.start()
        publisher.wait_ready()
        assert "posture_publisher_spooled_images 1.0" in publisher.get("/metrics")[1]


def test_a_deployment_comes_over_to_tls_without_losing_an_image(
    mosquittos: dict[str, Mosquitto], database: Database, authority: Authority, tmp_path: Path
) -> None:
    """As `up` does it: both ways open at the broker, then analyzer, then publisher; then the plain one is closed."""
    ca = written(authority, tmp_path / "ca.crt")
    source = tmp_path / "source"
    source.mkdir()

    def take(count: int) -> None:
        taken = len(list(source.iterdir()))
        for shot in shots(taken + count)[taken:]:
            (source / shot.filename).write_bytes(shot.data)

    with Broker(mosquittos[NEW], tmp_path / "broker", pis=PIS, authority=authority) as broker:
        with_tls = broker.listeners
        without = [replace(listener, port=free_port(), tls=False) for listener in with_tls]
        port, pi_port = (listener.port for listener in without)

        def set_up(listeners: list[Listener]) -> None:
            broker.stop()
            broker.listeners = listeners
            broker.start()

        set_up(without)
        analyzer = programs.analyzer(broker, database, tmp_path, MQTT_PORT=str(port))
        publisher = programs.publisher(broker, tmp_path, pi_id="pi1", source=source, MQTT_PORT=str(pi_port))
        with analyzer, publisher:
            take(20)
            wait_until(lambda: database.count() >= 5, timeout=60, describe="rows of the plain deployment", pause=0.1)
            set_up(without + with_tls)
            for program, new_port in ((analyzer, broker.port), (publisher, broker.pi_port)):
                take(10)
                program.terminate()
                program.environment |= {"POSTURE_MQTT_PORT": str(new_port), "POSTURE_MQTT_CA_FILE": ca}
                program.start()
                program.wait_ready()
            set_up(with_tls)
            take(10)
            wait_until(
                lambda: database.count() >= 50,
                timeout=120,
                describe=lambda: f"{database.count()} rows of 50; {analyzer.output[-2000:]}",
                pause=0.2,
            )
            assert not accepts(port)
            assert not accepts(pi_port)
    rows = [(row["pi_id"], row["filename"]) for row in database.rows()]
    assert len(set(rows)) == len(rows) == 50


def test_other_machines_reach_our_database_by_tls_alone(
    cluster: Cluster, database: Database, authority: Authority, tmp_path: Path
) -> None:
    """By the role's own rules, as of another machine at 127.0.0.1."""
    rules = tmp_path / "rules"
    roles = CHECKOUT / "roles"
    variables = {
        "posture_tls": True,
        "posture_database_url": "",
        "posture_pod_network": "",
        "__common_one_machine": False,
        "__database_clients": ["127.0.0.1"],
        "posture_database_readers": [],
    }
    files = (roles / "common/defaults/main.yml", roles / "common/vars/main.yml")
    template = "{{ lookup('ansible.builtin.template', '%s') }}" % (roles / "database/templates/pg_hba.conf.j2")
    tasks: list[Task] = [
        *({"ansible.builtin.include_vars": {"file": str(file)}} for file in files),
        {"ansible.builtin.set_fact": variables},
        {"ansible.builtin.copy": {"content": template, "dest": str(rules), "mode": "0600"}},
    ]
    ran = run_play(tmp_path, tasks, groups=["broker", "database"])
    assert ran.returncode == 0, ran.stdout
    # The rules of the machine's own loopback are others.
    others = [line for line in rules.read_text().splitlines() if line.startswith("hostssl")]
    assert len(others) == 1
    ca = written(authority, tmp_path / "ca.crt")
    with (
        cluster.tls(authority),
        cluster.letting_in("\n".join(others).replace(" posture posture ", f" {database.name} posture ") + "\n"),
    ):
        with pytest.raises(LastingError, match="no encryption"):
            AnalyzersDatabase(f"{database.url}?sslmode=disable").check()
        with closing(AnalyzersDatabase(f"{verified(database)}&sslrootcert={ca}")) as reached:
            reached.check()
