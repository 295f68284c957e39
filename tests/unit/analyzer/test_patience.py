"""How long an image may keep a decoder."""

from posture_analyzer.patience import LEAST_S, WINDOW_S, Patience
from posture_analyzer.sandbox import LONGEST_CPU_S, cpu_limit_s

MB = 2**20


def test_larger_images_may_take_longer_up_to_a_bound() -> None:
    assert cpu_limit_s(0) < cpu_limit_s(4 * MB) < cpu_limit_s(8 * MB) == LONGEST_CPU_S == cpu_limit_s(20 * MB)


def test_a_pi_that_wastes_time_gets_less_and_others_do_not() -> None:
    patience = Patience()
    patience.wasted("pi1", 1.0, now=0)
    assert patience.limit_s("pi1", size=8 * MB, now=1) == LONGEST_CPU_S - 1
    patience.wasted("pi1", 30.0, now=1)
    assert patience.limit_s("pi1", size=8 * MB, now=2) == LEAST_S
    assert patience.limit_s("pi2", size=8 * MB, now=2) == LONGEST_CPU_S


def test_what_was_wasted_is_forgotten() -> None:
    patience = Patience()
    patience.wasted("pi1", 30.0, now=0)
    assert patience.limit_s("pi1", size=MB, now=WINDOW_S - 1) == LEAST_S
    assert patience.limit_s("pi1", size=MB, now=WINDOW_S + 1) == cpu_limit_s(MB)
    assert not patience._wasted
