"""Takes the README's picture of the page, `page.png` beside this file, after a run with the packaged model.

    python app.py &
    python docs/make_screenshot.py http://127.0.0.1:7860

It needs Playwright and Chromium, as the page's tests do.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    """Opens the page, presses its button, and waits for the result."""
    parser = argparse.ArgumentParser(description="Take the README's picture of the page.")
    parser.add_argument("address", help="where it is served")
    address = parser.parse_args().address
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 960})
        page.set_default_timeout(300_000)
        page.goto(address)
        page.locator("#overlay img").wait_for()
        page.locator("#support canvas").first.wait_for()
        page.wait_for_timeout(2000)  # the canvas draws its layers
        page.locator("#class-name :is(input, textarea)").fill(
            "king penguin"
        )  # its result is not the one shown at first
        source = page.locator("#overlay img").get_attribute("src")
        page.locator("#segment").click()
        page.locator(f"#overlay img:not([src='{source}'])").wait_for()
        page.locator("#title").click()  # away from the button
        page.wait_for_timeout(2000)
        picture = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    picture.convert("RGB").quantize(256).save(Path(__file__).with_name("page.png"), optimize=True)


if __name__ == "__main__":
    main()
