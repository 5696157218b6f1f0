"""Parameters of flows, as JSON has them or as people write them: Prefect passes them on unchecked. Knows no flow."""

from klaviyo_pg.errors import BadSettings

_FLAGS = {"true": True, "false": False}


def parse_flag(label: str, value: object) -> bool:
    """Return a flag that is true or false, also as text, as from `prefect deployment run -p restart=False`.

    None is false. `label` names the parameter in errors. Raises BadSettings for anything else.
    """
    if value is None:
        return False
    try:
        return _FLAGS[str(value).strip().lower()]
    except KeyError:
        raise BadSettings(f"{label} {value}: use true or false.") from None
