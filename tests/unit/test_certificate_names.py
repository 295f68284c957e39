"""A machine's names and addresses in its certificate."""

import pytest

from plugins.filter.certificate_names import certificate_names


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nuc", "DNS:nuc"),
        ("NUC.lab.example.", "DNS:nuc.lab.example"),
        ("10.77.0.30", "IP:10.77.0.30"),
        ("10.77.0", "DNS:10.77.0"),
        ("fd00:0::1", "IP:fd00::1"),
        ("[fd00::1]", "IP:fd00::1"),
        ("fe80::1%eth0", "IP:fe80::1"),
    ],
)
def test_addresses_and_names_are_told_apart(name: str, named: str) -> None:
    assert certificate_names([name]) == [named]


def test_each_is_there_once_and_what_is_empty_is_not() -> None:
    assert certificate_names(["nuc", "", "10.0.0.1", "nuc", "localhost"]) == ["DNS:nuc", "IP:10.0.0.1", "DNS:localhost"]
