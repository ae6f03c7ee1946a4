"""CPU time and memory of photos that were made to cost much.

    python benchmarks/hostile_files.py --json benchmarks/results/hostile_files.json [--pillow TESTS]

Writes files of up to 10 MB, the limit of an upload, and compares each with an example photo, as the page does. A
process is killed after a minute of CPU time for a file, or at 12 GB of addresses. `--pillow` also measures every file
in a folder, for example `Tests/images` of Pillow's source archive.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
from PIL import Image

PORTRAIT, OTHER = common.EXAMPLES / "obama-portrait.jpg", common.EXAMPLES / "biden.jpg"
LIMIT = 10_000_000  # bytes
SIDE = 7000  # 49 megapixels
MAX_SECONDS, MAX_BYTES = 60, 12_000_000_000
GB = 1_000_000_000

# Runs in the process that is measured. For each file, it prints the outcome, CPU seconds, and GB above those before.
READ_FILES = """
import json, resource, sys
from pathlib import Path
import psutil, siamese
seconds, address_space, other, *files = sys.argv[1:]
from siamese.page.uploads import Upload
model = siamese.load()
model.compare(Upload(other), Upload(other))

def running():
    return [psutil.Process(), *psutil.Process().children()]

def used():  # by running processes, and by those that ended
    times = psutil.Process().cpu_times()
    alive = [child.cpu_times() for child in psutil.Process().children()]
    return sum(times[:4]) + sum(sum(child[:2]) for child in alive)

def peak():
    lines = [line for one in running() for line in Path(f"/proc/{one.pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6

resource.setrlimit(resource.RLIMIT_AS, (int(address_space),) * 2)
for file in files:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(sum(psutil.Process().cpu_times()[:2])) + int(seconds), hard))
    for one in running():
        Path(f"/proc/{one.pid}/clear_refs").write_text("5")  # VmHWM starts again
    before, began = peak(), used()
    try:
        said = model.compare(Upload(file), Upload(other)).verdict
    except ValueError as error:
        said = "refused: " + str(error)
    memory = None if "too much time" in said else max(0, peak() - before)  # of a process that was ended, not known
    print(json.dumps([said, used() - began, memory]), flush=True)
"""


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photo(side: int = SIDE) -> Image.Image:
    return Image.open(PORTRAIT).convert("RGB").resize((side, side))


def repeated_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated, up to 10 MB."""
    content = encode(Image.new("RGB", (side, side), "gray"), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    scan = content[last:-2]
    return content[:-2] + scan * min(scans, (LIMIT - len(content)) // len(scan)) + content[-2:]


def jpeg_comments() -> bytes:
    content = PORTRAIT.read_bytes()
    comment = b"\xff\xfe\x00\x02"
    return content[:2] + comment * ((LIMIT - len(content)) // 4) + content[2:]


def exif(entries: int, size: int) -> bytes:
    """Return EXIF data whose entries all refer to the same `size` bytes."""
    header = b"MM\x00*" + struct.pack(">IH", 8, entries)
    table = b"".join(struct.pack(">HHII", 0x8000 + i % 0x7FFF, 7, size, 8) for i in range(entries))
    return b"Exif\0\0" + header + table + bytes(4) + bytes(size)


def jpeg_exif() -> bytes:
    """Return a JPEG with 4 MB of EXIF data in many segments, of which each of 5,000 entries refers to 4 MB."""
    content, data = PORTRAIT.read_bytes(), exif(5000, 4_000_000)[6:]
    parts = [data[start : start + 65_000] for start in range(0, len(data), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
    return content[:2] + segments + content[2:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_chunks() -> bytes:
    content = encode(photo(300), "PNG")
    return content[:33] + png_chunk(b"teSt", b"") * ((LIMIT - len(content)) // 12) + content[33:]


def png_exif() -> bytes:
    content = encode(photo(300), "PNG")
    return content[:33] + png_chunk(b"eXIf", exif(5000, 4_000_000)[6:]) + content[33:]


def png_empty_data() -> bytes:
    content = encode(photo(300), "PNG")
    return content[:33] + png_chunk(b"IDAT", b"") * ((LIMIT - len(content)) // 12) + content[33:]


def png_interlaced() -> bytes:
    """Return an interlaced PNG of 49 megapixels with four samples of 16 bits."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 6, 0, 0, 1)
    compress = zlib.compressobj(1)
    total = 0
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        width, height = (SIDE - x + dx - 1) // dx, (SIDE - y + dy - 1) // dy
        total += height * (1 + 8 * width)
    data = b""
    block = bytes(1 << 20)
    for start in range(0, total, len(block)):
        data += compress.compress(block[: total - start])
    data += compress.flush()
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def plain_ppm() -> bytes:
    """Return a plain-text PPM with many comments."""
    return b"P3 100 100 255\n" + b"#\n1 " * ((LIMIT - 100) // 4)


def pgm_other_range() -> bytes:
    """Return a PGM whose samples do not use all 8 bits, which Pillow decodes in Python."""
    return b"P5 3100 3100 100\n" + bytes(3100 * 3100)


def tiff(entries: list[tuple[int, int, int, bytes]], rest: bytes = b"") -> bytes:
    """Return a TIFF with these entries: tag, type, count, value. Long values are stored after the entries."""
    table, values, offset = b"", b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in sorted(entries):
        inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", offset + len(values))
        values += value if len(value) > 4 else b""
        table += struct.pack("<HHI", tag, kind, count) + inline
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + values + rest


def tiff_pieces(tiled: bool, compression: int = 1) -> bytes:
    """Return a TIFF with over a million strips of one row, or tiles of one pixel."""
    count = 1_200_000
    size = (1000, 1200) if tiled else (8, count)
    offsets = struct.pack("<I", 0) * count
    lengths = struct.pack("<I", 8) * count
    entries = [(256, 4, 1, struct.pack("<I", size[0])), (257, 4, 1, struct.pack("<I", size[1]))]
    entries += [
        (258, 3, 1, b"\x08\0"),
        (259, 3, 1, struct.pack("<H", compression)),
        (262, 3, 1, b"\x01\0"),
        (277, 3, 1, b"\x01\0"),
    ]
    if tiled:
        one = struct.pack("<I", 1)
        entries += [(322, 4, 1, one), (323, 4, 1, one), (324, 4, count, offsets), (325, 4, count, lengths)]
    else:
        entries += [(273, 4, count, offsets), (278, 4, 1, struct.pack("<I", 1)), (279, 4, count, lengths)]
    return tiff(entries)


def tiff_entries() -> bytes:
    """Return a TIFF of which each of 5,000 entries refers to the same 5 MB."""
    size = 5_000_000
    entries = 5000
    table = b"".join(struct.pack("<HHII", 0x8000 + i, 7, size, 8) for i in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + table + bytes(4) + bytes(size)


def gif_comments() -> bytes:
    """Return a GIF with a comment of millions of blocks of one byte before its picture."""
    content = encode(photo(300).quantize(), "GIF")
    start = 13 + 3 * 256
    return content[:start] + b"\x21\xfe" + b"\x01a" * ((LIMIT - len(content)) // 2 - 2) + b"\0" + content[start:]


def bmp_run_length(delta: bool) -> bytes:
    """Return a run-length coded BMP, which Pillow decodes in Python."""
    width, height = (6_000_000, 8) if delta else (SIDE, SIDE)
    data = b"\0\2\0\xff" * 4 if delta else b"\1\0\0\0" * SIDE
    palette = bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 1, 1, 256, 256)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + header + palette + data


def faces() -> bytes:
    """Return a photo of hundreds of faces."""
    face = Image.open(OTHER).convert("RGB").crop((130, 80, 490, 530)).resize((48, 60))
    canvas = Image.new("RGB", (1600, 1600), "gray")
    for x in range(0, 1600 - 48, 52):
        for y in range(0, 1600 - 60, 64):
            canvas.paste(face, (x, y))
    return encode(canvas, "JPEG", quality=92)


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG, 49 megapixels": lambda: encode(photo(), "JPEG", quality=75),
    "JPEG, progressive, 49 megapixels": lambda: encode(photo(), "JPEG", quality=75, progressive=True),
    "JPEG, 132,000 scans": lambda: repeated_scans(1000, 132_000),
    "JPEG, 49 megapixels, 99 scans": lambda: repeated_scans(SIDE, 89),
    "JPEG, 2.5 million comments": jpeg_comments,
    "JPEG, EXIF entries that share 4 MB": jpeg_exif,
    "PNG, 49 megapixels, transparent": lambda: encode(
        Image.new("RGBA", (SIDE, SIDE), (9, 9, 9, 128)), "PNG", compress_level=1
    ),
    "PNG, 49 megapixels, 4 × 16 bits, interlaced": png_interlaced,
    "PNG, 800,000 chunks": png_chunks,
    "PNG, 800,000 empty data chunks": png_empty_data,
    "PNG, EXIF entries that share 4 MB": png_exif,
    "WebP, 49 megapixels, lossless": lambda: encode(
        photo().quantize(32).convert("RGB"), "WEBP", lossless=True, quality=0, method=0
    ),
    "AVIF, 49 megapixels": lambda: encode(photo(), "AVIF", speed=10),
    "GIF, 49 megapixels": lambda: encode(photo().quantize(8), "GIF"),
    "GIF, 5 million comment blocks": gif_comments,
    "BMP, run-length coded, 49 megapixels": lambda: bmp_run_length(False),
    "BMP, run-length coded, jumps of 1.5 GB": lambda: bmp_run_length(True),
    "TIFF, 1.2 million strips": lambda: tiff_pieces(False),
    "TIFF, 1.2 million tiles": lambda: tiff_pieces(True),
    "TIFF, 1.2 million compressed strips": lambda: tiff_pieces(False, 8),
    "TIFF, entries that share 5 MB": tiff_entries,
    "TIFF, 49 megapixels, float": lambda: encode(
        Image.new("F", (SIDE, SIDE), 0.5), "TIFF", compression="tiff_adobe_deflate"
    ),
    "TIFF, 49 megapixels, LZMA": lambda: encode(
        photo(500).resize((SIDE, SIDE), Image.Resampling.NEAREST), "TIFF", compression="lzma"
    ),
    "PPM, plain text with comments": plain_ppm,
    "PGM, samples up to 100": pgm_other_range,
    "JPEG, 750 faces": faces,
}


def measure(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read files, several in one process as long as it lives. Returns the outcome, CPU seconds and GB of each."""
    results: list[dict[str, Any]] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(common.ROOT)}
    while len(results) < len(files):
        arguments = str(MAX_SECONDS), str(MAX_BYTES), str(OTHER), *map(str, files[len(results) :])
        command = [sys.executable, "-W", "ignore", "-c", READ_FILES, *arguments]
        run = subprocess.run(command, cwd=common.ROOT, env=environment, capture_output=True, text=True)
        for line in run.stdout.splitlines():
            outcome, seconds, gigabytes = json.loads(line)
            results.append({"outcome": outcome, "seconds": round(seconds, 2)})
            if gigabytes is not None:
                results[-1]["gigabytes"] = round(gigabytes, 2)
        if len(results) < len(files):
            print(run.stderr.strip()[-200:])
            results.append({"outcome": f"killed after {MAX_SECONDS} s or at {MAX_BYTES // GB} GB"})
    return results


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many files were answered or refused, and the most that one cost."""
    refused = sum(result["outcome"].startswith("refused") for result in results)
    killed = sum(result["outcome"].startswith("killed") for result in results)
    return {
        "files": len(results),
        "answered": len(results) - refused - killed,
        "refused": refused,
        "killed": killed,
        "most_seconds": max(result.get("seconds", math.inf) for result in results),
        "most_gigabytes": max(result.get("gigabytes", 0) for result in results),
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--only", default="", help="only files whose description contains this")
    parser.add_argument("--pillow", type=Path, help="a folder of other files")
    args = parser.parse_args()
    names = [name for name in FILES if args.only in name]
    result: dict[str, Any] = {"files": {}}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.jpg" for number in range(len(names))]
        for name, file in zip(names, files, strict=True):
            file.write_bytes(FILES[name]())
            assert file.stat().st_size <= LIMIT, name
        for name, file, measured in zip(names, files, measure(files), strict=True):
            result["files"][name] = {"bytes": file.stat().st_size, **measured}
    if args.pillow:
        files = sorted(path for path in args.pillow.rglob("*") if path.is_file() and path.stat().st_size <= LIMIT)
        measured = measure(files)
        costly = sorted(zip(measured, files, strict=True), key=lambda pair: -pair[0].get("seconds", math.inf))
        print(*(f"{file.name}: {row}" for row, file in costly[:5]), sep="\n")
        result["pillow"] = summary(measured)
    common.finish(result, args.json, {})


if __name__ == "__main__":
    main()
