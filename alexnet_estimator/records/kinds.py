"""Finds the kind of a file by its first bytes, because names are often wrong."""

HEAD_BYTES = 16

# Kinds that are decoded.  Pillow knows other formats, but some of them start programs
# (EPS), and others never contain photos.
DECODED = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
# Suffixes of pictures.  Such files are listed without reading their first bytes.
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
# Suffixes of files that are never pictures.  Such files are not read, because listing
# a large folder would take much longer.
_OTHER_SUFFIXES = frozenset(
    ".avi .c .cfg .css .csv .db .doc .docx .gz .h5 .hdf5 .htm .html .index .ini .ipynb "
    ".js .json .jsonl .log .lst .mat .md .mov .mp3 .mp4 .npy .npz .onnx .parquet .pb "
    ".pdf .pkl .pt .pth .py .pyc .record .sh .sql .svg .tfrecord .tfrecords .toml .tsv "
    ".txt .wav .xls .xlsx .xml .yaml .yml".split()
)
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
# Raw files of cameras.  By their first bytes they are TIFF files, but Pillow would
# decode only the small preview in them.
_RAW_SUFFIXES = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".raf", ".rw2")

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"PK\3\4", "archive"),
)
# Brands of ISO media files for pictures, from ISO/IEC 23008-12 and the specification of
# AVIF.  Videos have other brands.
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC"),
    **dict.fromkeys((b"mif1", b"msf1", b"heif"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}


def kind_of(head: bytes) -> str:
    """Return the kind of a file, such as ``JPEG`` or ``HEIC``; empty if unknown.

    Args:
        head: First ``HEAD_BYTES`` bytes of the file.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # Bytes 6 to 9 of a BMP are reserved and 0.  In a text that begins with BM, they are
    # letters.
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")


def kind_by_name(suffix: str) -> str:
    """Return the kind of a file by its suffix.

    Args:
        suffix: Suffix in lower case, with its dot.

    Returns:
        ``picture``, ``archive``, ``camera raw``, or ``other`` for a file that is never
        a picture; empty if the first bytes have to be read.
    """
    if suffix in SUFFIXES:
        return "picture"
    if suffix in _RAW_SUFFIXES:
        return "camera raw"
    if suffix in _ARCHIVE_SUFFIXES:
        return "archive"
    return "other" if suffix in _OTHER_SUFFIXES else ""


def explain_undecodable(kind: str) -> str:
    """Return why files of a kind are not used, and what the user can do about it.

    The result is empty for kinds without such an explanation.
    """
    if kind == "archive":
        return "archive inside the data: unpack it, or give it alone"
    if kind in ("HEIC", "AVIF", "JPEG 2000", "JPEG XL", "Photoshop", "camera raw"):
        return (
            f"{kind} picture, which cannot be decoded: convert it to JPEG first, for "
            "example with ImageMagick's `mogrify -format jpg FILES`"
        )
    return ""
