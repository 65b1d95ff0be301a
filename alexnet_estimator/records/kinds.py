"""What kind of file something is, by its first bytes; names often lie."""

HEAD_BYTES = 16

# Kinds that are decoded.  Some of Pillow's other formats start programs (EPS) or are
# never photos.
DECODED = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
# Names that promise a picture: such files are opened without a look at their bytes.
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
# Names of what is never a picture, so that large folders are listed without reading.
_OTHER_SUFFIXES = frozenset(
    ".avi .c .cfg .css .csv .db .doc .docx .gz .h5 .hdf5 .htm .html .index .ini .ipynb "
    ".js .json .jsonl .log .lst .mat .md .mov .mp3 .mp4 .npy .npz .onnx .parquet .pb "
    ".pdf .pkl .pt .pth .py .pyc .record .sh .sql .svg .tfrecord .tfrecords .toml .tsv "
    ".txt .wav .xls .xlsx .xml .yaml .yml".split()
)
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
# TIFF files by their first bytes, but with a small preview where the photo should be.
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
# Brands of ISO media files, ISO/IEC 23008-12 and AVIF's own; videos have others.
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC"),
    **dict.fromkeys((b"mif1", b"msf1", b"heif"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}


def kind_of(head: bytes) -> str:
    """Return the kind of a file, ``JPEG`` or ``HEIC`` for example; empty if unknown.

    Args:
        head: First ``HEAD_BYTES`` bytes of the file.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # Reserved; text has letters.
        return "BMP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")


def kind_by_name(suffix: str) -> str:
    """Return what a suffix alone tells: ``picture``, ``archive``, ``camera raw``.

    Args:
        suffix: Lower-case suffix with its dot.

    Returns:
        ``other`` for what is never a picture; empty where the bytes have to tell.
    """
    if suffix in SUFFIXES:
        return "picture"
    if suffix in _RAW_SUFFIXES:
        return "camera raw"
    if suffix in _ARCHIVE_SUFFIXES:
        return "archive"
    return "other" if suffix in _OTHER_SUFFIXES else ""


def explain_undecodable(kind: str) -> str:
    """Say why files of a kind are not used, and what to do; empty if none can be."""
    if kind == "archive":
        return "archive inside the data: unpack it, or give it alone"
    if kind in ("HEIC", "AVIF", "JPEG 2000", "JPEG XL", "Photoshop", "camera raw"):
        return (
            f"{kind} picture, which cannot be decoded: convert it to JPEG first, for "
            "example with ImageMagick's `mogrify -format jpg FILES`"
        )
    return ""
