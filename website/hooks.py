"""Hooks of the site generator: pages outside the folder docs/, and links."""

from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

from website.links import PAGES, for_site

ROOT = Path(__file__).resolve().parent.parent


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=for_site((ROOT / name).read_text("utf-8"), PurePosixPath())))
    return files


def on_page_markdown(markdown: str, page: Any, **context: Any) -> str:
    """Let the links of pages in docs/ lead to pages of the site."""
    return markdown if page.file.src_uri in PAGES.values() else for_site(markdown, PurePosixPath("docs"))
