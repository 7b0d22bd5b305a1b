"""The site of the documentation is built from what is there, and no link of it leads nowhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT

pytest.importorskip("mkdocs", reason="the site's generator is not installed (the extra docs)")
pytest.importorskip("mkdocstrings_handlers.python")


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Any warning of the generator, a page or a docstring is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_repository_is_on_the_site(site: Path) -> None:
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / path.stem / "index.html").is_file(), path.name
    for page in ("index.html", "contributing/index.html", "results/study/index.html"):
        assert (site / page).is_file()


def test_a_link_of_the_readme_leads_to_the_page_that_it_leads_to_on_a_code_host(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="tutorial/"' in text
    assert 'href="results/study/"' in text
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert pictures
    for picture in pictures:
        assert f'src="{picture}"' in text


def test_the_reference_shows_docstrings_and_no_markup_of_another_tool(site: Path) -> None:
    text = (site / "reference/quanta_bench.method/index.html").read_text(encoding="utf-8")
    assert 'id="quanta_bench.method.Method.adapt"' in text
    pages = [path.read_text(encoding="utf-8") for path in (site / "reference").rglob("*.html")]
    assert not [page for page in pages if ":class:" in page or ":func:" in page]


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        asked = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=.?https?://[^\s>]+", path.read_text()
        )
        assert [tag for tag in asked if "canonical" not in tag] == [], path


def test_a_link_that_leads_nowhere_is_found(hooks: Any, tmp_path: Path) -> None:
    """The control of the build: what it looks for would be seen."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("<h1 id='there'>Other</h1>")
    (tmp_path / "index.html").write_text(
        "<a href='other/'>1</a><a href='other/#there'>2</a><a href='https://host/x'>3</a>"
        "<a href='#gone'>4</a><a href='other/#gone'>5</a><img src='gone.png'><a href='gone/'>6</a>"
    )
    assert hooks.dangling(tmp_path) == [
        "index.html: #gone",
        "index.html: gone.png",
        "index.html: gone/",
        "index.html: other/#gone",
    ]


def test_a_page_that_the_navigation_forgets_is_listed_last(hooks: Any) -> None:
    class Config:
        nav: Any = [{"Home": "README.md"}, {"Use it": [{"Tutorial": "docs/tutorial.md"}]}]

    config = Config()
    hooks.on_config(config)
    assert config.nav[:2] == Config.nav
    assert "docs/running.md" in config.nav[2]["More"]
    assert "docs/tutorial.md" not in config.nav[2]["More"]


def test_the_navigation_names_pages_that_are_there(hooks: Any) -> None:
    # The anchors' function is named by a tag that a plain loader does not know.
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("markdown_extensions:")[0]
    pages = hooks.named(yaml.safe_load(text)["nav"])
    assert len(pages) == len(set(pages)) > 25
    for page in pages:
        if not page.startswith("reference/"):
            assert (ROOT / page).is_file(), page
