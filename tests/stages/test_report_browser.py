"""The page in a real browser: nothing is fetched, nothing complains, and axe finds nothing in either theme."""

from pathlib import Path

import pytest

from pair_pkg.stages import report

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
pytestmark = pytest.mark.slow


def test_the_page_fetches_nothing_and_is_accessible_in_both_themes(browser, pipeline_run, pairs_run, tmp_path):
    folder, _ = pipeline_run
    words = [str(folder), str(pairs_run("other", "classes")), "--output", str(tmp_path / "page.html")]
    path = Path(report.main(words)).resolve()
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 1200, "height": 900})
        heard = []
        page.on("console", lambda message, heard=heard: heard.append(message.text))
        page.on("pageerror", lambda error, heard=heard: heard.append(str(error)))
        page.on("request", lambda request, heard=heard: heard.append(request.url))
        page.goto(path.as_uri())
        for details in page.query_selector_all("details"):
            details.evaluate("element => { element.open = true; }")
        assert heard == [path.as_uri()]
        assert all(box["height"] > 100 for svg in page.query_selector_all("svg") if (box := svg.bounding_box()))
        violations = axe.Axe().run(page).response["violations"]
        assert not violations, [
            (found["id"], [node["html"][:200] for node in found["nodes"][:3]]) for found in violations
        ]
        page.close()


def test_a_phone_needs_no_sideways_scrolling(browser, pipeline_run):
    folder, _ = pipeline_run
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(Path(report.main([str(folder)])).resolve().as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()


def test_printed_pages_show_what_is_folded(browser, pairs_run):
    page = browser.new_page(color_scheme="dark")
    page.goto(Path(report.main([str(pairs_run("run", seed=9))])).resolve().as_uri())
    page.emulate_media(media="print")
    assert page.locator("details table").first.bounding_box()["height"] > 100
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.close()
