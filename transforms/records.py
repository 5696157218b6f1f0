"""Frames for the tables that are filled on request, by the columns that the catalogue declares."""

from collections.abc import Collection, Iterable

import polars as pl

from klaviyo_pg.catalogue import Load, loads, types
from klaviyo_pg.rows import Record
from transforms.clean import Cleaned, by_id, cleaned, conformed
from transforms.keys import md5, row_key

_KEY, _ID = "_key", "_id"


def records(rows: Iterable[Record], load: Load, integration_id: str) -> Cleaned:
    """Return the frame for a load, of those among the rows that belong to its table.

    A column such as item_key is computed from item_id; member_key is the same in all accounts.
    """
    found = [{"id": row.id, **row.values} for row in rows if row.table == load.table.name]
    keys = [name for name in load.schema if name.endswith(_KEY)]
    schema = {name: dtype for name, dtype in load.schema.items() if name not in ("key", *keys)}
    documents = frozenset(column.name for column in load.columns if column.type == types.JSON)
    raw = cleaned(pl.DataFrame(found, schema), documents)
    return by_id(raw, load, integration_id, **{name: _key(name, schema, integration_id) for name in keys})


def _key(name: str, columns: Collection[str], integration_id: str) -> pl.Expr:
    if name == "member_key":
        return md5(pl.col("member_id" if "member_id" in columns else "id"))
    return row_key(integration_id, pl.col(name.removesuffix(_KEY) + _ID))


def swept(found: Iterable[tuple[Load, Cleaned]], stream: str, sweep: str) -> Cleaned:
    """Return the frame for the load SWEPT_ROWS: the rows that a full read of a stream has found."""
    keys = [each.frame.select(table_name=pl.lit(load.table.name), row_key="key") for load, each in found]
    frame = pl.concat(keys).with_columns(stream=pl.lit(stream), sweep=pl.lit(sweep))
    return Cleaned(conformed(frame, loads.SWEPT_ROWS))
