"""Why a pod does not run, from what the API says of it."""

from typing import Any

import pytest
from posture_offloader.pods import pod_problem


def pod(phase: str = "Pending", **state: Any) -> dict[str, Any]:
    return {"status": {"phase": phase, "containerStatuses": [{"state": state}]}}


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({}, ""),
        (pod("Running", running={}), ""),
        (pod(waiting={"reason": "ContainerCreating"}), ""),
        (
            pod(waiting={"reason": "ErrImagePull", "message": "not found"}),
            "ErrImagePull: not found",
        ),
        (pod("Succeeded", terminated={"exitCode": 0, "reason": "Completed"}), ""),
        (pod("Failed", terminated={"exitCode": 137, "reason": "OOMKilled"}), "exit code 137: OOMKilled"),
        (
            pod("Failed", terminated={"exitCode": 78, "message": "a line\nposture-analyzer: wrong password\n"}),
            "exit code 78: posture-analyzer: wrong password",
        ),
        (
            {"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}},
            "Evicted: low on memory",
        ),
        ({"status": {"phase": "Failed"}}, "its pod failed"),
        (
            {"status": {"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "Bad"}}}]}},
            "Bad",
        ),
    ],
)
def test_what_is_wrong_is_one_line(found: dict[str, Any], problem: str) -> None:
    assert pod_problem(found) == problem
