# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that read what docker and buildx answer: an image in a registry, and why something failed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

# What is looked for in the output, and what to do about it; the first that is found counts.
_PROBLEMS = {
    r"no space left on device": """
        a disk is full: free some on the builder, for example with 'docker buildx prune' and 'docker image prune', or on
        the registry""",
    r"server gave HTTP response to HTTPS client": """
        the registry {registry} speaks plain http: set posture_registry_insecure: true where that is meant""",
    r"x509|certificate": """
        a certificate is not trusted: add its authority to the builder's certificates (image_ca_file), for the registry
        to /etc/docker/certs.d/{registry}/ca.crt there""",
    r"\b40[13]\b|[Uu]nauthorized|authentication required|denied|insufficient_scope|no basic auth": """
        the registry {registry} refuses the login: set posture_registry_username and posture_registry_password, or run
        'docker login {registry}' on the builder, with a user who may push there""",
    r"connection refused|no such host|i/o timeout|deadline exceeded|no route to host|unreachable|dial tcp"
    r"|name resolution|connection reset|Failed to fetch|error sending request": """
        it cannot be reached: start it, correct its name (the registry is {registry}, of posture_image), or open the way
        to it""",
    r"50\d Internal Server Error|unexpected status[^\n]*50\d": """
        the registry {registry} itself failed: see its log and whether its disk is full""",
    r"exec format error": """
        a program of another architecture was to be run, which the image's build never needs: correct image_base""",
    r"not found": """
        there is no such image: correct its name, or push it first""",
}
_LONGEST = 400


def docker_problem(said: str, registry: str) -> str:
    """Return the line of the output that tells the cause, and the next step."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for pattern, advice in _PROBLEMS.items():
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return f"{_shorten(found[-1])}: {' '.join(advice.format(registry=registry).split())}."
    causes = [line for line in lines if re.match(r"(?i)error|fatal", line)] or lines or ["docker said nothing"]
    return f"{_shorten(causes[-1])}. The whole output is shown with -v."


def image_state(answer: str) -> dict[str, Any]:
    """Return digest, platforms and labels of an image, from `docker buildx imagetools inspect --format '{{json .}}'`.

    Labels are those that each platform's image has with the same value. No answer gives an image without any of these.
    """
    if not answer.strip():
        return {"digest": "", "platforms": [], "labels": {}}
    shown = json.loads(answer)
    images: Mapping[str, Any] = shown.get("image") or {}
    if "architecture" in images:  # an image that is for one platform only
        images = {f"{images['os']}/{images['architecture']}": images}
    labels = [(image.get("config") or {}).get("Labels") or {} for image in images.values()]
    common = set.intersection(*(set(each.items()) for each in labels)) if labels else set()
    return {"digest": shown["manifest"]["digest"], "platforms": sorted(images), "labels": dict(common)}


def _shorten(line: str) -> str:
    line = line.rstrip(".")
    return line if len(line) <= _LONGEST else f"... {line[-_LONGEST:]}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file by name."""
        return {"docker_problem": docker_problem, "image_state": image_state}
