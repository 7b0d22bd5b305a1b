"""What the site's generator does beyond its own: ``make docs``.

The site has the repository's own tree. README and the pages of this folder stand where they lie,
with whatever they link to, so that a link written for a reader of the repository holds on the site
too. A page of ``reference/`` is made of the docstrings of the module that it is named after.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from griffe import Docstring, Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)\s#]+)")
ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):(`[^`]+`)")


def linked(start: list[str]) -> list[str]:
    """These files and whatever their Markdown links to, by their paths in the repository."""
    found: list[str] = []
    waiting = list(start)
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        found.append(path)
        if path.endswith(".md"):
            links = LINK.findall((ROOT / path).read_text(encoding="utf-8"))
            targets = [
                ((ROOT / path).parent / link).resolve() for link in links if "://" not in link
            ]
            # What is missing is left to the generator, which names page and link.
            waiting += [str(t.relative_to(ROOT)) for t in targets if t.is_file()]
    return found


def named(nav: Any) -> list[str]:
    """The pages of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    return [
        page for part in nav for page in named(part.values() if isinstance(part, dict) else part)
    ]


def on_config(config: MkDocsConfig) -> None:
    """List last the pages of this folder that the navigation does not name."""
    nav = config.nav or []
    pages = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
    rest = [page for page in pages if page not in named(nav)]
    config.nav = [*nav, *([{"More": rest}] if rest else [])]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give the site the repository's tree, and the reference its pages."""
    for file in (*files.documentation_pages(), *files.media_files()):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    pages = named(config.nav)
    for path in linked([page for page in pages if not page.startswith("reference/")]):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for page in pages:
        if page.startswith("reference/"):
            module = Path(page).stem
            text = f"# {module}\n\n::: {module}\n"
            files.append(File.generated(config, page, content=text))
    for file in files.documentation_pages():
        # Shorter addresses: of docs/tutorial.md, tutorial/.
        file.dest_uri = file.dest_uri.removeprefix("docs/").lower()
    return files


class Roles(Extension):
    """Shows a Sphinx role in a docstring, ``:func:`name` ``, as the name that it holds."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if isinstance(obj.docstring, Docstring):
            obj.docstring.value = ROLE.sub(r"\1", obj.docstring.value)


class _Page(HTMLParser):
    """A page's links and anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, and the name that it can be linked by."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def dangling(site: Path) -> list[str]:
    """The links within a built site that lead nowhere, each with its page.

    The generator looks at links in Markdown alone; these are all links of the finished pages, of
    docstrings and images too.
    """
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    problems = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                problems.append(f"{path.relative_to(site)}: {link}")
    return problems


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site with a link that leads nowhere."""
    problems = dangling(Path(config.site_dir))
    if problems:
        raise PluginError("links that lead nowhere:\n  " + "\n  ".join(problems))
