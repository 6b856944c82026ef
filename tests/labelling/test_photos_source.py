import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from dsvlfs import InputError
from dsvlfs.labelling import photo_files
from dsvlfs.labelling.photo_files import find_photos
from dsvlfs.labelling.photos_source import DatasetPhotos, FolderPhotos, open_photos


def encoded(shade: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def put(file: Path, content: bytes | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded() if content is None else content)
    return file


def names(folder: Path) -> list[str]:
    return list(open_photos(str(folder), "train", "image").names)


def test_photos_are_known_by_their_content(tmp_path):
    for name, kind in (("holiday.jfif", "JPEG"), ("scan", "PNG"), ("picture.dat", "JPEG"), ("new.avif", "AVIF")):
        put(tmp_path / name, encoded(kind=kind))
    put(tmp_path / "old.jp2", encoded(kind="JPEG2000"))
    put(tmp_path / "notes.txt", b"no photo")
    put(tmp_path / "table.csv", b"1,2\n3,4\n")
    put(tmp_path / "empty")
    (tmp_path / "empty").write_bytes(b"")
    put(tmp_path / "cut.jpg", encoded(kind="JPEG")[:30])  # it is one, and its reader says what is wrong
    assert names(tmp_path) == ["cut.jpg", "holiday.jfif", "new.avif", "old.jp2", "picture.dat", "scan"]


def test_hidden_files_are_none(tmp_path):
    put(tmp_path / "a.jpg")
    for name in ("._a.jpg", ".thumbnails/a.jpg", "__MACOSX/._a.jpg", "b/.ipynb_checkpoints/a.jpg", ".hidden.png"):
        put(tmp_path / name)
    assert names(tmp_path) == ["a.jpg"]


def test_linked_folders_are_followed_once(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    put(photos / "z/a.png")
    put(elsewhere / "b.png")
    (photos / "a_link").symlink_to(photos / "z")
    (photos / "other").symlink_to(elsewhere)
    (photos / "other_too").symlink_to(elsewhere)
    (photos / "z/loop").symlink_to(photos)
    (photos / "self").symlink_to(photos / "self")
    (photos / "c.png").symlink_to(photos / "z/a.png")
    (photos / "gone.png").symlink_to(tmp_path / "absent.png")
    source = FolderPhotos(photos)
    assert source.names == ["other/b.png", "z/a.png"]
    assert source.left_out == {"broken link": 1}


def test_a_pipe_is_not_waited_for_and_deep_folders_end(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    deep = tmp_path
    while len(str(deep)) < 3500:
        deep = deep / ("d" * 20)
    put(deep / "a.png")
    assert len(names(tmp_path)) == 1


def test_supports_are_not_labelled_by_whatever_path(tmp_path):
    photo, mask = put(tmp_path / "photos/a.png"), put(tmp_path / "photos/a_mask.png")
    put(tmp_path / "photos/b.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    source = FolderPhotos(tmp_path / "photos", exclude=[tmp_path / "link/a.png", mask])
    assert photo.name not in source.names
    assert source.names == ["b.png"]
    assert source.left_out == {"support": 2}


def test_raw_files_are_left_out_and_said(tmp_path):
    put(tmp_path / "a.CR2", encoded(kind="TIFF"))
    with pytest.raises(InputError, match=r"holds no photos \(left out: 1 raw photo\)"):
        names(tmp_path)


def test_photos_in_archives_keep_their_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("in/1.png", "__MACOSX/in/._1.png", "../2.png", "notes.txt", "/3"):
            archive.writestr(name, b"text" if name == "notes.txt" else encoded(3))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("z.png")
        entry.size = len(encoded(4))
        archive.addfile(entry, io.BytesIO(encoded(4)))
    put(tmp_path / "loose.png")
    put(tmp_path / "broken.zip", b"PK no more")
    source = FolderPhotos(tmp_path)
    assert source.names == ["loose.png", "a.zip/in/1.png", "a.zip/3", "b.tar.gz/z.png"]
    assert source.left_out == {"damaged archive": 1}
    assert [source.read(index) for index in (1, 3)] == [encoded(3), encoded(4)]
    assert source.path(0) == tmp_path / "loose.png"
    assert source.path(1) is None
    assert names(tmp_path / "a.zip") == ["in/1.png", "3"]
    with pytest.raises(InputError, match=r"broken.zip cannot be read"):
        names(tmp_path / "broken.zip")


def test_an_archive_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_files, "LARGEST_FILE", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", b"0" * 2000)
    source = open_photos(str(tmp_path / "a.zip"), "train", "image")
    with pytest.raises(InputError, match="is larger than"):
        source.read(0)


def test_names_of_any_bytes(tmp_path):
    put(tmp_path / "new\nline.png")
    os.rename(put(tmp_path / "x.png"), os.fsencode(tmp_path) + b"/caf\xe9.png")
    put(tmp_path / ("x" * 251 + ".png"))
    assert {os.fsencode(name)[:4] for name in names(tmp_path)} == {b"new\n", b"xxxx", b"caf\xe9"}


def test_a_stamp_changes_with_the_file(tmp_path):
    put(tmp_path / "a.png")
    source = FolderPhotos(tmp_path)
    before = source.stamp(0)
    assert source.stamp(0) == before
    put(tmp_path / "new.png", encoded(9)).replace(tmp_path / "a.png")
    assert source.stamp(0) != before


def test_data_sets_of_all_kinds(tmp_path):
    content = {"image": [{"bytes": encoded(n), "path": "x.png"} for n in (1, 2)]}
    data = Dataset.from_dict(content).cast_column("image", ImageFeature())
    data.save_to_disk(tmp_path / "saved")
    (tmp_path / "tables").mkdir()
    data.to_parquet(tmp_path / "tables/train.parquet")
    for folder in ("saved", "tables"):
        source = open_photos(str(tmp_path / folder), "train", "image")
        assert isinstance(source, DatasetPhotos)
        assert list(source.names) == ["000000", "000001"]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(source.read(1))))[0, 0], [2, 0, 0])
    with pytest.raises(InputError, match=r"no images in a column 'photo'.*\(image\)"):
        open_photos(str(tmp_path / "tables"), "train", "photo")


def test_one_file_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="is one file"):
        names(put(tmp_path / "a.png"))


def test_segments_photos_are_those_of_the_folder_itself(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / ".b.png")
    put(tmp_path / "in/c.png")
    assert find_photos(tmp_path, deep=False) == [tmp_path / "a.png"]
