"""What some bytes look like, by how they begin."""

import re

_STARTS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "PDF": (b"%PDF-",),
    "ZIP": (b"PK\x03\x04", b"PK\x05\x06"),
    "gzip": (b"\x1f\x8b\x08",),
    "Photoshop": (b"8BPS",),
    "Matroska": (b"\x1a\x45\xdf\xa3",),
    "icon": (b"\0\0\1\0",),
    "OpenEXR": (b"\x76\x2f\x31\x01",),
    "Radiance HDR": (b"#?RADIANCE", b"#?RGBE"),
    "QOI": (b"qoif",),
}
_RIFF = {b"WEBP": "WebP", b"AVI ": "AVI", b"WAVE": "WAV"}
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
    "QuickTime": (b"qt  ",),
}
"""Major brands of the ISO base media format; every other one is called MP4."""
_TEXTS = {
    "HTML": re.compile(rb"<!doctype html|<(?:html|head|body|script)\b", re.IGNORECASE),
    "SVG": re.compile(rb"<svg\b|<\?xml[^>]*>\s*<svg\b", re.IGNORECASE),
    "XML": re.compile(rb"<\?xml\b", re.IGNORECASE),
    "JSON": re.compile(rb"[{\[]\s*(?:[\"{}\[\]\d-]|true|false|null)"),
    "HTTP": re.compile(rb"HTTP/\d|--[^\r\n]{1,70}\r?\nContent-|Content-(?:Type|Length):", re.IGNORECASE),
    "PNM": re.compile(rb"P[1-7]\s+[\d#]"),
}
_LOOKED_AT = 256


def kind_of(data: bytes) -> str | None:
    """Say what the data look like, such as "JPEG", "HEIC" or "HTML"; None where the first bytes do not tell."""
    start = data[:_LOOKED_AT]
    for kind, starts in _STARTS.items():
        if start.startswith(starts):
            return kind
    if start.startswith(b"RIFF"):
        return _RIFF.get(start[8:12])
    if start[4:8] == b"ftyp":
        return next((kind for kind, brands in _BRANDS.items() if start[8:12] in brands), "MP4")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for kind, pattern in _TEXTS.items() if pattern.match(text)), None)
