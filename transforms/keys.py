"""The keys of the warehouse, as SQL computes them. Changing a recipe orphans every stored row."""

import polars as pl
import polars_hash  # noqa: F401  # registers the nchash namespace

ESP_SOURCE = "Klaviyo"


def md5(text: pl.Expr) -> pl.Expr:
    """The MD5 digest of the UTF-8 bytes as 32 lower-case hexadecimal digits, as Postgres' md5(text); null of null."""
    digest: pl.Expr = text.nchash.md5()  # type: ignore[attr-defined]
    return digest


def row_key(integration_id: str, row_id: pl.Expr) -> pl.Expr:
    """md5('Klaviyo' || ':' || esp_integration_id || ':' || id); null where the id is null."""
    return md5(pl.lit(f"{ESP_SOURCE}:{integration_id}:") + row_id)
