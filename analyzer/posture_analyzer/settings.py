"""The analyzer's settings; docs/analyzer.md lists them for users."""

import socket
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import parse_qsl

import psycopg
from posture_common.disk import DEFAULT_FLOOR, FloorSetting
from posture_common.settings import ANY_PI, MAX_IMAGE_BYTES, EnvironmentSettings, ImageBytes, Port, Settings, pi_id
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo
from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

_PARAMETERS = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}
"""What libpq knows in a database's address; `ssl=true` as JDBC has it."""
Degrees = Annotated[float, Field(gt=0, lt=180)]


def _stream(value: str) -> str:
    return value if value == ANY_PI else pi_id(value)


class AnalysisSettings(EnvironmentSettings):
    """How a picture is analysed."""

    model: Literal["full", "lite", "heavy"] = "full"
    model_file: Path | None = None
    passes: Annotated[int, Field(ge=1, le=2)] = 2
    neck_threshold: Degrees = 40.0
    body_threshold: Degrees = 10.0
    max_image_bytes: ImageBytes = MAX_IMAGE_BYTES
    max_pixels: Annotated[int, Field(gt=0)] = 4096 * 4096
    pictures: Literal["all", "uncertain", "skeleton", "none"] = "all"
    blur_faces: bool = False
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 85

    @model_validator(mode="after")
    def _model_has_its_file(self) -> Self:
        if self.model != "full" and self.model_file is None:
            raise ValueError(
                f"POSTURE_MODEL is {self.model}, so POSTURE_MODEL_FILE must name its .task file; "
                "only the full model comes with the program"
            )
        return self


class PruneSettings(EnvironmentSettings):
    """What is kept of pictures and dead letters; 0 days are for ever."""

    images_dir: Path = Path("/var/lib/posture/images")
    images_keep_days: Annotated[int, Field(ge=0)] = 30
    images_keep_bytes: Annotated[int, Field(gt=0)] | None = None


class AnalyzerSettings(AnalysisSettings, Settings):
    """Everything the running analyzer needs."""

    foreign_names: ClassVar = {
        "SUPABASE_HOST": "supabase_host",
        "SUPABASE_PORT": "supabase_port",
        "SUPABASE_DB": "supabase_db",
        "SUPABASE_USER": "supabase_user",
        "SUPABASE_PASSWORD": "supabase_password",
        "SUPABASE_SSL": "supabase_ssl",
    }

    stream: Annotated[str, AfterValidator(_stream)]
    node: str = Field(default_factory=socket.gethostname)
    epoch: Annotated[int, Field(ge=1)] | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    images_dir: Path = Path("/var/lib/posture/images")
    disk_floor: FloorSetting = DEFAULT_FLOOR
    http_port: Port = 9310

    database_url: SecretStr | None = None
    database_ca_file: Path | None = None
    supabase_host: str | None = None
    supabase_port: Port = 5432
    supabase_db: str = "postgres"
    supabase_user: str = "postgres"
    supabase_password: SecretStr | None = None
    supabase_ssl: str = "prefer"

    @field_validator("database_url")
    @classmethod
    def _url_is_readable(cls, url: SecretStr | None) -> SecretStr | None:
        address = url.get_secret_value() if url else ""
        foreign = _foreign_parameters(address)
        if foreign:
            names = " and ".join(map(repr, foreign))
            raise ValueError(f"{names} after the '?' is for another program, PostgreSQL does not know it; remove it")
        try:
            parts = conninfo_to_dict(address)
        except psycopg.ProgrammingError:
            parts = {"port": "?"}
        # An unescaped '/' or '@' in the password puts a piece of it where host, port or database stand, which messages
        # quote.
        ports, database = str(parts.get("port", 5432)).split(","), str(parts.get("dbname", ""))
        hosts = str(parts.get("host", "")).split(",")
        odd = any("@" in host or ("/" in host and not host.startswith("/")) for host in hosts)
        if odd or not all(port.isdecimal() for port in ports) or {"/", "@"} & set(database):
            raise ValueError(
                "not of the form postgresql://user:password@host:port/database, "
                "with special characters of the password written as %40 and so on"
            )
        return url

    @field_validator("supabase_host", "supabase_db", "supabase_user", "supabase_port", "supabase_ssl", mode="before")
    @classmethod
    def _without_white_space(cls, part: object) -> object:
        # `echo` ends a line, and who copies takes a space with it.
        return part.strip() if isinstance(part, str) else part

    @field_validator("supabase_host", "supabase_db", "supabase_user")
    @classmethod
    def _is_no_url(cls, part: str | None) -> str | None:
        # Messages quote it, and a URL holds the password.
        if part is not None and "://" in part:
            raise ValueError("a URL; the whole of it belongs in POSTURE_DATABASE_URL, here only its part")
        return part

    @field_validator("supabase_ssl")
    @classmethod
    def _ssl_is_a_mode(cls, mode: str) -> str:
        words = {"true": "require", "false": "disable"}
        modes = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
        mode = words.get(mode.lower(), mode)
        if mode not in modes:
            raise ValueError(f"{mode!r} is none of {', '.join(sorted(modes))}, true, false")
        return mode

    @model_validator(mode="after")
    def _one_database(self) -> Self:
        if (self.database_url is None) == (self.supabase_host is None):
            raise ValueError("the database is not clear: set either POSTURE_DATABASE_URL or SUPABASE_HOST")
        return self

    @property
    def topic(self) -> str:
        """The stream's MQTT topic filter."""
        return "images/+" if self.stream == ANY_PI else f"images/{self.stream}"

    @property
    def probe_pi_id(self) -> str:
        """Whose row tries the table at the start."""
        return "posture-check" if self.stream == ANY_PI else self.stream

    @property
    def conninfo(self) -> str:
        """The database as libpq takes it; holds the password."""
        ca_file = {} if self.database_ca_file is None else {"sslrootcert": str(self.database_ca_file)}
        if self.database_url is not None:
            return make_conninfo(self.database_url.get_secret_value(), **ca_file)
        password = self.supabase_password
        return make_conninfo(
            host=self.supabase_host,
            port=self.supabase_port,
            dbname=self.supabase_db,
            user=self.supabase_user,
            password=None if password is None else password.get_secret_value(),
            sslmode=self.supabase_ssl,
            **ca_file,
        )


def _foreign_parameters(url: str) -> list[str]:
    """Return the parameters of a database's URL that libpq does not know.

    None where they may be a piece of a password: of one with a '?' in it, or of one that is a parameter itself.
    """
    scheme, _, rest = url.partition("://")
    parameters = rest.partition("?")[2]
    if scheme not in {"postgresql", "postgres"} or "@" in parameters or "password" in parameters.lower():
        return []
    return [name for name, _ in parse_qsl(parameters, keep_blank_values=True) if name not in _PARAMETERS]
