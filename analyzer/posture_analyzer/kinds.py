"""What bytes that are not a picture of ours begin like. Pure."""

_STARTS = (
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%PDF-", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}


def kind_of(data: bytes) -> str | None:
    """Return the name of the format that the data begins like, or None where it is not known."""
    head = data[:64]
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "MP4")
    head = head.lstrip()
    return next((name for start, name in _STARTS if head[: len(start)].lower() == start.lower()), None)
