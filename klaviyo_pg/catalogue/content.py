"""The tables of what an account has designed: templates of emails, forms with their versions, and images."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, INTEGER, KEY, TEXT, TIMESTAMP, Column, Table


def _text(name: str, description: str, current: str = "") -> Column:
    return Column(name, TEXT, description, current or name, "", personal=Personal.CHECKED)


TEMPLATES = Table(
    "templates",
    "One row for each email template. campaign_messages and flow_messages have its id as template_id.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the template.", "id", "", personal=Harmless.ID),
        _text("name", "Name of the template."),
        _text("editor_type", "SYSTEM_DRAGGABLE, USER_DRAGGABLE, SIMPLE or CODE."),
        _text("html", "HTML of the template, with its placeholders. It can be large."),
        _text("text", "Plain text of the template, with its placeholders."),
        Column("created_at", TIMESTAMP, "When the template was created.", "created", ""),
        Column("updated_at", TIMESTAMP, "When the template last changed.", "updated", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)
FORMS = Table(
    "forms",
    "One row for each sign-up form.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the form.", "id", "", personal=Harmless.ID),
        _text("name", "Name of the form."),
        _text("status", "draft or live. A live form that is being edited is live."),
        Column("is_ab_test", BOOLEAN, "True if the form has a test, whether that runs or not.", "ab_test", ""),
        Column("created_at", TIMESTAMP, "When the form was created.", "created_at", ""),
        Column("updated_at", TIMESTAMP, "When the form last changed.", "updated_at", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)
FORM_VERSIONS = Table(
    "form_versions",
    "One row for each version of a form. Those of a deleted form stay as they were.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the version.", "id", "", personal=Harmless.ID),
        Column("form_id", TEXT, "ID of the form.", "forms.id", "", personal=Harmless.ID),
        Column("form_key", KEY, "Key of the form; joins to forms.key.", "computed", "", personal=Harmless.KEY),
        _text("form_type", "popup, flyout, embed, full_page or banner."),
        _text("variation_name", "Name of the version."),
        _text("ab_test_variation", "Name of the variation in a test; null outside of tests.", "ab_test.variation_name"),
        _text("status", "draft or live."),
        Column("created_at", TIMESTAMP, "When the version was created.", "created_at", ""),
        Column("updated_at", TIMESTAMP, "When the version last changed.", "updated_at", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)
IMAGES = Table(
    "images",
    "One row for each image in the account's library.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the image.", "id", "", personal=Harmless.ID),
        _text("name", "Name of the image."),
        _text("image_url", "Address of the file."),
        _text("format", "Format of the file, such as jpeg or png."),
        Column("size", INTEGER, "Size of the file in bytes.", "size", ""),
        Column("is_hidden", BOOLEAN, "True if the library does not show the image.", "hidden", ""),
        Column("updated_at", TIMESTAMP, "When the image last changed.", "updated_at", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)
