"""Makes the golden values of the image tests with Pillow 12.3.0:
python3 tests/datasets/golden.py > tests/datasets/_golden.ts
"""
import base64
import io
import json
import struct
import zlib

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

random = np.random.default_rng(0)
pixels = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
image = Image.fromarray(pixels)


def encode(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode()


def rgb(picture):
    return np.asarray(picture.convert("RGB")).tolist()


def adam7(array):
    """An interlaced PNG file, which Pillow reads but does not write."""
    height, width, _ = array.shape
    raw = b""
    for x, dx, y, dy in [
        (0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4),
        (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2),
    ]:
        part = array[y::dy, x::dx]
        if part.size:
            for row in part:
                raw += b"\0" + row.tobytes()

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    file += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    assert (np.asarray(Image.open(io.BytesIO(file))) == array).all()
    return base64.b64encode(file).decode()


grey16 = random.integers(0, 65536, (3, 4)).astype("u2")
alpha = np.arange(35, dtype=np.uint8).reshape(5, 7, 1) * 7
transparent = Image.fromarray(np.concatenate([pixels, alpha], 2))
on_white = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
on_white.alpha_composite(transparent)
palette = image.quantize(5)
y, x = np.mgrid[0:8, 0:16]
smooth = Image.fromarray(
    np.stack([x * 15, y * 30, 255 - x * 8 - y * 8], 2).astype(np.uint8)
)
turned = Image.Exif()
turned[0x112] = 6
jpeg = {
    "colour": encode(smooth, "JPEG", quality=90),
    "grey": encode(smooth.convert("L"), "JPEG"),
    "cmyk": encode(smooth.convert("CMYK"), "JPEG"),
    "progressive": encode(smooth, "JPEG", progressive=True),
    "turned": encode(smooth, "JPEG", exif=turned),
}


def read(text):
    picture = Image.open(io.BytesIO(base64.b64decode(text)))
    return rgb(ImageOps.exif_transpose(picture))


block = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
golden = {
    "image": rgb(image),
    "resized": [
        {"height": h, "width": w, "pixels": rgb(image.resize((w, h), Image.BILINEAR))}
        for h, w in [(3, 4), (10, 9), (5, 3)]
    ],
    "png": {
        "colour": {"file": encode(image), "pixels": rgb(image)},
        "grey": {"file": encode(image.convert("L")), "pixels": rgb(image.convert("L"))},
        "palette": {"file": encode(palette), "pixels": rgb(palette)},
        "bits": {"file": encode(image.convert("1")), "pixels": rgb(image.convert("1"))},
        "grey16": {
            "file": encode(Image.fromarray(grey16)),
            "pixels": rgb(Image.fromarray((grey16 >> 8).astype("u1"))),
        },
        "transparent": {"file": encode(transparent), "pixels": rgb(on_white)},
        "interlaced": {"file": adam7(pixels), "pixels": rgb(image)},
    },
    "jpeg": {k: {"file": v, "pixels": read(v)} for k, v in jpeg.items()},
    "block": rgb(block),
    "rotated20": rgb(block.rotate(20)),
    "brightness120": rgb(ImageEnhance.Brightness(block).enhance(1.2)),
    "contrast75": rgb(ImageEnhance.Contrast(block).enhance(0.75)),
    "saturation125": rgb(ImageEnhance.Color(block).enhance(1.25)),
}
print("// Made by golden.py beside this file. deno-fmt-ignore-file")
print("// deno-lint-ignore-file")
print("export default " + json.dumps(golden, separators=(",", ":")) + " as const;")
