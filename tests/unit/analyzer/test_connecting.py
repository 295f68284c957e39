"""A refused connection: what a person must mend is told from what passes, by the state and not by the words."""

import pytest
from posture_analyzer.connecting import DatabaseUnavailableError
from posture_analyzer.database import Database
from posture_common.service import LastingError

from tests.support.refusers import Refuser


def refused(state: str, message: str, *, user: str = "me") -> Exception:
    """Return what the database is, after it was asked three times."""
    with Refuser(state, message) as server:
        database = Database(f"host=127.0.0.1 port={server.port} user={user} password=s3cret dbname=lab")
        for _ in range(3):
            with pytest.raises((DatabaseUnavailableError, LastingError)) as caught:
                database.check()
        assert server.asked == 4, "each try asks once, and the first once more for the state"
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("28P01", "Passwort-Authentifizierung für Benutzer »me« fehlgeschlagen"),
        ("28000", "kein pg_hba.conf-Eintrag für Host »127.0.0.1«"),
        ("28000", "Rolle »me« existiert nicht"),
        ("3D000", "Datenbank »lab« existiert nicht"),
        ("42501", "keine Berechtigung für Datenbank »lab«"),
        ("42704", "unbekannter Konfigurationsparameter"),
        ("08P01", "password authentication failed"),
        ("08P01", "no such database: lab"),
        ("28P01", 'a word with C "57P03" in it'),
    ],
)
def test_what_a_person_must_mend_is_not_waited_for(state: str, message: str) -> None:
    error = refused(state, message)
    assert isinstance(error, LastingError)
    assert str(error).endswith("; correct the settings")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("57P03", "das Datenbanksystem startet"),
        ("53300", "tut mir leid, schon zu viele Verbindungen"),
        ("53300", "too many connections for role, whose password authentication failed before"),
        ("57P01", "Verbindung wird abgebrochen aufgrund von Anweisung des Administrators"),
        ("08P01", "server login has been failing, try again later (server_login_retry)"),
        ("08P01", "no more connections allowed (max_client_conn)"),
        ("XX000", "the certificate file of the pooler does not exist"),
        ("55000", "Datenbank »lab« akzeptiert gegenwärtig keine Verbindungen"),
    ],
)
def test_what_passes_is_waited_for(state: str, message: str) -> None:
    assert isinstance(refused(state, message), DatabaseUnavailableError)


@pytest.mark.parametrize("message", ["Tenant or user not found", "(ENOTFOUND) tenant/user me not found"])
def test_supabases_pooler_needs_the_projects_reference(message: str) -> None:
    error = refused("XX000", message, user="postgres")
    assert isinstance(error, LastingError)
    assert "postgres.<project reference>" in str(error)
    assert "SUPABASE_USER" in str(error)


def test_a_project_that_may_be_paused_is_waited_for_with_the_hint() -> None:
    error = refused("XX000", "Tenant or user not found", user="postgres.abcdefgh")
    assert isinstance(error, DatabaseUnavailableError)
    assert "resume a paused project" in str(error)
