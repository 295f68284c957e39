"""One Pi's password against a running stream `all`, with another camera beside it."""

from pathlib import Path

import pytest

from tests.support import hostile
from tests.support.databases import Database
from tests.support.limits import LimitedBroker, limits
from tests.support.mosquitto import NEW, OLD, Mosquitto

JOB_MB = 1408  # roles/analyzer/defaults/main.yml works that out


@pytest.mark.parametrize("which", [OLD, NEW])
def test_what_one_pi_sends_does_not_hold_up_another(
    mosquittos: dict[str, Mosquitto], database: Database, tmp_path: Path, which: str
) -> None:
    with LimitedBroker(mosquittos[which], tmp_path / "broker", pis=["pi1", "pi2"], limits=limits(1, 2)) as broker:
        siege = hostile.siege(broker, database, tmp_path, seconds=15, rate=8)
    assert set(siege.sent) == set(hostile.KINDS)
    assert siege.lost == []
    assert siege.rows == 15
    assert siege.longest_gap_s < 5
    assert siege.peak_mb < JOB_MB
