"""The analyzer's settings: what is right, and the one line about what is wrong."""

import re
from pathlib import Path

import pytest
from posture_analyzer.settings import AnalysisSettings, AnalyzerSettings
from posture_common.settings import SettingsError
from psycopg.conninfo import conninfo_to_dict

SECRET = "s3cret-pa:ss@w/rd"
LEAST = {"POSTURE_STREAM": "pi1", "SUPABASE_HOST": "db"}


def read(**environ: str) -> AnalyzerSettings:
    return AnalyzerSettings.read({**LEAST, **environ})


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as error:
        AnalyzerSettings.read(environ)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_least_that_must_be_set() -> None:
    settings = read()
    assert (settings.topic, settings.workers, settings.passes, settings.model) == ("images/pi1", 2, 2, "full")
    assert (settings.neck_threshold, settings.body_threshold) == (40, 10)
    assert settings.node
    assert settings.epoch is None


def test_everything_that_can_be_set() -> None:
    settings = read(
        POSTURE_STREAM="all",
        POSTURE_NODE="nuc",
        POSTURE_EPOCH="7",
        POSTURE_IMAGES_DIR="/pictures",
        POSTURE_WORKERS="4",
        POSTURE_PASSES="1",
        POSTURE_MODEL="lite",
        POSTURE_MODEL_FILE="/models/lite.task",
        POSTURE_NECK_THRESHOLD="35.5",
        POSTURE_BODY_THRESHOLD="12",
        POSTURE_MAX_IMAGE_BYTES="1000",
        POSTURE_MAX_PIXELS="2000",
        POSTURE_JPEG_QUALITY="70",
        POSTURE_MQTT_HOST="nuc",
        POSTURE_MQTT_PORT="1884",
        POSTURE_HTTP_PORT="9999",
        POSTURE_LOG_LEVEL="DEBUG",
    )
    assert (settings.topic, settings.node, settings.workers, settings.passes) == ("images/+", "nuc", 4, 1)
    assert settings.epoch == 7
    assert (settings.images_dir, settings.model, settings.model_file) == (
        Path("/pictures"),
        "lite",
        Path("/models/lite.task"),
    )
    assert (settings.neck_threshold, settings.body_threshold, settings.jpeg_quality) == (35.5, 12, 70)
    assert (settings.max_image_bytes, settings.max_pixels) == (1000, 2000)
    assert (settings.mqtt_host, settings.mqtt_port, settings.http_port) == ("nuc", 1884, 9999)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("POSTURE_STREAM", "", "is not set"),
        ("POSTURE_STREAM", "Pi1", "not a Pi's id"),
        ("POSTURE_STREAM", "posture-pi", "not starting with 'posture-'"),
        ("POSTURE_STREAM", "-pi", "not a Pi's id"),
        ("POSTURE_STREAM", "pi-", "not a Pi's id"),
        ("POSTURE_STREAM", "images/pi1", "not a Pi's id"),
        ("POSTURE_STREAM", "p" * 41, "not a Pi's id"),
        ("POSTURE_STREAM", "pi1\n", "not a Pi's id"),
        ("POSTURE_WORKERS", "0", "greater than or equal to 1"),
        ("POSTURE_WORKERS", "two", "integer"),
        ("POSTURE_WORKERS", "65", "less than or equal to 64"),
        ("POSTURE_EPOCH", "0", "greater than or equal to 1"),
        ("POSTURE_EPOCH", "last", "integer"),
        ("POSTURE_PASSES", "3", "less than or equal to 2"),
        ("POSTURE_PASSES", "0", "greater than or equal to 1"),
        ("POSTURE_MODEL", "huge", "'full', 'lite' or 'heavy'"),
        ("POSTURE_NECK_THRESHOLD", "0", "greater than 0"),
        ("POSTURE_NECK_THRESHOLD", "180", "less than 180"),
        ("POSTURE_NECK_THRESHOLD", "nan", "POSTURE_NECK_THRESHOLD"),
        ("POSTURE_BODY_THRESHOLD", "-1", "greater than 0"),
        ("POSTURE_BODY_THRESHOLD", "inf", "less than 180"),
        ("POSTURE_BODY_THRESHOLD", "steep", "number"),
        ("POSTURE_MAX_IMAGE_BYTES", "0", "greater than 0"),
        ("POSTURE_MAX_PIXELS", "-5", "greater than 0"),
        ("POSTURE_JPEG_QUALITY", "0", "greater than or equal to 1"),
        ("POSTURE_JPEG_QUALITY", "101", "less than or equal to 100"),
        ("POSTURE_MQTT_PORT", "0", "greater than or equal to 1"),
        ("POSTURE_MQTT_PORT", "65536", "less than or equal to 65535"),
        ("POSTURE_HTTP_PORT", "http", "integer"),
        ("POSTURE_HTTP_PORT", "65536", "less than or equal to 65535"),
        ("POSTURE_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO'"),
        ("SUPABASE_HOST", "postgresql://db/lab", "a URL; the whole of it belongs in POSTURE_DATABASE_URL"),
        ("SUPABASE_DB", "postgresql://db/lab", "a URL"),
        ("SUPABASE_USER", "https://db.example.org", "a URL"),
        ("SUPABASE_PORT", "post", "integer"),
        ("SUPABASE_PORT", "0", "greater than or equal to 1"),
        ("SUPABASE_SSL", "maybe", "'maybe' is none of allow, disable, prefer, require"),
        ("POSTURE_MQTT_PASSWORD_FILE", "/nowhere/at/all", "cannot read /nowhere/at/all: No such file"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(name: str, value: str, words: str) -> None:
    message = refusal({**LEAST, name: value})
    assert message.startswith(name)
    assert words in message
    assert message.count("; ") <= 1, "one setting is wrong, one thing is said"


def test_everything_that_is_wrong_is_said_at_once() -> None:
    message = refusal({"SUPABASE_HOST": "db", "POSTURE_WORKERS": "0", "SUPABASE_SSL": "maybe"})
    assert all(name in message for name in ("POSTURE_STREAM is not set", "POSTURE_WORKERS", "SUPABASE_SSL"))


@pytest.mark.parametrize("environ", [{}, {"POSTURE_DATABASE_URL": "postgresql://db/x", "SUPABASE_HOST": "db"}])
def test_there_is_exactly_one_database(environ: dict[str, str]) -> None:
    message = refusal({"POSTURE_STREAM": "pi1", **environ})
    assert "POSTURE_DATABASE_URL" in message
    assert "SUPABASE_HOST" in message


@pytest.mark.parametrize("model", ["lite", "heavy"])
def test_a_model_that_is_not_included_needs_its_file(model: str) -> None:
    assert "POSTURE_MODEL_FILE must name" in refusal({**LEAST, "POSTURE_MODEL": model})


def test_images_are_analysed_without_broker_or_database() -> None:
    assert AnalysisSettings.read({"POSTURE_PASSES": "1"}).passes == 1


@pytest.mark.parametrize(
    ("word", "mode"), [("true", "require"), ("True", "require"), ("false", "disable"), ("verify-full", "verify-full")]
)
def test_ssl_is_a_mode_or_yes_or_no(word: str, mode: str) -> None:
    assert conninfo_to_dict(read(SUPABASE_SSL=word).conninfo)["sslmode"] == mode


def test_the_database_as_the_lab_names_it() -> None:
    settings = read(
        SUPABASE_HOST="db.example.org",
        SUPABASE_PORT="6543",
        SUPABASE_DB="lab",
        SUPABASE_USER="some one",
        SUPABASE_PASSWORD=SECRET,
        POSTURE_DATABASE_CA_FILE="/ca.pem",
    )
    assert conninfo_to_dict(settings.conninfo) == {
        "host": "db.example.org",
        "port": "6543",
        "dbname": "lab",
        "user": "some one",
        "password": SECRET,
        "sslmode": "prefer",
        "sslrootcert": "/ca.pem",
    }


def test_the_database_as_a_url() -> None:
    settings = AnalyzerSettings.read(
        {"POSTURE_STREAM": "pi1", "POSTURE_DATABASE_URL": "postgresql://me:p%40ss@db:5433/lab?sslmode=require"}
    )
    assert conninfo_to_dict(settings.conninfo) == {
        "host": "db",
        "port": "5433",
        "dbname": "lab",
        "user": "me",
        "password": "p@ss",
        "sslmode": "require",
    }


@pytest.mark.parametrize("name", ["SUPABASE_PASSWORD", "POSTURE_MQTT_PASSWORD"])
def test_a_secret_may_stand_in_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    settings = read(**{f"{name}_FILE": str(file)})
    secret = settings.supabase_password if name.startswith("SUPABASE") else settings.mqtt_password
    assert secret is not None
    assert secret.get_secret_value() == SECRET
    assert f"{name} and {name}_FILE are both set" in refusal({**LEAST, name: "x", f"{name}_FILE": str(file)})


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\n\n"])
def test_what_echo_and_copying_leave_at_the_end_is_no_part_of_it(end: str) -> None:
    url = AnalyzerSettings.read(
        {"POSTURE_STREAM": "pi1", "POSTURE_DATABASE_URL": f"postgresql://me:s3cret@db/lab{end}"}
    )
    assert conninfo_to_dict(url.conninfo) == {"host": "db", "dbname": "lab", "user": "me", "password": "s3cret"}
    parts = read(
        SUPABASE_HOST=f"db.example.org{end}",
        SUPABASE_PORT=f"6543{end}",
        SUPABASE_DB=f"lab{end}",
        SUPABASE_USER=f"me{end}",
        SUPABASE_PASSWORD=f"{SECRET}{end}",
        SUPABASE_SSL=f"require{end}",
        POSTURE_MQTT_PASSWORD=f"{SECRET}{end}",
    )
    assert conninfo_to_dict(parts.conninfo) == {
        "host": "db.example.org",
        "port": "6543",
        "dbname": "lab",
        "user": "me",
        "password": SECRET,
        "sslmode": "require",
    }
    assert parts.mqtt_password is not None
    assert parts.mqtt_password.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ("pgbouncer=true", "'pgbouncer'"),
        ("schema=public", "'schema'"),
        ("sslmode=require&pgbouncer=true&connection_limit=1", "'pgbouncer' and 'connection_limit'"),
        ("supa=base-pooler.x", "'supa'"),
        ("prepareThreshold=0", "'prepareThreshold'"),
        ("pgbouncer", "'pgbouncer'"),
        ("workaround=", "'workaround'"),
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_another_programs_parameter_in_the_url_is_named(scheme: str, parameters: str, named: str) -> None:
    url = f"{scheme}://me:{SECRET.replace('/', '%2F').replace('@', '%40')}@db:6543/lab?{parameters}"
    message = refusal({"POSTURE_STREAM": "pi1", "POSTURE_DATABASE_URL": url})
    assert message.startswith(f"POSTURE_DATABASE_URL: {named} after the '?' is for another program")
    assert message.endswith("remove it")
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "parameters",
    ["sslmode=require", "ssl=true", "options=-csearch_path%3Dlab", "target_session_attrs=read-write", "sslmode="],
)
def test_postgresqls_own_parameters_are_taken(parameters: str) -> None:
    url = f"postgresql://me:pw@db/lab?{parameters}"
    AnalyzerSettings.read({"POSTURE_STREAM": "pi1", "POSTURE_DATABASE_URL": url})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:a/b?s3cret=c@db/lab",
        "postgresql://me:a/b?s3cret@db/lab",
        "postgresql://me@db/lab?password=a&s3cret&pgbouncer=true",
        "postgresql://me@db/lab?pgbouncer=true&password=a&s3cret=b",
    ],
)
def test_a_piece_of_a_password_is_never_taken_for_a_parameter(url: str) -> None:
    assert "s3cret" not in refusal({"POSTURE_STREAM": "pi1", "POSTURE_DATABASE_URL": url})


def test_a_url_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://db/lab", encoding="utf-8")
    settings = AnalyzerSettings.read({"POSTURE_STREAM": "pi1", "POSTURE_DATABASE_URL_FILE": str(file)})
    assert conninfo_to_dict(settings.conninfo) == {"host": "db", "dbname": "lab"}


def test_only_secrets_are_read_from_files(tmp_path: Path) -> None:
    file = tmp_path / "host"
    file.write_text("elsewhere", encoding="utf-8")
    assert read(POSTURE_MQTT_HOST_FILE=str(file)).mqtt_host == "localhost"


def test_no_secret_is_shown() -> None:
    settings = AnalyzerSettings.read(
        {
            "POSTURE_STREAM": "pi1",
            "POSTURE_MQTT_PASSWORD": SECRET,
            "SUPABASE_PASSWORD": SECRET,
            "POSTURE_DATABASE_URL": "postgresql://me:s3cret-url@db/lab",
        }
    )
    assert not re.search("s3cret", f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}")


@pytest.mark.parametrize(
    "environ",
    [
        {"POSTURE_DATABASE_URL": f"postgresql://me:{SECRET}@db:port/lab"},
        {"POSTURE_DATABASE_URL": f"postgresql://me:{SECRET}@[db/lab"},
        {"POSTURE_DATABASE_URL": f"mysql://me:{SECRET}@db/lab"},
        {"POSTURE_DATABASE_URL": f"password={SECRET} passwort=x"},
        {"SUPABASE_HOST": "db", "SUPABASE_PASSWORD": SECRET, "POSTURE_WORKERS": "0"},
        {"SUPABASE_HOST": f"postgresql://me:{SECRET}@db/lab"},
        {"SUPABASE_HOST": "db", "SUPABASE_DB": f"postgresql://me:{SECRET}@db/lab"},
        {"SUPABASE_HOST": "db", "SUPABASE_USER": f"postgresql://me:{SECRET}@db/lab"},
        {"SUPABASE_PASSWORD": SECRET},
        {"POSTURE_MQTT_PASSWORD": SECRET, "SUPABASE_HOST": "db", "POSTURE_MODEL": "lite"},
    ],
)
def test_no_secret_is_in_a_refusal(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as error:
        AnalyzerSettings.read({"POSTURE_STREAM": "pi1", **environ})
    assert "s3cret" not in str(error.value)
    assert "w/rd" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__, "a traceback would show the value"
