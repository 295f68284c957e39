"""Broker and database speak TLS, and analyzer and publisher trust only the authority that they are told."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from posture_analyzer.connecting import DatabaseUnavailableError
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
