"""The page in a real, headless Chromium: what a reader sees and does."""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from harness.config import ResNet, SqueezeExcite
from harness.report.page import Source, write_page, write_pages
from harness.space import choose, vary
from tests.report import test_choices as factorial
from tests.report.sample import ATTRIBUTES, STUDY, records

EVIL = "<script>alert(1)</script>&\"'<img src=x onerror=alert(2)>"
pytestmark = pytest.mark.timeout(900)
PATIENCE = 120_000
"""Milliseconds that a step may take on a machine that has much else to do."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found is not None, "the page is tested in Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=PATIENCE)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(STUDY, ATTRIBUTES, records(), tmp_path_factory.mktemp("page"))


class Visit:
    """A page in a window of its own, and what must not happen there: complaints, and requests beyond the file itself."""

    def __init__(self, browser: Browser, path: Path, address: str = "", **window: object) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | window))  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.faults: list[str] = []
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self._asked(request.url, path))
        self.page.goto(f"{path.as_uri()}{address}")
        self.page.wait_for_selector("html[data-drawn]", state="attached")

    def _asked(self, url: str, path: Path) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and not url.startswith(path.as_uri()):
            self.faults.append(f"asked for {url}")

    def drawn(self, javascript: str) -> object:
        """What an expression gives for every figure by name, as `plot`."""
        names = "[...document.querySelectorAll('.plot')].map((plot) => [plot.id.slice(5), plot])"
        return self.page.evaluate(f"Object.fromEntries({names}.map(([name, plot]) => [name, {javascript}]))")

    def point(self, number: int, plot: str = "front") -> tuple[float, float]:
        """Where a trial's point is in the window."""
        script = """([plot, number]) => {
          const graph = document.getElementById(`plot-${plot}`);
          graph.scrollIntoView({ block: "center" });
          const box = graph.getBoundingClientRect(), { xaxis, yaxis } = graph._fullLayout;
          for (const trace of graph.data) {
            const place = (trace.customdata ?? []).indexOf(number);
            if (place < 0) continue;
            const [x, y] = [xaxis.d2p(trace.x[place]), yaxis.d2p(trace.y[place])];
            return [box.left + xaxis._offset + x, box.top + yaxis._offset + y];
          }
        }"""
        x, y = self.page.evaluate(script, [plot, number])
        return float(x), float(y)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        assert kind is not None or self.faults == []


MARKED = "plot.data.filter((trace) => trace.name === 'marked' && trace.x.length).length"


def wide(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_draws_all_figures_quietly_and_asks_nobody(browser: Browser, written: Path) -> None:
    with Visit(browser, written) as visit:
        expect(visit.page.locator("h1")).to_have_text(STUDY.question)
        names = ["front", "importance", "radii", "starts", "kernels", "curves", "hypervolume", "saved"]
        assert visit.drawn("plot.querySelectorAll('.main-svg').length > 0") == dict.fromkeys(names, True)
        assert wide(visit.page) == 0


def test_hover_tells_what_differs_and_a_click_opens_the_trial_and_marks_it_everywhere(
    browser: Browser, written: Path
) -> None:
    with Visit(browser, written) as visit:
        page = visit.page
        page.mouse.move(*visit.point(52))
        said = page.locator(".hovertext").first
        expect(said).to_contain_text("Trial 52, 94.00")
        expect(said).to_contain_text("stage 2 ExpAtt · laplacian · radius 1.9 · heads 2")
        page.mouse.click(*visit.point(52))
        panel = page.locator("#panel")
        expect(panel).to_contain_text("Trial 52")
        assert urlsplit(page.url).fragment == "trial=52"
        expect(panel.locator("pre").last).to_contain_text('"kernel": "laplacian"')
        expect(panel.locator(".curve .main-svg").first).to_be_visible()
        expect(panel.locator(".maps svg")).to_have_count(8)
        everywhere = dict.fromkeys(("front", "radii", "starts", "curves"), 1) | {"radii": 2, "importance": 0}
        assert everywhere.items() <= visit.drawn(MARKED).items()  # type: ignore[attr-defined]
        expect(page.locator("#table tr.open, #table")).not_to_have_count(0)
        page.keyboard.press("Escape")
        expect(panel).to_be_hidden()
        assert urlsplit(page.url).fragment == "" and set(visit.drawn(MARKED).values()) == {0}  # type: ignore[attr-defined]


def test_a_selection_filters_the_table_and_shows_in_every_figure(browser: Browser, written: Path) -> None:
    with Visit(browser, written) as visit:
        page, (x, y) = visit.page, visit.point(5)
        page.mouse.move(x - 12, y - 12)
        page.mouse.down()
        page.mouse.move(x, y, steps=3)
        page.mouse.move(x + 12, y + 12, steps=3)
        page.mouse.up()
        expect(page.locator("#selection")).to_contain_text("1 trial selected")
        expect(page.locator("#table tbody tr")).to_have_count(1)
        expect(page.locator("#table tbody tr td").first).to_have_text("5")
        faint = "plot.data.some((trace) => trace.trials?.length && (trace.opacity === 0.08 || trace.selectedpoints))"
        shown = visit.drawn(faint)
        assert {"front", "radii", "starts", "curves"} <= {name for name, yes in shown.items() if yes}  # type: ignore[attr-defined]
        page.locator("#selection button", has_text="Clear").click()
        expect(page.locator("#selection")).to_be_hidden()
        expect(page.locator("#found")).to_have_text("60 of 60")
        assert not any(visit.drawn(faint).values())  # type: ignore[attr-defined]


def test_a_switch_changes_cost_and_scale(browser: Browser, written: Path) -> None:
    with Visit(browser, written) as visit:
        switches = visit.page.locator('.switches[data-for="front"]')
        switches.get_by_role("button", name="MACs").click()
        expect(visit.page.locator("#plot-front .xtitle")).to_have_text("MACs (M)")
        before = visit.page.evaluate("document.getElementById('plot-front')._fullLayout.annotations.map(({ x }) => x)")
        switches.get_by_role("button", name="log").click()
        kind = "document.getElementById('plot-front')._fullLayout.xaxis.type"
        assert visit.page.evaluate(kind) == "log"
        switches.get_by_role("button", name="linear").click()
        assert visit.page.evaluate(kind) == "linear"
        after = visit.page.evaluate("document.getElementById('plot-front')._fullLayout.annotations.map(({ x }) => x)")
        assert after == pytest.approx(before)


def test_an_address_opens_its_trial_and_steps_follow_the_table(browser: Browser, written: Path) -> None:
    with Visit(browser, written, "#trial=11") as visit:
        panel = visit.page.locator("#panel")
        expect(panel).to_contain_text("OutOfMemoryError: CUDA out of memory")
        panel.get_by_role("button", name="The next trial in the table").click()
        expect(panel.locator("h2")).to_have_text("Trial 12")
        assert urlsplit(visit.page.url).fragment == "trial=12"


def test_the_table_sorts_filters_and_is_downloaded(browser: Browser, written: Path) -> None:
    with Visit(browser, written) as visit:
        page = visit.page
        page.get_by_label("Filter the trials").fill("laplacian")
        page.locator("#table th").get_by_role("button", name="Accuracy").click()
        shown = [
            float(text.split()[0]) for text in page.locator("#table tbody td:nth-child(4)").all_inner_texts() if "%" in text
        ]
        assert shown == sorted(shown, reverse=True) and len(shown) > 2
        with page.expect_download() as coming:
            page.locator("#download").click()
        lines = Path(coming.value.path()).read_text().splitlines()
        assert lines[0].startswith("number,state,front,seed,key,accuracy")
        assert f"{len(lines) - 1} of 60" == page.locator("#found").inner_text()
        page.get_by_label("Filter the trials").fill("")
        page.locator("#states").get_by_role("button", name=re.compile("^failed")).click()
        expect(page.locator("#table tbody tr")).to_have_count(2)


def test_terms_are_explained_on_hover_and_by_keyboard(browser: Browser, written: Path) -> None:
    with Visit(browser, written) as visit:
        tip, term = visit.page.locator("#tip"), visit.page.locator(".answer .term", has_text="front")
        term.hover()
        expect(tip).to_contain_text("no other config beats on every objective")
        visit.page.mouse.move(0, 0)
        expect(tip).to_be_hidden()
        term.focus()
        expect(tip).to_be_visible()
        assert term.get_attribute("aria-describedby") == "tip"


def test_a_phone_sees_all_of_it_without_scrolling_sideways(browser: Browser, written: Path) -> None:
    window = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with Visit(browser, written, "", **window) as visit:
        assert wide(visit.page) == 0
        cells = "[...document.querySelectorAll('#table tbody td')].filter((cell) => cell.scrollWidth > cell.clientWidth)"
        assert visit.page.evaluate(f"{cells}.map((cell) => cell.textContent)") == []
        visit.page.locator(".answer .term", has_text="front").tap()
        expect(visit.page.locator("#tip")).to_be_visible()
        visit.page.locator("#table tbody tr").first.tap()
        panel = visit.page.locator("#panel")
        expect(panel).to_be_visible()
        box = panel.bounding_box()
        assert box is not None and (box["x"], box["width"]) == (0, 390) and wide(visit.page) == 0


def test_dark_where_the_reader_has_it_so(browser: Browser, written: Path) -> None:
    with Visit(browser, written, "#trial=52", color_scheme="dark") as visit:
        for part, name in (
            ("body", "color"),
            ("#plot-front .xtitle", "fill"),
            ("#panel pre", "color"),
            ("#plot-front .js-line", "stroke"),
        ):
            ink = visit.page.locator(part).first.evaluate(f"(part) => getComputedStyle(part).{name}")
            assert min(map(int, re.findall(r"\d+", ink)[:3])) > 120, (part, ink)
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", paper)[:3])) < 40


def test_prints_its_figures_and_leaves_its_controls(browser: Browser, written: Path, tmp_path: Path) -> None:
    with Visit(browser, written) as visit:
        visit.page.emulate_media(media="print")
        for control in ("#filter", "#download", ".switches >> nth=0", "#panel"):
            expect(visit.page.locator(control)).to_be_hidden()
        expect(visit.page.locator("#plot-front .main-svg").first).to_be_visible()
        expect(visit.page.locator("#rest")).to_have_text("These are 25 of 60 trials; trials.csv, beside the page, has all.")
        whole = visit.page.pdf(path=tmp_path / "page.pdf", format="A4")
        assert whole.startswith(b"%PDF") and 4 <= whole.count(b"/Type /Page\n") <= 20


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    option = vary(SqueezeExcite, label="evil", ratio=choose(4, 8))
    study = STUDY.model_copy(
        update={"question": EVIL, "space": vary(ResNet, depth=20, stages=(None, None, choose(None, option)))}
    )
    evil = {
        "params": {"stages.3.attention": EVIL, EVIL: EVIL},
        "device": EVIL,
        "reason": EVIL,
        "traceback": EVIL,
        "key": EVIL,
    }
    attributes = {"data": {"dataset": EVIL}, "provenance": {"commit": EVIL}}
    some = [replace(record, **evil, provenance={"host": EVIL, "commit": EVIL}) for record in records(30)]
    path = write_page(study, attributes, some, tmp_path)
    with Visit(browser, path) as visit:
        expect(visit.page.locator("h1")).to_have_text(EVIL)
        visit.page.mouse.move(*visit.point(int(visit.page.evaluate("page.trials.front[0]"))))
        expect(visit.page.locator(".hovertext").first).to_contain_text("<img src=x")
        visit.page.evaluate("location.hash = '#trial=11'")
        expect(visit.page.locator("#panel pre").first).to_have_text(EVIL)
        assert visit.page.locator("img").count() == 0


def test_several_studies_share_axes_and_table(browser: Browser, tmp_path: Path) -> None:
    again = STUDY.model_copy(update={"name": "again"})
    sources = [Source(STUDY, ATTRIBUTES, records(40)), Source(again, ATTRIBUTES, records(30, seed=9))]
    path = write_pages([*sources, Source(factorial.STUDY, ATTRIBUTES, factorial.made())], tmp_path)
    with Visit(browser, path, "#trial=again:7") as visit:
        panel = visit.page.locator("#panel")
        expect(panel).to_contain_text("again")
        expect(panel.locator("h2")).to_have_text("Trial 7")
        assert visit.drawn(MARKED)["front"] == 1  # type: ignore[index]
        expect(visit.page.locator("#found")).to_have_text("115 of 115")
        visit.page.get_by_label("Filter the trials").fill("again")
        expect(visit.page.locator("#found")).to_have_text("30 of 115")
        assert wide(visit.page) == 0
    assert sorted(found.name for found in tmp_path.iterdir()) == ["again", STUDY.name, "index.html", "where"]


def test_ten_thousand_trials_answer_at_once(browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = records(200)
    many = [replace(few[n % 200], number=n, key=f"{n:032x}") for n in range(10_000)]
    path = write_page(STUDY, ATTRIBUTES, many, tmp_path)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    page.goto(path.as_uri(), wait_until="commit")
    while not page.evaluate("performance.getEntriesByName('ready').length"):
        time.sleep(0.05)
    busy = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}["ThreadTime"]
    ready = page.evaluate("performance.getEntriesByName('ready')[0].startTime") / 1000
    expect(page.locator("#found")).to_have_text("10,000 of 10,000")
    points = page.locator("#plot-front .point").count()
    context.close()
    with capsys.disabled():
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        print(f"\npage of 10,000 trials: {size}, interactive after {ready:.1f} s, {busy:.1f} s of them at work")
    assert path.stat().st_size < 12e6 and points < 5_000
    assert busy < 3, "seconds that the page computed until it was interactive: a busy machine does not lengthen them"
