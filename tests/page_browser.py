"""The web page served with a model that needs no weights, and what tests do with it in a browser."""

import importlib
import io
import shutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dsvlfs import Support
from dsvlfs.inference.results import Prediction
from dsvlfs.processing import DSVLFSProcessor

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class FakeModel:
    """Finds everything ever more likely to the right; a class named "left", to the left. A further shot doubts more."""

    def __init__(self) -> None:
        from conftest import micro_config, micro_tokenizer  # which loads this file

        self.processor = DSVLFSProcessor(micro_config(), micro_tokenizer())
        self.supports: list[Any] = []
        self.encoded: list[Image.Image] = []
        self.queries: list[dict[str, Any]] = []

    def encode_support(self, examples: list[Any]) -> Support:
        self.supports += examples
        return Support((torch.zeros(1, 1, 1, 1),), torch.zeros(1, 1, 1))

    def encode_query(self, photo: Image.Image) -> Image.Image:
        self.encoded.append(photo)
        return photo

    def predict(
        self, image: Image.Image, class_name: str, *, support: Support | None, description: str | None, modes: list[str]
    ) -> dict[str, Prediction]:
        shots = len(support.masks) if support else 1
        self.queries.append(
            {"class_name": class_name, "shots": support and shots, "description": description, "modes": modes}
        )
        maps = np.stack([ramp(image.size, class_name) * 0.8**shot for shot in range(shots)])
        return {mode: Prediction(torch.logit(torch.from_numpy(maps), eps=1e-4), image.size, 0.5) for mode in modes}


class FakeWriter:
    def __init__(self, model: FakeModel) -> None:
        assert isinstance(model, FakeModel)

    def write(self, class_name: str) -> str:
        return f"A {class_name} has corners."


def ramp(size: tuple[int, int], class_name: str = "") -> np.ndarray:
    """The fake model's probability."""
    row = np.linspace(0, 1, size[0], dtype=np.float32)
    return np.tile(row[::-1] if class_name == "left" else row, (size[1], 1))


def fill_box(model: object, photo: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((photo.height, photo.width), dtype=bool)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return mask


@pytest.fixture(scope="module")
def app() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield importlib.import_module("dsvlfs.page.layout")


@pytest.fixture
def model(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModel]:
    fake = FakeModel()
    monkeypatch.setattr(app.events.engine, "load_model", lambda: fake)
    monkeypatch.setattr(app.events.engine, "CheckpointWriter", FakeWriter)
    monkeypatch.setattr(app.events.engine, "mask_in_box", fill_box)
    forget(app)
    yield fake
    forget(app)


def forget(app: ModuleType) -> None:
    app.events.first_results.cache_clear()
    app.events.engine.SUPPORTS.clear()
    app.events.engine.QUERIES.clear()
    app.events.engine.DESCRIPTIONS.clear()


@pytest.fixture
def address(app: ModuleType, model: FakeModel) -> Iterator[str]:
    """Of the page while it is served."""
    app.launch(prevent_thread_lock=True, quiet=True)
    yield app.demo.local_url
    app.demo.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page as another person each time, and waits for the first result."""
    visitors = []

    def open_page(width: int = 1280, height: int = 900) -> Any:
        visitors.append(chromium.new_context(viewport={"width": width, "height": height}))
        page = visitors[-1].new_page()
        page.set_default_timeout(90_000)
        page.goto(address)
        page.locator("#overlay img").wait_for()
        page.locator("#support canvas").first.wait_for()
        return page

    yield open_page
    for visitor in visitors:
        visitor.close()


def tab_to(page: Any, selector: str) -> None:
    """Presses Tab until the element has the focus."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def field(page: Any, elem_id: str) -> Any:
    return page.locator(f"#{elem_id} :is(input, textarea)")


def shown_source(page: Any) -> str:
    return page.locator("#overlay img").get_attribute("src")


def shown_image(page: Any, before: str) -> Image.Image:
    """The overlay's picture, once it is another than `before`."""
    shown = page.locator(f"#overlay img:not([src='{before}'])")
    shown.wait_for()
    return Image.open(io.BytesIO(page.request.get(shown.evaluate("image => image.src")).body()))


def assert_looks_like(image: Image.Image, expected: Image.Image) -> None:
    """Equal but for JPEG's losses."""
    assert image.size == expected.size
    difference = np.abs(np.asarray(image.convert("RGB"), dtype=int) - np.asarray(expected, dtype=int))
    assert difference.mean() < 4
