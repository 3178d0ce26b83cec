"""Bring files from outside docs/ into the documentation site, so that one link holds on the site and in the repository.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages. Any other file that a page links is published as it is, under
`repository/`.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages outside docs/, and their place on the site."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and every file outside docs/ that a page links."""
    root = Path(config.docs_dir).parent
    for path, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(root / path)))
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            path = _repository_path(page, link)
            if _site_path(path).startswith("repository/") and (root / path).is_file():
                files.append(File.generated(config, _site_path(path), abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn a link between files of the repository into the link between their places on the site."""
    folder = PurePosixPath(page.file.src_uri).parent

    def on_site(link: re.Match[str]) -> str:
        return os.path.relpath(_site_path(_repository_path(page.file, link[1])), folder)

    return LINK.sub(on_site, markdown)


def _repository_path(page: File, link: str) -> str:
    """Return the path of a link's target, from the repository's root."""
    outside = {place: path for path, place in PAGES.items()}
    source = outside.get(page.src_uri, f"docs/{page.src_uri}")
    return os.path.normpath(PurePosixPath(source).parent / link)


def _site_path(path: str) -> str:
    """Return a file's place on the site, from its path in the repository."""
    return PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}")
