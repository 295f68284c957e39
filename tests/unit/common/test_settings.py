"""Settings from the environment, whatever the program."""

import os
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posture_common.settings import EnvironmentSettings, SettingsError
from pydantic import SecretStr, ValidationError


class Example(EnvironmentSettings):
    """Settings of no program."""

    foreign_names: ClassVar = {"LAB_PLACE": "place"}

    size: int = 3
    place: str | None = None
    key: SecretStr | None = None
    name: str


def test_unset_and_empty_are_the_same() -> None:
    settings = Example.read({"POSTURE_NAME": "x", "POSTURE_SIZE": "", "POSTURE_KEY_FILE": ""})
    assert settings == Example(name="x")


def test_variables_of_others_are_left_alone() -> None:
    assert Example.read({"POSTURE_NAME": "x", "POSTURE_UNKNOWN": "y", "SIZE": "9", "PATH": "z"}).size == 3


def test_a_foreign_name_sets_its_field() -> None:
    assert Example.read({"POSTURE_NAME": "x", "LAB_PLACE": "here"}).place == "here"
    assert "LAB_PLACE" not in Example.read({"POSTURE_NAME": "x"}).model_dump()


def test_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTURE_NAME", "from outside")
    assert Example.read().name == "from outside"


def test_settings_do_not_change() -> None:
    settings = Example(name="x")
    with pytest.raises(ValidationError):
        settings.name = "y"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "POSTURE_NAME is not set"),
        ({"POSTURE_NAME": ""}, "POSTURE_NAME is not set"),
        ({"POSTURE_NAME": "x", "POSTURE_SIZE": "x"}, "POSTURE_SIZE: Input should be a valid integer"),
        ({"POSTURE_SIZE": "x"}, "POSTURE_NAME is not set"),
        ({"POSTURE_NAME": "x", "POSTURE_KEY": "1", "POSTURE_KEY_FILE": "/2"}, "are both set; set one of them"),
        ({"POSTURE_NAME": "x", "POSTURE_KEY_FILE": "/nowhere/key"}, "POSTURE_KEY_FILE: cannot read /nowhere/key"),
        ({"POSTURE_NAME": "x", "POSTURE_KEY_FILE": "/"}, "POSTURE_KEY_FILE: cannot read /: Is a directory"),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        Example.read(environ)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_secret_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(os.urandom(16) + b"\xff\xfe")
    with pytest.raises(SettingsError, match="POSTURE_KEY_FILE"):
        Example.read({"POSTURE_NAME": "x", "POSTURE_KEY_FILE": str(file)})


@given(st.text(min_size=8))
def test_no_secret_shows(secret: str) -> None:
    settings = Example(name="x", key=SecretStr(secret))
    assert "SecretStr('**********')" in repr(settings)
    assert repr(settings) == repr(Example(name="x", key=SecretStr("another")))
