"""The page in headless Chromium: every interaction driven, and hostile text that does nothing."""

import json
import re
import shutil
import time
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread
from report_pages import HEADS, HOSTILE, heads_values, hostile_values

import mechspex as mx
from mechspex.components.attention_patterns import AttentionPatterns
from mechspex.report.patterns import PATTERNS
from mechspex.report.visible import visible
from mechspex.report.what_if import PredictionInterval

webdriver = pytest.importorskip("selenium.webdriver")
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here"),
    # The driver's own sockets, closed when it quits.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


# Two heads, on a prompt whose tokens would do harm on a page that is not careful.
TOKENS = ("<s>", *HOSTILE[:6], " x", "\n", "")
SHARES = np.tril(np.random.default_rng(0).random((2, len(TOKENS), len(TOKENS))))
PATTERNS_THERE = AttentionPatterns(
    "planted", HEADS[["L2H1", "L5H3"]], TOKENS, SHARES / SHARES.sum(axis=2, keepdims=True)
)


class Browser:
    """A page in Chromium, and short ways to ask it things."""

    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--disable-background-networking"):  # fmt: skip
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    def open(self, path, width=1200, theme="light"):
        self.media(theme)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(path.as_uri())
        assert self.js("return document.documentElement.dataset.ready") == "yes"

    def media(self, theme):
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector):
        found = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        found.click()

    def text(self, selector):
        return self.one(selector).text

    def choose(self, selector, value):
        """Set a control as a user does, with the event that tells the page."""
        code = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('{}'))"
        for event in ("input", "change"):
            self.js(code.format(event), self.one(selector), value)

    def point(self, x, y, *, press=False):
        for kind in ["mouseMoved", *(["mousePressed", "mouseReleased"] if press else [])]:
            event = {"type": kind, "x": x, "y": y, "button": "left" if press else "none",
                     "clickCount": 1}  # fmt: skip
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def press(self, *keys):
        active = self.driver.switch_to.active_element
        active.send_keys(*keys)

    def complaints(self):
        return self.driver.get_log("browser")

    def forget(self):
        """What was complained of and asked for so far."""
        self.complaints()
        self.requests()

    def requests(self):
        """Addresses that were asked for since the last call."""
        events = [json.loads(line["message"])["message"]
                  for line in self.driver.get_log("performance")]  # fmt: skip
        sent = [one for one in events if one["method"] == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{name: (file, what it shows)}."""
    folder = tmp_path_factory.mktemp("pages")
    values, others = heads_values(), heads_values(0.3)
    explained = mx.explain(values, n_masks=300, decoder="pursuit", run=folder / "explained")
    PATTERNS_THERE.save(folder / "explained" / PATTERNS)
    swept = mx.sweep(values, order=2, among=HEADS.names[:6], run=folder / "swept")
    found = mx.find_circuit(values, others, n_masks=120, run=folder / "circuit")
    triple = mx.validate(values, [(28,), (21,), (13,), (21, 28), (11, 17), (13, 21, 28)])
    hostile = mx.explain(hostile_values(), n_masks=60, decoder="additive")
    swept_hostile = mx.sweep(hostile_values(), order=2)
    shown = {
        "explained": [explained],
        "validated": [triple],
        "several": [explained, swept, folder / "circuit"],
        "hostile": [hostile, swept_hostile],
    }
    files = {name: mx.write_report(*runs, path=folder / f"{name}.html")
             for name, runs in shown.items()}  # fmt: skip
    return files | {"explanation": explained, "sweep": swept, "discovery": found, "triple": triple}


@pytest.fixture
def page(browser, pages):
    """The explanation's page, as it is when it is opened."""
    browser.open(pages["explained"])
    return browser


def value_shown(page):
    output = page.one(".what-if .value")
    half = output.get_attribute("data-half")
    return float(output.get_attribute("data-value")), float(half) if half else np.nan


def switched_off(*columns):
    mask = np.ones((1, len(HEADS)), dtype=bool)
    mask[0, list(columns)] = False
    return mask


def interval_in(file):
    data = json.loads(re.search(r'id="data">(.*?)</script>', file.read_text(), re.DOTALL)[1])
    stored = data[0]["what_if"]["interval"]
    return PredictionInterval(**stored | {"weights": np.array(stored["weights"])})


@pytest.mark.parametrize("off", [(), (28,), (3, 9, 11, 17), tuple(range(30))], ids=len)
def test_what_if_says_what_python_says(page, pages, off):
    for column in off:
        page.js(f"document.querySelector('.what-if [data-column=\"{column}\"]').click()")
    value, half = value_shown(page)
    mask = switched_off(*off)
    assert value == pytest.approx(pages["explanation"].function.predict(mask)[0], abs=1e-9)
    interval = interval_in(pages["explained"])
    assert half == pytest.approx(interval.half_width(mask)[0], abs=1e-9, nan_ok=True)
    assert f"{len(off)} of 30 off" in page.text(".off-count")
    assert ("no interval" in page.text(".interval")) == np.isnan(interval.half_width(mask)[0])


def test_what_if_by_buttons_and_by_name(page, pages):
    predict = pages["explanation"].function.predict
    page.click(".what-if .all-off")
    assert value_shown(page)[0] == pytest.approx(predict(switched_off(*range(30)))[0], abs=1e-9)
    page.click(".what-if .all-on")
    page.one(".unit-name").send_keys("l4h1", Keys.ENTER)
    page.js("document.activeElement.blur()")
    assert value_shown(page)[0] == pytest.approx(predict(switched_off(21))[0], abs=1e-9)
    assert page.one('.what-if [data-column="21"]').get_attribute("aria-pressed") == "false"


def test_the_nearest_masks_were_measured(page):
    page.click(".what-if .all-off")
    first = [cell.text for cell in page.all(".nearest tbody tr:first-child td")]
    measured = heads_values()(switched_off(*range(30))).mean()
    assert first[0] == "nothing: this very mask"
    assert float(first[1].replace("−", "-")) == pytest.approx(measured, abs=6e-4)
    page.click(".nearest tbody tr:nth-child(2) button")
    assert page.text(".nearest tbody tr:first-child td") == "nothing: this very mask"
    shown = float(page.text(".nearest tbody tr:first-child td:nth-child(2)").replace("−", "-"))
    off = page.js("return [...document.querySelectorAll('.what-if .map [aria-pressed=\"false\"]')]"
                  ".map(button => Number(button.dataset.column))")  # fmt: skip
    assert 0 < len(off) < 30
    assert shown == pytest.approx(heads_values()(switched_off(*off)).mean(), abs=6e-4)


def test_a_unit_that_is_pointed_at_says_its_number(page, pages):
    box = page.js("const b = document.querySelector('.map [data-column=\"28\"]');"
                  "b.scrollIntoView({block: 'center', behavior: 'instant'});"
                  "const r = b.getBoundingClientRect(); return [r.x + 5, r.y + 5]")  # fmt: skip
    time.sleep(0.2)  # scrolling hides what is told
    page.point(*box)
    told = page.text("#tip")
    effect = dict(zip(pages["explanation"].validation.terms,
                      pages["explanation"].validation.effects, strict=True))[(28,)]  # fmt: skip
    assert told.startswith("L5H3")
    assert f"{effect:+.3f}".replace("-", "−") in told
    page.point(2, 2)
    assert not page.one("#tip").is_displayed()


def test_the_scale_has_the_colours_of_the_map(page, pages):
    data = re.search(r'id="data">(.*?)</script>', pages["explained"].read_text(), re.DOTALL)[1]
    numbers = next(iter(json.loads(data)[0]["numbers"].values()))
    largest = max(map(abs, numbers))
    half = min(range(len(numbers)), key=lambda i: abs(abs(numbers[i]) - largest / 2))
    share = numbers[half] / largest
    assert 0.3 < abs(share) < 0.7, "a colour in between"

    def pixel(selector, across, up):
        picture = imread(BytesIO(page.one(selector).screenshot_as_png))[..., :3]
        return picture[int(up * len(picture)), int(across * picture.shape[1])]

    cell = pixel(f'.map[data-use="look"] [data-column="{half}"]', 0.2, 0.5)
    assert pixel(".legend i", (1 + share) / 2, 0.5) == pytest.approx(cell, abs=0.03)


def test_a_click_on_a_unit_shows_partners_and_prompts(page, pages):
    page.click('.map [data-column="11"]')
    details = page.text(".details")
    assert "L2H1" in details
    assert "Acts together with" in details
    explanation = pages["explanation"]
    row = explanation.validation.terms.index((11,))
    shown = [cell.text.replace("−", "-") for cell in page.all(".details .bars .number")]
    assert shown == [f"{value:+.3f}" for value in explanation.validation.output_effects[row]]
    partner = page.one(".details .partners button")
    name = partner.text
    partner.click()
    assert page.text(".details h3") == name
    assert page.one(".effect-table tr.chosen button").text == name


def test_a_click_on_a_head_shows_where_it_looks(page):
    page.click('.map [data-column="0"]')
    assert not page.all(".attention"), "its pattern was not recorded"
    page.click('.map [data-column="28"]')
    n_tokens = len(TOKENS)
    squares = page.all(".attention button")
    assert len(squares) == n_tokens * (n_tokens + 1) // 2
    # Row 7, " x", looks at the first token.
    place, share = 7 * 8 // 2, PATTERNS_THERE.patterns[1, 7, 0]
    words = f"␣x → <s>: {share:.3f}"
    assert squares[place].get_attribute("aria-label") == words
    page.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", squares[place])
    time.sleep(0.2)  # scrolling hides what is told
    box = page.js("const r = arguments[0].getBoundingClientRect(); return [r.x + 5, r.y + 5]",
                  squares[place])  # fmt: skip
    page.point(*box)
    assert page.text("#tip") == words
    page.js("arguments[0].focus()", squares[place])
    page.press(Keys.ARROW_RIGHT)
    told = page.js("return document.activeElement.getAttribute('aria-label')")
    assert told.startswith(f"␣x → {visible(HOSTILE[0])}: ")
    page.press(Keys.ARROW_DOWN)
    assert page.text("#tip").startswith("↵ → "), "the keyboard tells as the pointer does"
    told = page.js("return [...document.querySelectorAll('.attention .query')].map(e => e.title)")
    assert told[-3:] == ["␣x", "↵", "∅"]
    assert page.js("return document.documentElement.dataset.fired ?? null") is None
    assert page.js("return document.querySelectorAll('.attention img').length") == 0


def test_filters_leave_what_passes(page, pages):
    table = pages["explanation"].to_pandas()

    def rows():
        return [row for row in page.all(".effect-table tbody tr") if row.is_displayed()]

    assert len(rows()) == len(table)
    page.choose(".filter-order", "2")
    assert len(rows()) == (table["order"] == 2).sum()
    page.choose(".filter-order", "")
    page.click(".filter-confirmed")
    assert len(rows()) == table["confirmed"].sum()
    page.click(".filter-confirmed")
    page.choose(".filter-strength", "50")
    least = np.abs(table["effect"]).max() * 0.25
    assert len(rows()) == (np.abs(table["effect"]) >= least).sum() < len(table)
    page.choose(".filter-strength", "0")
    page.one(".filter-unit").send_keys("l5h3")
    assert len(rows()) == table["units"].str.contains("L5H3").sum()
    edges = page.js("return document.querySelector('.network').network.body.data.edges.length")
    assert edges == table["units"].str.contains("L5H3 ×|× L5H3").sum()


def test_a_click_on_a_heading_sorts(page, pages):
    def column(place):
        code = f"return [...document.querySelectorAll('.effect-table tbody tr')].map(r => r.cells[{place}].dataset.sort)"  # noqa: E501
        return page.js(code)

    heading = ".effect-table th:nth-child(3) button"
    page.click(heading)
    assert [float(cell) for cell in column(2)] == sorted(map(float, column(2)), reverse=True)
    page.click(heading)
    assert [float(cell) for cell in column(2)] == sorted(map(float, column(2)))
    assert page.one(".effect-table th:nth-child(3)").get_attribute("aria-sort") == "ascending"
    page.click(".effect-table th:nth-child(1) button")
    assert column(0)[0] > column(0)[-1]


def test_the_network_is_hovered_clicked_and_zoomed(browser, pages):
    browser.open(pages["validated"])
    browser.js("document.querySelector('.network')"
               ".scrollIntoView({block: 'center', behavior: 'instant'})")  # fmt: skip

    def at(node):
        return browser.js(
            "const place = document.querySelector('.network'), box = place.getBoundingClientRect();"
            "const at = place.network.canvasToDOM(place.network.getPosition(arguments[0]));"
            "return [box.x + at.x, box.y + at.y]", node,
        )  # fmt: skip

    browser.point(*at("u28"))
    time.sleep(0.1)
    assert browser.text("#tip").startswith("L5H3")
    browser.point(*at("u28"), press=True)
    time.sleep(0.4)  # a click may become a double click
    assert browser.text(".details h3") == "L5H3"
    browser.point(*at("r4"), press=True)
    time.sleep(0.4)
    assert browser.text(".details h3") == "L2H3 × L4H1 × L5H3"
    scale = "return document.querySelector('.network').network.getScale()"
    before = browser.js(scale)
    browser.click(".zoom-in")
    assert browser.js(scale) == pytest.approx(1.3 * before)
    browser.click(".zoom-fit")
    browser.js("document.querySelector('.network').focus()")
    browser.press(Keys.ARROW_RIGHT)
    assert browser.text(".details h3") == "L2H1"


def test_all_is_reached_by_keyboard(page):
    page.js("document.querySelector('.skip').focus()")
    reached = set()
    for _ in range(60):
        page.press(Keys.TAB)
        reached |= set(page.js("return [...document.activeElement.classList,"
                               "document.activeElement.tagName.toLowerCase()]"))  # fmt: skip
    assert {"map-number", "filter-order", "filter-strength", "filter-confirmed", "filter-unit",
            "network", "zoom-in", "term", "all-on", "unit-name", "summary"} <= reached  # fmt: skip
    first = page.one(".what-if .map button")
    page.js("arguments[0].focus()", first)
    page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ARROW_DOWN)
    assert page.js("return document.activeElement.dataset.column") == "21"
    page.press(Keys.SPACE)
    assert page.one('.what-if [data-column="21"]').get_attribute("aria-pressed") == "false"
    page.press(Keys.END)
    assert page.js("return document.activeElement.dataset.column") == "4"


def test_several_runs_and_their_curves(browser, pages):
    browser.open(pages["several"])
    assert len(browser.all("#together-maps figure")) == 3
    assert len(browser.all("nav a")) == 3
    curve = pages["discovery"].best_curve
    assert len(browser.all("#run-3 [data-curve='0'] circle")) == len(curve.sizes)
    browser.js("document.querySelector('#run-3 circle').dispatchEvent(new MouseEvent('mousemove'))")
    assert browser.text("#tip").startswith(f"{curve.sizes[0]} units: ")
    browser.click("#run-3 .members-only")
    members = set(pages["discovery"].circuit.members)
    off = browser.js("return document.querySelectorAll("
                     "'#run-3 .what-if [aria-pressed=\"false\"]').length")  # fmt: skip
    assert off == 30 - len(members)


def test_hostile_text_does_nothing(browser, pages):
    browser.forget()
    browser.open(pages["hostile"])
    use = """
        arguments[0].focus();
        arguments[0].click();
        arguments[0].dispatchEvent(new MouseEvent("mousemove"));
    """
    for selector in (
        ".map button",
        ".effect-table .term",
        ".what-if .map button",
        ".nearest button",
    ):
        for found in browser.all(selector)[:12]:
            browser.js(use, found)
    assert browser.js("return document.documentElement.dataset.fired ?? null") is None
    assert browser.js("return document.querySelectorAll('img, iframe, object').length") == 0
    shown = browser.js("return [...document.querySelectorAll('#run-2 .outputs li')]"
                       ".map(item => item.textContent)")  # fmt: skip
    assert shown == [visible(text) for text in hostile_values().outputs]
    assert browser.complaints() == []


def test_nothing_is_asked_of_the_network_and_nothing_complained(browser, pages):
    browser.forget()
    for name in ("explained", "several", "hostile"):
        browser.open(pages[name])
    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert asked == [pages[name].as_uri() for name in ("explained", "several", "hostile")]
    assert browser.complaints() == []


CONTRAST = """
const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = (text) => {
  paint.clearRect(0, 0, 1, 1); paint.fillStyle = text; paint.fillRect(0, 0, 1, 1);
  return [...paint.getImageData(0, 0, 1, 1).data];
};
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const colour = rgba(getComputedStyle(one).backgroundColor);
    if (colour[3] > 250) return colour;
  }
  return [255, 255, 255, 255];
};
document.querySelectorAll("details").forEach((one) => { one.open = true; });
const poor = [];
for (const one of document.querySelectorAll("body *")) {
  const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !one.checkVisibility() || ["SCRIPT", "OPTION"].includes(one.tagName)) continue;
  const style = getComputedStyle(one);
  const text = one instanceof SVGElement ? style.fill : style.color;
  const [a, b] = [light(rgba(text)), light(ground(one))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) poor.push(`${one.tagName}.${one.className} ${ratio.toFixed(2)}: ${one.textContent.slice(0, 30)}`);
}
return poor;
"""  # noqa: E501


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(browser, pages, theme):
    browser.open(pages["several"], theme=theme)
    browser.click('.map [data-column="28"]')
    assert browser.js(CONTRAST) == []


@pytest.mark.parametrize("name", ["explained", "several", "hostile"])
def test_a_phone_shows_it_without_scrolling_sideways(browser, pages, name):
    browser.open(pages[name], width=360)
    assert browser.js("return document.documentElement.scrollWidth") <= 360
