#!/usr/bin/env bash
# Pillow: the transparent colour of a PNG with 16 bits per channel is compared with the upper 8 bits of the pixels.
#
# Expected: the pixel that has exactly the tRNS colour, all 16 bits of it, becomes transparent, and the others stay opaque.
# Happens: Image.open reduces such a file to 8 bits but leaves the 16-bit colour in `info["transparency"]`. `convert("RGBA")`
#   then makes nothing transparent for a colour above 255, and for one below 256 it makes wrong pixels transparent: with tRNS
#   (1, 2, 3), the pixel (1, 2, 3) stays opaque and the pixel (256, 512, 768) vanishes. Nothing is raised or warned.
# Hurts: who composes transparent pictures on a background before training or inference.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0
cat > "$work/check.py" <<'PY'
import io
import struct
import sys
import zlib

import PIL
from PIL import Image


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def alphas(transparent):
    """Return the alpha of the pixels (1, 2, 3), (256, 512, 768) and (65535, 1, 300)."""
    row = struct.pack(">9H", 1, 2, 3, 256, 512, 768, 65535, 1, 300)
    head = struct.pack(">IIBBBBB", 3, 1, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"tRNS", struct.pack(">3H", *transparent)), (b"IDAT", zlib.compress(b"\0" + row))]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in (*parts, (b"IEND", b"")))
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    return [image.getpixel((column, 0))[3] for column in range(3)]


print("Pillow", PIL.__version__)
found = {colour: alphas(colour) for colour in ((1, 2, 3), (65535, 1, 300))}
print(found)
expected = {(1, 2, 3): [255, 0, 255], (65535, 1, 300): [255, 255, 255]}
sys.exit(0 if found == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
