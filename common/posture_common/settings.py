"""Settings from the environment: typed, checked once at the start, secrets also from files.

Each program subclasses `Settings`; a field `mqtt_host` is read from `POSTURE_MQTT_HOST`. A field of type `SecretStr`
may instead be given as a file: `POSTURE_MQTT_PASSWORD_FILE=/run/secrets/mqtt`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

PREFIX = "POSTURE_"
_PI_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
ANY_PI = "all"
Port = Annotated[int, Field(ge=1, le=65535)]
ImageBytes = Annotated[int, Field(gt=0)]
MAX_IMAGE_BYTES = 20 * 2**20
"""Default of the largest encoded image that a publisher sends and an analyzer takes."""


def pi_id(value: str) -> str:
    """Return a Pi's id as it is; raise ValueError where it could not be part of Kubernetes names and MQTT topics."""
    if not _PI_ID.fullmatch(value) or value == ANY_PI or value.startswith("posture-"):
        raise ValueError(
            f"{value!r} is not a Pi's id: 1 to 40 of a-z, 0-9 and inner '-', not 'all', not starting with 'posture-'"
        )
    return value


PiId = Annotated[str, AfterValidator(pi_id)]


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it, says why and what is expected."""


class EnvironmentSettings(BaseModel):
    """Fields that are read from environment variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    foreign_names: ClassVar[Mapping[str, str]] = {}
    """Environment variables without our prefix: name -> field."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the settings, or raise `SettingsError` with one line for each thing that is wrong, joined by '; '."""
        names = {**{PREFIX + field.upper(): field for field in cls.model_fields}, **cls.foreign_names}
        values = {}
        for name, field in names.items():
            value = _value(environ, name, secret=_is_secret(cls, field))
            if value is not None:
                values[field] = value
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(_explain(error, names)) from None


class Settings(EnvironmentSettings):
    """What every service of posture.edge needs to know."""

    mqtt_host: str = "localhost"
    mqtt_port: Port = 1883
    mqtt_user: str | None = None
    mqtt_password: SecretStr | None = None
    mqtt_ca_file: Path | None = None
    http_host: str = "127.0.0.1"
    http_port: Port
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def _is_secret(settings: type[EnvironmentSettings], field: str) -> bool:
    return "SecretStr" in str(settings.model_fields[field].annotation)


def _value(environ: Mapping[str, str], name: str, *, secret: bool) -> str | None:
    """The variable's value; None when it is unset or empty, as `docker compose` and Kubernetes leave optional ones.

    A secret is taken without the white space around it, wherever it stands: `echo` ends it with a line.
    """
    value = environ.get(name) or None
    if value is not None and secret:
        value = value.strip() or None
    path = environ.get(f"{name}_FILE") if secret else None
    if not path:
        return value
    if value is not None:
        raise SettingsError(f"{name} and {name}_FILE are both set; set one of them")
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            f"{name}_FILE: cannot read {path}: {error.strerror}; create it or correct the path"
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{name}_FILE: {path} is not UTF-8 text; write the secret into it as plain text") from None
    if not content:
        raise SettingsError(f"{name}_FILE: {path} is empty; write the secret into it")
    return content


def _explain(error: ValidationError, names: Mapping[str, str]) -> str:
    by_field = {field: name for name, field in names.items()}
    lines = []
    for detail in error.errors(include_url=False, include_input=False):
        message = detail["msg"].removeprefix("Value error, ")
        if not detail["loc"]:
            lines.append(message)
            continue
        name = by_field[str(detail["loc"][0])]
        lines.append(f"{name} is not set" if detail["type"] == "missing" else f"{name}: {message}")
    return "; ".join(lines)
