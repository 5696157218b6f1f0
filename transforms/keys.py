"""The keys of the warehouse, computed as SQL computes them. Changing a recipe would orphan every stored row."""

import polars as pl
import polars_hash  # noqa: F401  # registers the nchash namespace

from klaviyo_pg.catalogue.shared import ESP_SOURCE


def md5(text: pl.Expr) -> pl.Expr:
    """Return the MD5 of the UTF-8 bytes as 32 lower-case hexadecimal digits, like Postgres' md5(text). Nulls stay."""
    digest: pl.Expr = text.nchash.md5()  # type: ignore[attr-defined]
    return digest


def row_key(integration_id: str, row_id: pl.Expr) -> pl.Expr:
    """Return md5('Klaviyo' || ':' || esp_integration_id || ':' || id). Null if the id is null."""
    return md5(pl.lit(key_prefix(integration_id).decode()) + row_id)


def key_prefix(integration_id: str) -> bytes:
    """Return what the MD5 of a row's key is calculated from, without the id at its end."""
    return f"{ESP_SOURCE}:{integration_id}:".encode()
