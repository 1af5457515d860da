"""What every mapping of the configuration has in common. Refuses to know any key."""

from __future__ import annotations

from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

PARTIAL: Final = "partial"
"""Set in a validation's context: parts that are wrong have been left out, and what a provider's kind alone
understands is to be."""


class Section(BaseModel):
    """A mapping of known keys; unknown ones are errors, and no error repeats a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic takes true for 1, which nobody who wrote it meant.
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError("must be a number, not true or false")
        return value
