import os

import pytest

from dsvlfs.labelling.names import result_stems, shown


def test_results_are_named_like_their_photos():
    assert result_stems(["a.png", "b/c.d.jpg", "000001"], {}) == {
        "a.png": "a", "b/c.d.jpg": "b/c.d", "000001": "000001",
    }  # fmt: skip


def test_those_of_equal_stems_keep_their_suffix():
    assert result_stems(["a.jpg", "a.png", "b.png"], {}) == {"a.jpg": "a.jpg", "a.png": "a.png", "b.png": "b"}
    assert result_stems(["Fox.jpg", "fox.jpg"], {})["Fox.jpg"] == "Fox.jpg"


def test_what_is_labelled_keeps_its_name():
    assert result_stems(["a.jpg", "a.png"], {"a.jpg": "a"}) == {"a.jpg": "a", "a.png": "a.png"}


@pytest.mark.parametrize(
    "photos",
    [
        ["a.jpg", "a.png", "a.jpg.jpg"],
        ["Fox.jpg", "fox.jpg", "FOX.JPG"],
        ["x.png/a.jpg", "x.jpg"],
        ["caf\u00e9.png", "cafe\u0301.png"],
        ["a\nb.png", "a_b.png", "a\tb.png"],
        [os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"caf\xea.png")],
        ["x" * 251 + ".png", "x" * 251 + ".jpg"],
        ["\u00e9" * 120 + ".png", "\u00e9" * 121 + ".png"],
        ["..png", "../a.png", "a.png"],
    ],
)
def test_no_two_are_named_alike_and_all_can_be_written(photos, tmp_path):
    stems = result_stems(photos, {})
    assert len({stem.casefold() for stem in stems.values()}) == len(photos)
    for stem in stems.values():
        for suffix in (".png", ".jpg", ".json"):
            file = tmp_path / f"{stem}{suffix}"
            assert file.resolve().is_relative_to(tmp_path.resolve())
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x")
    assert result_stems(photos, stems) == stems
    assert all(stem.isprintable() for stem in stems.values())


def test_names_are_shown_as_text():
    assert shown(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert shown("café\n.png").encode() == "café\n.png".encode()
