"""Links of the project's documents, as they are on the site. Knows no site generator."""

import re
from pathlib import PurePosixPath

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files outside the folder docs/ that are pages of the site, and the names of their pages."""
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?(?=\))")
_LINK_TO_FILE = re.compile(r"\[(?P<text>[^\]]*)\]\(\.\./[^)]+\)")


def for_site(markdown: str, folder: PurePosixPath) -> str:
    """Return a text of the project, from this folder, with the links of the site.

    What the site does not contain, such as a file of the code, is named without a link.
    """

    def on_site(link: re.Match[str]) -> str:
        path = _normal(folder / link["path"])
        if path in PAGES:
            return PAGES[path] + (link["anchor"] or "")
        inside = path.removeprefix("docs/")
        return (inside if inside != path else f"../{path}") + (link["anchor"] or "")

    return _LINK_TO_FILE.sub(r"\g<text>", _LINK.sub(on_site, markdown))


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
