"""The active check of OpenAI itself: ``models.list()`` of its own package.

It spends no tokens and is asked once a minute, so the package's knowledge of the API is worth more here than
its speed. Refuses to know chat.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
import openai

from router_server.core.errors import Outcome, UpstreamError
from router_server.providers._failure import refused_check
from router_server.providers._openai_check import UNKNOWN, require_model_list


class ModelList:
    """Asks one server for its models.

    Args:
        base_url: where it is.
        api_key: the credential; empty where it wants none.
        headers: organization and project.
    """

    def __init__(self, base_url: str, api_key: str, headers: Mapping[str, str]) -> None:
        # As with calls: no proxy of the environment, no redirect, cookie or second try; the caller's clock.
        transport = httpx2.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=None,
            verify=base_url.startswith("https:"),
        )
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            default_headers=headers,
            http_client=transport,
            max_retries=0,
        )
        self._omit = {} if api_key else {"Authorization": openai.Omit()}

    async def ask(self) -> bool | None:
        """Return True where the server answers; None where it has no such question, or is only busy.

        Raises:
            UpstreamError: it does not answer as it should.
        """
        try:
            # Raw: of what is no list of models the package makes errors of its own code, or believes it.
            answer = await self._client.models.with_raw_response.list(extra_headers=self._omit)
        except openai.APIStatusError as error:
            if error.status_code in UNKNOWN:
                return None
            raise refused_check(error.status_code) from None
        except openai.APIConnectionError:
            raise UpstreamError(Outcome.UNAVAILABLE, "unreachable") from None
        except (openai.OpenAIError, httpx2.HTTPError, ValueError):
            raise UpstreamError(Outcome.MALFORMED, "not_a_model_list") from None
        require_model_list(answer.content)
        return True

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()
