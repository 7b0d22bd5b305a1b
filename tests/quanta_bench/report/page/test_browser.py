"""The page in a browser: what its controls do, and that data do nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_results import HOSTILE, LABELS, fill

from quanta_bench.report.page.build import make_page
from quanta_bench.report.samples import Sample, Samples, TaskSamples
from quanta_bench.utils.escaping import printable

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the hostile folder; Table H has a prompt that means harm too."""
    root = tmp_path_factory.mktemp("page") / "results"
    fill(root)
    sample = Sample(
        id=f"{HOSTILE}0",
        prompt=HOSTILE,
        cut=0,
        choices=[HOSTILE, "b"],
        gold="b",
        accepted=[],
        outputs=[],
    )
    task = TaskSamples(
        task="boolq", title="", protocol="choice-text", source="", generated=False, samples=[sample]
    )
    samples = Samples(title="H", profile="embedded", tasks=[task], notes=[])
    (root / "tableH.json").write_text(samples.model_dump_json())
    target = root / "report.html"
    target.write_text(make_page(root).text, encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    # The sandbox of Chromium does not run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, path: Path) -> Iterator[Any]:
    """The open page. Whatever the test does, nothing is fetched, run or complained of."""
    asked: list[str] = []
    said: list[str] = []
    shown = chromium.new_page(viewport={"width": 1280, "height": 900})
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("dialog", lambda dialog: said.append(dialog.message))
    shown.goto(path.as_uri())
    shown.wait_for_selector("html.ready")
    yield shown
    assert shown.evaluate("window.harmed") is None
    assert shown.evaluate("document.querySelectorAll('img, iframe, object, embed').length") == 0
    shown.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def labels(page: Any) -> list[str]:
    """The first table's rows in sight, without their marks."""
    script = """table => [...table.tBodies[0].rows].filter(row => !row.hidden)
        .map(row => row.cells[0].firstChild.textContent.trim())"""
    return page.locator("#table-0").evaluate(script)


def traces(page: Any, chart: str) -> list[dict[str, Any]]:
    """What a chart has drawn: plotly's own record of it."""
    script = """plot => JSON.stringify(plot.data.map(trace =>
        ({name: trace.name, x: [...trace.x], y: [...trace.y], mode: trace.mode})))"""
    return json.loads(page.locator(f"#{chart}-plot").evaluate(script))


def test_a_heading_sorts_by_number_and_says_so(page: Any) -> None:
    heading = page.locator("#table-0 th[scope=col]", has_text="Trained")
    assert heading.get_attribute("aria-sort") == "none"
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    lora = printable(LABELS["lora"]).strip()
    assert labels(page)[:3] == ["DoRA", lora, "Base"]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    # Rows that have no such number stay last.
    assert labels(page)[:3] == ["Base", lora, "DoRA"]
    assert "ascending" in page.locator("#status").inner_text()


def test_a_filter_keeps_the_rows_with_its_words(page: Any) -> None:
    everything = labels(page)
    page.locator("#tables-filter").fill("dora")
    assert labels(page) == ["DoRA"]
    page.locator("#tables-filter").fill("")
    assert labels(page) == everything


def test_a_cell_says_what_it_rests_on_to_keyboard_and_pointer(page: Any) -> None:
    stops = page.locator('#table-0 [tabindex="0"]')
    assert stops.count() == 1
    cell = page.locator("#table-0 tr", has_text="DoRA").locator("td[data-tip]").first
    cell.focus()
    tip = page.get_by_role("tooltip")
    assert "95 % interval" in tip.inner_text()
    assert "n = 4 items" in tip.inner_text()
    assert cell.get_attribute("aria-describedby") == "tip"
    before = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != before
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    cell.hover()
    assert tip.is_visible()


def test_tabs_are_worked_by_keys(page: Any) -> None:
    page.get_by_role("tab", name="Tables").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", selected=True).inner_text() == "Cost and score"
    assert page.locator("#trade-off").is_visible()
    assert not page.locator("#tables").is_visible()
    page.keyboard.press("End")
    assert page.locator("#provenance").is_visible()


def test_the_axis_of_costs_changes(page: Any) -> None:
    open_tab(page, "Cost and score")
    page.select_option("#trade-measure", "boolq")
    drawn = {trace["name"]: trace for trace in traces(page, "trade")}
    assert drawn["DoRA"]["x"] == [200]
    assert drawn["Pareto front"]["x"] == [100, 200]
    page.select_option("#trade-cost", "seconds")
    drawn = {trace["name"]: trace for trace in traces(page, "trade")}
    assert drawn["DoRA"]["x"] == [30]
    page.select_option("#trade-cost", "memory")
    # DoRA's is unknown: it is named and not drawn.
    assert "DoRA" not in {trace["name"] for trace in traces(page, "trade")}
    assert "unknown of: DoRA" in page.locator("#trade-caption").inner_text()


def test_curves_rates_and_forgetting_are_drawn(page: Any) -> None:
    open_tab(page, "Learning")
    (rates,) = traces(page, "rates")
    assert (rates["x"], rates["y"]) == ([0.01, 0.1], [0.5, 5])
    assert {tuple(trace["x"]) for trace in traces(page, "curves")} == {(5, 10)}
    page.select_option("#curves-measure", "training")
    assert {tuple(trace["y"]) for trace in traces(page, "curves")} == {(1, 0.5)}
    open_tab(page, "Forgetting")
    drawn = {trace["name"]: trace for trace in traces(page, "lost")}
    assert drawn["DoRA"]["y"] == [pytest.approx(22 / 20)]


def test_an_item_opens_with_its_prompt_and_answers(page: Any) -> None:
    open_tab(page, "Items")
    buttons = page.locator("#items-list button")
    assert buttons.count() == 4
    name = printable(f"{HOSTILE}0")
    buttons.filter(has_text=name).click()
    item = page.locator("#item")
    assert item.locator("h3").text_content() == name
    assert item.locator("pre").text_content() == printable(HOSTILE)
    # The base, and two rows with two seeds each.
    assert item.locator("tbody tr").count() == 5
    assert page.locator("#items-a option").count() == 5
    page.select_option("#items-a", label="Base, seed 0")
    page.select_option("#items-b", label="DoRA, seed 0")
    page.check("#items-differ")
    # The base has the first item right, and DoRA the first three.
    assert buttons.count() == 2
    page.locator("#items-filter").fill("no such item")
    assert page.locator("#items-count").inner_text() == "0 of 4 items"


def test_hostile_text_is_shown_as_it_is_in_every_part(page: Any) -> None:
    expected = printable(LABELS["lora"]).strip()
    assert expected in labels(page)
    for tab in page.get_by_role("tab").all():
        tab.click()
    open_tab(page, "Learning")
    drawn = page.locator("#curves-plot .legendtext").all_text_contents()
    assert any("<img" in text and "&lt;b&gt;" in text for text in drawn)


def test_a_phone_shows_the_page_without_scrolling_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_print_shows_tables_and_charts_on_white(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(media="print", color_scheme="dark")
    page.locator("#trade-off .plot svg").first.wait_for(state="visible")
    assert page.locator("#tables").is_visible()
    assert not page.locator("#tabs").is_visible()
    white = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == white, white) == (False, "rgb(255, 255, 255)")


def test_a_policy_refuses_scripts_that_are_not_the_page_s_own(
    chromium: Any, path: Path, tmp_path: Path
) -> None:
    """The control of the tests above: what they look for would be seen."""
    added = "<script>window.harmed = 1</script><p onclick='window.harmed = 2' id='p'>p</p></body>"
    text = path.read_text(encoding="utf-8").replace("</body>", added)
    changed = tmp_path / "changed.html"
    changed.write_text(text, encoding="utf-8")
    said: list[str] = []
    shown = chromium.new_page()
    shown.on("console", lambda message: said.append(message.text))
    shown.goto(changed.as_uri())
    shown.wait_for_selector("html.ready")
    shown.locator("#p").click()
    assert shown.evaluate("window.harmed") is None
    assert any("Content Security Policy" in text for text in said)
    shown.close()
