"""Picture files as stored: depth and polarity, transparency, pages, and damage behind a whole-looking end."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge.decoder import MAX_PIXELS, read_page, read_pages
from cled_edge.errors import SourceMissingError, SourceUnreadableError
from tests.fakes.house import ROOT


def tiff(*pages: np.ndarray, photometric: int = 1, order: str = "<", subfile: int = 0) -> bytes:
    """Return an uncompressed grey TIFF of one strip per page; photometric 0 is WhiteIsZero."""
    content = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, 8)
    for number, page in enumerate(pages):
        data = page.astype(page.dtype.newbyteorder(order)).tobytes()
        tags = [
            (254, subfile if number else 0),
            (256, page.shape[1]),
            (257, page.shape[0]),
            (258, page.dtype.itemsize * 8),
            (259, 1),
            (262, photometric),
            (273, len(content) + 2 + 12 * 9 + 4),
            (278, page.shape[0]),
            (279, len(data)),
        ]
        entries = b"".join(struct.pack(f"{order}HHLL", tag, 4, 1, value) for tag, value in tags)
        end = len(content) + 2 + len(entries) + 4 + len(data)
        content += struct.pack(f"{order}H", len(tags)) + entries
        content += struct.pack(f"{order}L", end if number + 1 < len(pages) else 0) + data
    return content


@pytest.fixture
def counts(rng) -> np.ndarray:
    return rng.integers(7000, 9000, (24, 32)).astype(np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_is_zero_comes_out_with_white_high(kind, photometric: int, order: str, counts, tmp_path: Path) -> None:
    stored = (counts >> 6).astype(kind) if kind == np.uint8 else counts
    (tmp_path / "a.tif").write_bytes(tiff(stored, photometric=photometric, order=order))
    wanted = stored if photometric else np.iinfo(kind).max - stored
    assert np.array_equal(read_page(tmp_path / "a.tif").image, wanted)


def test_every_page_of_a_tiff_is_read_and_a_thumbnail_is_none(counts, tmp_path: Path) -> None:
    stack = tmp_path / "stack.tif"
    stack.write_bytes(tiff(counts, counts + 1, counts + 2))
    assert [int(page.image[0, 0]) - int(counts[0, 0]) for page in read_pages(stack)] == [0, 1, 2]
    assert "a file has 3 pages, of which the first is used" in read_page(stack).notes[0]
    stack.write_bytes(tiff(counts, counts[::2, ::2], subfile=1))
    assert len(list(read_pages(stack))) == 1
    assert read_page(stack).notes == ()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_what_lies_beneath_full_transparency_is_black_and_said(suffix: str, tmp_path: Path) -> None:
    image = np.full((24, 32, 4), 255, np.uint8)
    image[:, :, 1] = 0  # magenta
    image[:6, :, 3] = 0
    image[6:12, :, 3] = 128
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(suffix, image)[1].tobytes())
    page = read_page(tmp_path / f"a{suffix}")
    assert page.image.shape == (24, 32, 3)
    assert not page.image[:6].any()
    assert page.image[6:, :, 0].min() > 250
    assert "transparent" in page.notes[0]


def test_an_opaque_alpha_channel_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.full((8, 8, 4), 255, np.uint8))[1].tobytes())
    assert read_page(tmp_path / "a.png").notes == ()


@pytest.mark.parametrize(("greatest", "value", "wanted"), [(255, 100, 100), (100, 100, 255), (1023, 1000, 1000)])
def test_any_maps_keep_their_counts_and_use_all_of_eight_bit(greatest, value, wanted, tmp_path: Path) -> None:
    kind = ">u2" if greatest > 255 else "u1"
    pixels = np.full((4, 6), value, kind).tobytes()
    (tmp_path / "a.pgm").write_bytes(b"P5\n# a comment\n6 4\n%d\n" % greatest + pixels)
    assert np.unique(read_page(tmp_path / "a.pgm").image).tolist() == [wanted]


@pytest.fixture
def jpeg(rng) -> bytes:
    image = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), np.uint8), (0, 0), 3)
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("tail", [b"", b"\xff\xd9", b"\xff\xd9" + bytes(5000)])
def test_a_jpeg_cut_short_is_refused_whatever_closes_it(share: float, tail: bytes, jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg[: round(share * len(jpeg))] + tail)
    with pytest.raises(SourceUnreadableError, match="not a whole picture"):
        read_page(tmp_path / "a.jpg")


def test_a_trailer_behind_a_jpeg_does_not_matter(jpeg: bytes, tmp_path: Path) -> None:
    for number, trailer in enumerate((b"", bytes(70_000), jpeg, b"\xff\xd9 SEFT" * 300)):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg + trailer)
        assert read_page(tmp_path / f"{number}.jpg").image.shape == (120, 160, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm", ".webp"])
def test_other_kinds_cut_short_are_refused(suffix: str, rng, tmp_path: Path) -> None:
    content = cv2.imencode(suffix, rng.integers(0, 256, (60, 80), np.uint8))[1].tobytes()
    (tmp_path / f"a{suffix}").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(SourceUnreadableError, match="not a whole picture"):
        read_page(tmp_path / f"a{suffix}")


def test_a_tiff_that_leads_nowhere_is_refused(counts, tmp_path: Path) -> None:
    whole = tiff(counts, counts)
    loop = bytearray(whole)
    loop[8 + 2 + 9 * 12 : 8 + 2 + 9 * 12 + 4] = struct.pack("<L", 8)  # the first page says that it is the next one too
    for content in (whole[:12], b"II*\0" + bytes(20), b"II*\0\xff\xff\xff\x7f"):
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(SourceUnreadableError):
            read_page(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(bytes(loop))
    assert read_page(tmp_path / "a.tif").image.shape == (24, 32)
    with pytest.raises(SourceMissingError, match="does not exist"):
        read_page(tmp_path / "b.tif")


def png_of_zeros(path: Path, side: int) -> Path:
    """Write a grey PNG whose header says its size, and which holds one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    row = zlib.compress(bytes(side + 1))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b""))
    return path


def test_a_picture_that_states_a_billion_pixels_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    picture = png_of_zeros(tmp_path / "bomb.png", 30_000)
    code = (
        "import sys; from cled_edge.cli.app import main; "
        f"sys.argv[1:] = ['fuse', '--infrared', {str(picture)!r}, '--visible', {str(picture)!r}, "
        f"'--out', {str(tmp_path / 'out.png')!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 4
    assert f"states more pixels than are read here, {MAX_PIXELS} on the command line; scale it down" in done.stderr


def test_a_picture_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "hole.png").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(SourceUnreadableError, match="8589934592 bytes, needed 900000000 at most"):
        read_page(tmp_path / "hole.png")
