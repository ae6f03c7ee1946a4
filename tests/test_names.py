"""Names of files."""

import codecs
import os
import zipfile

import pytest
from markdown_it import MarkdownIt

from siamese.names import MAX_NAME_BYTES, is_system, markdown_text, open_zip, printable, unique_name


def test_names_differ_also_where_letter_case_does_not_count():
    taken = {}
    names = [unique_name(name, taken) for name in ("a.jpg", "A.jpg", "a (2).jpg", "a.jpg", "b")]
    assert names == ["a.jpg", "A (2).jpg", "a (2) (2).jpg", "a (3).jpg", "b"]
    assert len({name.casefold() for name in names}) == len(names) == len(taken)


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("CON", "_CON"),
        ("aux.jpg", "_aux.jpg"),
        ("Com1.tar.gz", "_Com1.tar.gz"),
        ("console.jpg", "console.jpg"),
        ("a:b?.jpg", "a_b_.jpg"),
        ("a\n\x1b[1m.jpg", "a__[1m.jpg"),
        ("../../etc/a.jpg", ".._.._etc_a.jpg"),
        ("end. .", "end"),
        ("..", "_"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        (".jpg", ".jpg"),
    ],
)
def test_names_are_valid_on_all_systems(name, valid):
    """Windows reserves names of devices, and drops dots and spaces at the end. Both are documented, not run here."""
    assert unique_name(name, {}) == valid


@pytest.mark.parametrize("letter", ["a", "日"])
def test_long_names_are_shortened_and_stay_unique(tmp_path, letter):
    taken = {}
    names = [unique_name(f"{letter * 363}{number}.jpg", taken) for number in range(12)]
    assert len({name.casefold() for name in names}) == 12
    for name in names:
        assert name.endswith(".jpg")
        assert MAX_NAME_BYTES - 3 < len(name.encode()) <= MAX_NAME_BYTES
        (tmp_path / name).touch(exist_ok=False)
    assert len(unique_name("." + "x" * 400, {}).encode()) <= MAX_NAME_BYTES


def test_names_in_archives_are_decoded_and_unique(tmp_path):
    decomposed = "Zoe\u0308/日本.jpg"
    names = (decomposed.encode().decode("cp437"), "Zoë/1.jpg", "caf\u00e9.jpg", "./p.jpg", "p.jpg", "/a//b\\..\\c.jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, name)
    archive = open_zip(tmp_path / "a.zip")
    assert archive.namelist() == ["Zoë/日本.jpg", "Zoë/1.jpg", "café.jpg", "p.jpg", "p (2).jpg", "a/b/c.jpg"]
    assert [archive.read(name).decode() for name in archive.namelist()] == list(names)


def test_names_of_a_japanese_windows_are_decoded_on_it(tmp_path):
    """Simulates the code page of that Windows, in which names without the flag for UTF-8 are."""
    with zipfile.ZipFile(tmp_path / "ascii.zip", "w") as archive:
        archive.writestr("abcd.jpg", b"1")
        archive.writestr("caf\u00e9.jpg", b"2")
    content = (tmp_path / "ascii.zip").read_bytes().replace(b"abcd", "日本".encode("cp932"))
    (tmp_path / "a.zip").write_bytes(content)
    assert open_zip(tmp_path / "a.zip").namelist()[1] == "caf\u00e9.jpg"

    def search(name):
        return codecs.lookup("cp932") if name == "oem" else None

    codecs.register(search)
    try:
        archive = open_zip(tmp_path / "a.zip")
    finally:
        codecs.unregister(search)
    assert [(name, archive.read(name)) for name in archive.namelist()] == [("日本.jpg", b"1"), ("café.jpg", b"2")]


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".x", "__MACOSX"],
)
def test_folders_of_the_system(name):
    assert is_system(name)
    assert not is_system(f"{name.strip('.')} 2")


def test_a_photo_library_holds_photos_only_in_its_originals():
    assert not is_system("Photos.photoslibrary", "Pictures")
    assert [is_system(name, "Photos.photoslibrary") for name in ("originals", "Masters", "resources")] == [0, 0, 1]


def test_control_characters_are_escaped():
    assert printable("a\x1b[2K\r\nmatch\u202e.jpg\x9b") == r"a\x1b[2K\r\nmatch\u202e.jpg\x9b"
    assert printable(os.fsdecode(b"caf\xe9.jpg")) == r"caf\udce9.jpg"
    assert printable("Zoë 日本 👨‍👩‍👧.jpg") == "Zoë 日本 👨‍👩‍👧.jpg"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "<b>a</b>",
            "[a](https://a.example)",
            "![a](https://a.example/b.png)",
            "`a`",
            "**a** _b_ ~~c~~",
            "a | b",
            "\\*",
        ),
        *("&lt;", "&#60;b", "<https://a.example>", "# a", "- a", "+ a", "a_b.onnx", "a & b", "AT&T faces"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text):
    for before in ("", "- ", "# "):
        tokens = MarkdownIt().enable(["table", "strikethrough"]).parse(before + markdown_text(text))
        (inline,) = [token for token in tokens if token.type == "inline"]
        assert "".join(token.content for token in inline.children) == text
        assert {token.type for token in inline.children} <= {"text", "text_special"}
    assert "\n" not in markdown_text("a\n\n# b\x1b[1m")
