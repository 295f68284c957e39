"""Each role's argument spec says what its defaults say, and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted((Path(__file__).parents[2] / "roles").iterdir())


@pytest.fixture(params=ROLES, ids=lambda role: role.name)
def role(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def _options(role: Path) -> dict[str, dict[str, Any]]:
    spec = yaml.safe_load((role / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    options: dict[str, dict[str, Any]] = spec["argument_specs"]["main"].get("options", {})
    return options


def _defaults(role: Path) -> dict[str, Any]:
    defaults: dict[str, Any] = yaml.safe_load((role / "defaults/main.yml").read_text(encoding="utf-8")) or {}
    return defaults


def _is_template(value: object) -> bool:
    return isinstance(value, str) and "{{" in value


def test_each_default_is_specified(role: Path) -> None:
    assert set(_defaults(role)) - set(_options(role)) == set()


def test_each_option_has_a_default_or_is_required(role: Path) -> None:
    optional = {name for name, option in _options(role).items() if not option.get("required")}
    assert optional == set(_defaults(role))


def test_defaults_are_the_specified_ones(role: Path) -> None:
    defaults = {name: value for name, value in _defaults(role).items() if not _is_template(value)}
    assert {name: _options(role)[name].get("default") for name in defaults} == defaults


def test_worked_out_defaults_are_described(role: Path) -> None:
    """A template is no use to a reader: the description says what the default is, or the default shows its shape."""
    for name, value in _defaults(role).items():
        option = _options(role)[name]
        if _is_template(value):
            described = "default" in option or re.search(r"\bdefault\b", str(option["description"]))
            assert described, f"{role.name}: {name}"


def test_names_have_a_prefix(role: Path) -> None:
    for name in _options(role):
        assert name.startswith(("posture_", f"{role.name}_")), name


def test_passwords_are_not_shown(role: Path) -> None:
    for name, option in _options(role).items():
        assert option.get("no_log", False) == name.endswith(
            ("_password", "_passwords", "_passphrase", "_token", "_url")
        ), name
