# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asks Prometheus one instant query over HTTP. What went wrong is told with URL, cause and next step, and no secret."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

REQUESTS_MISSING: str | None = None
"""The traceback where `requests` is not installed: a module reports it; nothing can be asked without."""
try:
    import requests
    from requests.auth import HTTPBasicAuth
except ImportError:
    REQUESTS_MISSING = traceback.format_exc()


class PrometheusError(Exception):
    """Prometheus cannot be asked: it is down, refuses us, or something else answers at its address."""


class QueryError(Exception):
    """Prometheus answers, and refuses this query."""


@dataclass(frozen=True)
class Answer:
    """A query's vector: `series` are labels and value, `time_s` is Prometheus's clock (0 where there is no series)."""

    time_s: float
    series: tuple[tuple[Mapping[str, str], float], ...]


class Prometheus:
    """One Prometheus at `url`, asked by as many threads as you like.

    Credentials are a bearer `token`, or `user` and `password`, which may stand in the URL as well. `ca_file` is the
    authority of its certificate. `timeout_s` is for the connection, and again for the answer. A connection that breaks
    and a status of 500 or more are tried once more. ValueError: an argument that no request can be made of.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        validate_certs: bool = True,
        timeout_s: float = 5,
    ) -> None:
        try:
            parts = urlsplit(url.strip())
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            raise ValueError(
                "the URL of Prometheus must be like http://10.0.0.2:9090 or https://lab.example/prometheus"
            )
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        if not user and parts.username:
            user, password = unquote(parts.username), unquote(parts.password or "")
        if (token and user) or (password and not user):
            raise ValueError(f"Prometheus at {self.url}: give either a token, or user and password")
        self._token = token.strip() if token else None
        if self._token and not (self._token.isascii() and self._token.isprintable() and " " not in self._token):
            raise ValueError(f"Prometheus at {self.url}: the token holds characters that a token cannot have")
        # Bytes: requests would encode text as Latin-1.
        self._basic = (user.encode(), (password or "").encode()) if user else None
        self._verify: bool | str = (ca_file or True) if validate_certs else False
        self._timeout_s = timeout_s

    def query(self, promql: str) -> Answer:
        """Return the vector that Prometheus works out for the query now; PrometheusError, QueryError."""
        response = self._get(promql, again=True)
        status = f"{response.status_code} {response.reason}"
        if response.status_code in (401, 403):
            raise PrometheusError(f"Prometheus at {self.url} answers {status}: check the token, or user and password")
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        problem = str(answer.get("error", "")) if isinstance(answer, dict) and answer.get("status") == "error" else ""
        if response.status_code >= 500:
            why = f"{status} ({problem})" if problem else status
            raise PrometheusError(f"Prometheus at {self.url} answers {why}: it may be starting, look at its log")
        if problem:
            raise QueryError(problem)
        try:
            return _parse(answer)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
            raise PrometheusError(
                f"{self.url}/api/v1/query answers {status} ({kind}), not as Prometheus does: check port and path"
            ) from None

    def _get(self, promql: str, *, again: bool) -> requests.Response:
        """Return the answer, whatever it says; with `again` what may pass by itself is tried once more."""
        try:
            response = requests.get(
                f"{self.url}/api/v1/query",
                params={"query": promql},
                auth=self._authorize,
                verify=self._verify,
                timeout=self._timeout_s,
            )
        except requests.Timeout:
            problem = f"does not answer within {self._timeout_s:g} s: check that it runs, and firewalls in between"
        except requests.exceptions.SSLError as error:
            problem = (
                f"shows no certificate to trust ({_cause(error)}): give its authority as CA file, or check the URL"
            )
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            if again:
                return self._get(promql, again=False)
            problem = f"cannot be reached ({_cause(error)}): check the URL, and that it runs"
        except (OSError, ValueError) as error:  # such as a CA file that is not there
            problem = f"cannot be asked ({_cause(error)}): check the URL and the CA file"
        else:
            return self._get(promql, again=False) if again and response.status_code >= 500 else response
        raise PrometheusError(f"Prometheus at {self.url} {problem}")

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set our own credentials or none: left alone, requests would look into ~/.netrc."""
        if self._basic:
            HTTPBasicAuth(*self._basic)(request)
        elif self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _parse(answer: Any) -> Answer:
    result = answer["data"]["result"]
    series = tuple(
        ({key: str(value) for key, value in each["metric"].items()}, float(each["value"][1])) for each in result
    )
    time_s = float(result[0]["value"][0]) if result else 0.0
    if not math.isfinite(time_s):
        raise ValueError("an answer without a time")
    return Answer(time_s, series)


def _cause(error: BaseException) -> str:
    """Return what happened in the end: requests wraps it in its own and urllib3's words, with the whole query."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
