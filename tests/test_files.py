"""Files: read with a sentence for every fault, written whole or not at all."""

import multiprocessing
import os
import resource
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsvlfs import InputError
from dsvlfs.errors import DiskFullError, WriteError, one_line
from dsvlfs.files import (
    append_line,
    open_regular,
    read_json,
    read_json_lines,
    read_text,
    recover_folder,
    whole_file,
    whole_files,
    whole_folder,
    write_bytes,
    write_image,
    write_json,
    write_text,
)

FORK = multiprocessing.get_context("fork")


def in_process(work, *arguments) -> int:
    """The exit status of a function in a process of its own."""
    process = FORK.Process(target=work, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_message_is_one_printable_line_that_keeps_its_end():
    error = InputError(f"The photo {'a' * 5000}\n\udce9\x00.png is damaged; give a whole JPEG or PNG.")
    assert len(str(error)) == 300
    assert str(error).isprintable()
    assert str(error).startswith("The photo aaa")
    assert str(error).endswith("\\udce9\\x00.png is damaged; give a whole JPEG or PNG.")
    assert one_line("short enough") == "short enough"


@pytest.fixture
def odd_paths(tmp_path) -> dict[str, object]:
    """Paths that lead to nothing that can be read."""
    os.mkfifo(tmp_path / "pipe")
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "file").write_text("text")
    return {
        "no photo": tmp_path / "absent",
        "no photo .*/inside": tmp_path / "file" / "inside",
        "pipe or a device": tmp_path / "pipe",
        "pipe or a device;": "/dev/zero",
        "is a folder": tmp_path,
        "leads back to itself": tmp_path / "loop",
        "no path can": "a\0b",
        "no path can;": "\ud800",
        "too long": "x" * 5000,
        "too long;": tmp_path / ("x" * 256),
    }


def test_what_is_no_file_to_read_is_said(odd_paths):
    for message, path in odd_paths.items():
        with pytest.raises(InputError, match=message) as raised:
            open_regular(path, "photo")
        assert len(str(raised.value)) <= 300


def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def forbid(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbid)
    with pytest.raises(InputError, match="may not read it; change its permissions"):
        open_regular(tmp_path / "a.png", "photo")


def test_text_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert read_text(file) == "{}"
    assert read_json(file) == {}
    file.write_text("{}", encoding="utf-16")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        read_json(file)


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": NaN}', '"\\ud800"', "[1,]", "{} {}"]
)
def test_what_is_no_json_is_said(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(file)


def test_what_is_not_of_the_schema_is_said(tmp_path):
    file = tmp_path / "a.json"
    for content, message in [("null", "not a JSON object"), ("[]", "not a JSON object"), ('{"a": 1}', "wrong 'a'")]:
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            read_json(file, dict[str, str])


def test_lines_are_split_where_json_lines_are(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes('\ufeff{"a": "x\u2028y"}\r\n\n  \n{"a": "\x85"}\n\n'.encode())
    assert read_json_lines(file) == [{"a": "x\u2028y"}, {"a": "\x85"}]
    file.write_text('{}\n\n{"a"\n')
    with pytest.raises(InputError, match="Line 3 of"):
        read_json_lines(file)
    file.write_text("\n \n")
    with pytest.raises(InputError, match="empty"):
        read_json_lines(file)


def _half_written(file: Path) -> None:
    file.write_text("half of the sec")
    raise KeyError


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "first")
    with pytest.raises(KeyError), whole_file(file) as partial:
        _half_written(partial)
    assert file.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]
    write_json(file, {"a": 1})
    assert read_json(file) == {"a": 1}
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_files_that_belong_together_change_together(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("old"), two.write_text("old")
    with pytest.raises(KeyError), whole_files(one, two) as partials:
        _half_written(partials[0])
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="is a folder"), whole_files(one, tmp_path / "folder") as partials:
        partials[0].write_text("new")
    assert (one.read_text(), two.read_text()) == ("old", "old")
    with whole_files(one, two) as partials:
        for partial in partials:
            partial.write_text("new")
        assert one.read_text() == "old"
    assert (one.read_text(), two.read_text()) == ("new", "new")
    assert names(tmp_path) == ["folder", "one", "two"]


def test_the_longest_name_can_be_written_and_a_longer_one_gets_a_sentence(tmp_path):
    write_text(tmp_path / ("x" * 255), "x")
    assert names(tmp_path) == ["x" * 255]
    with pytest.raises(WriteError, match="too long"):
        write_text(tmp_path / ("x" * 256), "x")


def test_links_and_devices_stay_what_they_are(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "through")
    assert (tmp_path / "file").read_text() == "through"
    assert (tmp_path / "link").is_symlink()
    write_text(Path("/dev/null"), "nowhere")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    for place, message in {
        tmp_path: "is a folder",
        tmp_path / "absent" / "a": "no folder",
        tmp_path / "file" / "a": "cannot be written",
        Path("/dev/full"): "disk is full",
    }.items():
        with pytest.raises(WriteError, match=message):
            write_text(place, "x")
    with pytest.raises(WriteError, match="cannot be written"):
        append_line(tmp_path / "file" / "a", "x")


def _without_room(folder: Path) -> None:
    """Writes of all kinds under a limit on file sizes, which a full disk looks like."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    writes = [
        lambda: write_bytes(folder / "a.bin", b"x" * 30_000),
        lambda: write_image(folder / "a.png", noise),
        lambda: append_line(folder / "a.jsonl", "x" * 30_000),
        lambda: _fill(folder / "a"),
    ]
    for write in writes:
        try:
            write()
        except DiskFullError:
            continue
        os._exit(1)
    os._exit(0)


def _fill(folder: Path) -> None:
    with whole_folder(folder) as partial:
        (partial / "small").write_text("new")
        (partial / "large").write_bytes(b"x" * 30_000)


def test_a_full_disk_changes_nothing(tmp_path):
    for name in ("a.bin", "a.png", "a.jsonl"):
        (tmp_path / name).write_text("before\n")
    _fill(tmp_path / "a")
    (tmp_path / "a" / "small").write_text("before\n")
    assert in_process(_without_room, tmp_path) == 0
    assert names(tmp_path) == ["a", "a.bin", "a.jsonl", "a.png"]
    for name in ("a.bin", "a.png", "a.jsonl", "a/small"):
        assert (tmp_path / name).read_text() == "before\n"


def test_an_image_comes_back(tmp_path):
    write_image(tmp_path / "a.png", Image.new("L", (3, 2), 7))
    write_image(tmp_path / "a.jpg", Image.new("RGB", (3, 2)), quality=85)
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[7, 7, 7]] * 2
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


def test_half_a_line_is_taken_off(tmp_path):
    file = tmp_path / "a.jsonl"
    append_line(file, "one")
    with file.open("a") as stream:
        stream.write("half" * 50_000)
    append_line(file, "two")
    assert file.read_text() == "one\ntwo\n"
    file.write_text("half")
    append_line(file, "one")
    assert file.read_text() == "one\n"


def _write_until_killed(file: Path) -> None:
    with whole_file(file) as partial:
        partial.write_text("half")
        file.with_name("ready").touch()
        time.sleep(60)


def test_what_a_killed_process_left_is_taken_over(tmp_path):
    file = tmp_path / "out" / "a.txt"
    file.parent.mkdir()
    write_text(file, "before")
    process = FORK.Process(target=_write_until_killed, args=(file,))
    process.start()
    while not (file.parent / "ready").exists():
        assert process.is_alive()
        time.sleep(0.01)
    write_text(file, "of another, meanwhile")
    assert file.read_text() == "of another, meanwhile"
    process.kill()
    process.join()
    assert len(names(file.parent)) == 3  # and what is hidden
    write_text(file, "after")
    assert names(file.parent) == ["a.txt", "ready"]
    assert file.read_text() == "after"


def _write_often(folder: Path, letter: str) -> None:
    for _ in range(12):
        write_text(folder / "a.txt", letter * 3000)
        append_line(folder / "a.jsonl", letter * 3000)
    os._exit(0)


def test_two_processes_may_write_the_same_file(tmp_path):
    processes = [FORK.Process(target=_write_often, args=(tmp_path, letter)) for letter in "xy"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert names(tmp_path) == ["a.jsonl", "a.txt"]
    assert (tmp_path / "a.txt").read_text() in {letter * 3000 for letter in "xy"}
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert sorted(lines) == ["x" * 3000] * 12 + ["y" * 3000] * 12


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "a"
    with whole_folder(folder) as partial:
        (partial / "old").touch()
    with pytest.raises(KeyError), whole_folder(folder) as partial:
        raise KeyError
    assert names(folder) == ["old"]
    with whole_folder(folder) as partial:
        (partial / "new").touch()
        (partial / "inner").mkdir()
    assert names(folder) == ["inner", "new"]
    os.rename(folder, tmp_path / "a.old")  # killed between the two renames
    recover_folder(folder)
    assert names(folder) == ["inner", "new"]
    assert names(tmp_path) == ["a"]
