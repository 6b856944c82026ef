"""The page's folder of uploads: bounded, and gone with its page, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsvlfs import InputError
from dsvlfs.page import store
from dsvlfs.page.store import Store

PAGE = """
import sys
from dsvlfs.page.serving import end_well
from dsvlfs.page.store import page_store
page = page_store()
end_well(page)
upload = page.uploads / "hash" / "me.png"
upload.parent.mkdir()
upload.write_bytes(b"private")
print(upload, flush=True)
sys.stdin.read()
"""


def start(folder: Path) -> tuple[subprocess.Popen, Path]:
    """A process that keeps an upload as the page does."""
    page = subprocess.Popen(
        [sys.executable, "-c", PAGE],
        env={**os.environ, "GRADIO_TEMP_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return page, Path(page.stdout.readline().strip())


def test_uploads_go_with_their_page_or_with_the_next_one(tmp_path):
    other, others = start(tmp_path)
    ended, first = start(tmp_path)
    ended.terminate()
    assert ended.wait(60) == 0
    assert not first.exists()
    killed, second = start(tmp_path)
    killed.kill()
    killed.wait(60)
    assert second.exists()  # it could do nothing
    following, third = start(tmp_path)
    assert not second.exists()
    assert third.exists()
    assert others.exists()  # of a page that runs
    for page in (other, following):
        page.communicate("")  # its end
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # nothing of this happened here


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store, "LEAST", 10)
    monkeypatch.setattr(store, "MAX_VISITOR", 300)
    monkeypatch.setattr(store, "MAX_UPLOADS", 500)
    monkeypatch.setattr(store, "MAX_RESULTS", 200)
    return Store(tmp_path)


def add(folder: Store, name: str, size: int, owner: str | None = None) -> Path:
    """A file that is younger than those before it."""
    file = folder.uploads / f"folder of {name}" / name
    file.parent.mkdir()
    time.sleep(0.01)  # the file system's clock is coarse
    file.write_bytes(bytes(size))
    if owner:
        folder.note(owner, [str(file)])
    return file


def names(folder: Store) -> set[str]:
    return {file.name for file in folder.uploads.rglob("*") if file.is_file()}


def test_the_oldest_of_what_is_too_much_goes(folder):
    for number in range(4):
        add(folder, f"mine {number}", 100, "me")
    for number in range(3):
        add(folder, f"result {number}", 100)
    folder.sweep()
    assert names(folder) == {"mine 1", "mine 2", "mine 3", "result 1", "result 2"}
    add(folder, "yours 0", 100, "you")
    add(folder, "yours 1", 100, "you")
    add(folder, "theirs", 100, "they")
    folder.sweep()
    assert names(folder) == {"mine 2", "mine 3", "yours 0", "yours 1", "theirs", "result 1", "result 2"}


def test_many_small_files_are_too_much_as_well(folder):
    for number in range(40):
        add(folder, str(number), 0, "me")
    folder.sweep()
    assert names(folder) == {str(number) for number in range(10, 40)}


def test_what_is_in_use_and_what_the_page_shows_at_first_stays(folder):
    first = add(folder, "first", 400)
    folder.keep()
    used = add(folder, "used", 250, "me")
    with folder.in_use([str(used)]), folder.in_use([str(used)]):
        add(folder, "large", 250, "me")
        folder.sweep()
        assert names(folder) == {"first", "used"}
    add(folder, "new", 250, "me")
    folder.sweep()
    assert names(folder) == {"first", "new"}
    assert first.exists()


def test_what_is_old_goes_and_what_is_being_received_only_once_given_up(folder, monkeypatch):
    add(folder, "old", 10, "me")
    (folder.uploads / "half").write_bytes(bytes(1000))
    folder.sweep()
    assert names(folder) == {"old", "half"}
    now = time.time()
    monkeypatch.setattr(store.time, "time", lambda: now + store.UNFINISHED + 1)
    folder.sweep()
    assert names(folder) == {"old"}
    monkeypatch.setattr(store.time, "time", lambda: now + store.MAX_AGE + 1)
    folder.sweep()
    assert names(folder) == set()
    monkeypatch.setattr(store.time, "time", lambda: time.monotonic() + 10**10)
    folder.sweep()
    assert list(folder.uploads.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set GRADIO_TEMP_DIR"):
        Store(tmp_path / "file" / "folder")


def test_closing_twice_is_no_matter(folder):
    add(folder, "upload", 10, "me")
    folder.close(os.getpid() + 1)  # a copy of the process
    assert names(folder) == {"upload"}
    folder.close()
    folder.close()
    assert not folder.folder.exists()
    folder.sweep()
