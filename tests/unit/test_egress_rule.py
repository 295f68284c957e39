"""Rules for addresses that pods may reach."""

import pytest

from plugins.filter.egress_rule import egress_rule


@pytest.mark.parametrize(("address", "cidr"), [("10.0.0.1", "10.0.0.1/32"), ("fd00::1", "fd00::1/128")])
def test_an_address_is_the_only_one(address: str, cidr: str) -> None:
    assert egress_rule(address, 1883) == {
        "ports": [{"protocol": "TCP", "port": 1883}],
        "to": [{"ipBlock": {"cidr": cidr}}],
    }


def test_behind_a_name_there_is_any_address_at_its_port() -> None:
    assert egress_rule("db.example.supabase.co", 5432) == {"ports": [{"protocol": "TCP", "port": 5432}]}
