"""The part of the tree that says who is told of outages. Refuses to tell anybody."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from router_server.config.section import Section
from router_server.config.values import Duration, Share


def _webhook(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("http://", "https://")):
        raise ValueError(
            "is not the URL of a webhook; write https://…, or ${NAME} to keep it out of the file"
        )
    return url


class AlertsConfig(Section):
    """Who is told when a target goes down, when it is back, and when a budget is nearly spent."""

    webhook: Annotated[SecretStr, AfterValidator(_webhook)] = Field(
        description="takes {text: …} by POST, as Slack's does; whoever knows it may write there: a secret"
    )
    after: Duration = Field(
        default=30.0, description="how long a target must be down, or back, before anybody is told"
    )
    budget: tuple[Share, ...] = Field(
        default=(0.8, 1.0), description="shares of a budget at which people are told; 1: a call did not fit"
    )
