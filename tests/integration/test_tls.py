"""Broker and database speak TLS, and analyzer and publisher trust only the authority that they are told."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from posture_analyzer.database import Database as AnalyzersDatabase
from posture_common.service import LastingError

from tests.conftest import PIS
from tests.support import programs
from tests.support.brokers import Broker
from tests.support.certificates import Authority
from tests.support.databases import Cluster, Database
from tests.support.images import nobody
from tests.support.mosquitto import NEW, Mosquitto
from tests.support.programs import Program
from tests.support.waiting import wait_until


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
    return f"{database.url.replace('127.0.0.1', 'localhost')}?sslmode=verify-full"


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
    assert "certificate verify failed; correct the settings" in database


def test_an_analyzer_does_not_start_with_a_database_that_it_cannot_trust(
    tls_broker: Broker, tls_database: Database, authority: Authority, tmp_path: Path
) -> None:
    other = written(Authority(), tmp_path / "other.crt")
    url = verified(tls_database)
    with programs.analyzer(tls_broker, tls_database, tmp_path, DATABASE_URL=url, DATABASE_CA_FILE=other) as analyzer:
        assert analyzer.wait(timeout=60) == programs.REFUSED
    assert "certificate verify failed" in analyzer.output.splitlines()[-1]


def test_a_certificate_authority_that_is_missing_is_named(tls_database: Database, tmp_path: Path) -> None:
    missing = tmp_path / "ca.crt"
    with pytest.raises(LastingError, match=f'root certificate file "{missing}" does not exist; correct the settings'):
        AnalyzersDatabase(f"{verified(tls_database)}&sslrootcert={missing}").check()
