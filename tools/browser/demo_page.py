"""The demo page in a real browser: it streams an answer with its sources, light and dark, narrow and wide.

    python3 tools/browser/demo_page.py target/debug/stepgraph --screenshots target/screenshots

Standard library only. Takes the Chromium it finds; the environment variable CHROMIUM names another.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from checks import Checks, Server  # noqa: E402
from chromium import Chromium, find  # noqa: E402

VIEWS = [(width, height, scheme) for width, height in ((360, 740), (1280, 800)) for scheme in ("light", "dark")]
INPUT = "document.querySelector('textarea, input[type=text], input:not([type])')"
TEXT = "document.body.innerText"


def say(browser, message):
    browser.evaluate(f"{INPUT}.focus()")
    browser.type(message)
    browser.press_enter()


def the_page_answers(checks, browser, demo, view, folder):
    """One view of the demo page"""
    width, height, scheme = view
    name = f"{scheme}, {width} px"
    browser.view(width, height, scheme)
    browser.open(f"{demo.url}/demo")
    browser.evaluate("localStorage.clear(), sessionStorage.clear()")
    browser.open(f"{demo.url}/demo?{scheme}{width}")
    if not checks.that(browser.until(INPUT, 10), f"{name}: there is a field to ask in", browser.evaluate(TEXT)):
        return
    say(browser, "how long is the warranty?")
    answered = browser.until(f"/36 months/.test({TEXT})", 30)
    checks.that(answered, f"{name}: the answer appears", browser.evaluate(TEXT))
    sourced = browser.until(f"/warranty.and.returns/i.test({TEXT})", 10)
    checks.that(sourced, f"{name}: its source is named", browser.evaluate(TEXT))
    fits = browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    checks.that(fits, f"{name}: nothing is wider than the window", browser.evaluate("document.documentElement.scrollWidth"))
    browser.screenshot(folder / f"demo-{scheme}-{width}.png")


def the_page_is_quiet(checks, browser, demo):
    """Console and network"""
    checks.that(browser.complaints() == [], "the console has no error", browser.complaints())
    elsewhere = [url for url in browser.requested() if not url.startswith((demo.url, "data:", "about:", "blob:"))]
    checks.that(elsewhere == [], "nothing is asked of another host", elsewhere)


def the_schemes_differ(checks, browser, demo):
    """Light and dark"""
    shade = "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.documentElement).backgroundColor"
    seen = []
    for scheme in ("light", "dark"):
        browser.view(1280, 800, scheme)
        browser.open(f"{demo.url}/demo?shade-{scheme}")
        seen.append(browser.evaluate(shade))
    checks.that(seen[0] != seen[1], "light and dark have different backgrounds", json.dumps(seen))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("binary", type=Path, help="the stepgraph binary")
    options.add_argument("--screenshots", type=Path, default=Path("target/screenshots"))
    chosen = options.parse_args()
    path = find()
    if path is None:
        sys.exit("no Chromium found: apt-get install chromium, or set CHROMIUM to the path of one")
    chosen.screenshots.mkdir(parents=True, exist_ok=True)
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="stepgraph-browser-") as data:
        with Server(chosen.binary.resolve(), "demo", "--data", data, "--port", 0) as demo, Chromium(path) as browser:
            for view in VIEWS:
                checks.scenario(the_page_answers, browser, demo, view, chosen.screenshots)
            checks.scenario(the_schemes_differ, browser, demo)
            checks.scenario(the_page_is_quiet, browser, demo)
    print(f"screenshots in {chosen.screenshots}")
    checks.finish()


if __name__ == "__main__":
    main()
