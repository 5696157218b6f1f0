"""The types of fields that both dialects validate alike. Knows no documents."""

from typing import Annotated

from msgspec import Meta

Named = Annotated[str, Meta(min_length=1)]
Id = Annotated[str, Meta(min_length=1, pattern=r"^[^\x00]*$")]  # without its NUL it could be another id
AnyId = Annotated[str, Meta(pattern=r"^[^\x00]*$")]
Seconds = Annotated[int, Meta(ge=-62_135_596_800, lt=253_402_300_800)]  # Unix seconds of the years 1 to 9999
