"""The database's address: what is wrong in it is told from a database that is only away."""

import pytest
from posture_analyzer.connecting import DatabaseUnavailableError
from posture_analyzer.database import Database
from posture_common.service import LastingError

from tests.support.waiting import free_port


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("sslmode=requires", "invalid sslmode"),
        ("port=99999", "invalid port"),
        ("target_session_attrs=master", "invalid target_session_attrs"),
        ("channel_binding=yes", "invalid channel_binding"),
    ],
)
def test_a_wrong_value_in_the_address_is_not_waited_for(wrong: str, named: str) -> None:
    database = Database(f"host=127.0.0.1 port={free_port()} user=me password=s3cret dbname=lab {wrong}")
    with pytest.raises(LastingError, match=f"database lab at 127.0.0.1:.*{named}.*; correct the settings") as refusal:
        database.check()
    assert "s3cret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_database_that_is_away_is_waited_for() -> None:
    database = Database(f"host=127.0.0.1 port={free_port()} user=me dbname=lab")
    with pytest.raises(DatabaseUnavailableError, match=r"database lab at 127\.0\.0\.1:\d+ as user me: .*refused"):
        database.check()


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("postgresql://me:s3cret@h", "database me at h:5432 as user me"),
        ("postgresql:///lab?host=/run/postgresql&user=me", "database lab at /run/postgresql:5432 as user me"),
        ("host=h dbname=lab", "database lab at h:5432 as user (this process's)"),
        ("", "database (this process's) at localhost:5432 as user (this process's)"),
    ],
)
def test_what_an_address_leaves_out_is_named_by_its_default(address: str, named: str) -> None:
    assert str(Database(address)) == named
