"""Pictures: PNG, JPEG, TIFF and BMP, as arrays (row, column, page) on `Grid.pixels`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, FileError, GeometryError, UnsupportedFormat
from samaritan.geometry import Grid
from samaritan.io.files import check_need, file_size, guard, replacing
from samaritan.io.options import ReadOptions
from samaritan.io.values import native, non_finite_note
from samaritan.volume import LabelMap, Volume, smallest_label_dtype

Array = npt.NDArray[Any]

_CHANNELS = {"RGB": ("R", "G", "B"), "RGBA": ("R", "G", "B", "A"), "LA": ("L", "A")}
_GRAY = {"L", "I", "F", "I;16", "I;16B", "I;16L", "1"}
_CONVERTED = {
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "RGBX": "RGB",
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
}
_BYTES = {"1": 1, "I": 4, "F": 4, "RGB": 3, "RGBA": 4, "LA": 2, "P": 4, "CMYK": 4}
_WRITABLE = {
    "PNG": ("uint8", "uint16"),
    "TIFF": ("uint8", "uint16", "int32", "float32"),
    "BMP": ("uint8",),
}
_ABLE = "NIfTI (.nii.gz) or NRRD (.nrrd)"


def picture_format(head: bytes) -> str | None:
    """Name of the picture format that contents start like: "PNG", "JPEG", "TIFF", "BMP", or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    return None


@dataclass(frozen=True)
class _Page:
    array: Array
    channels: tuple[str, ...]
    notes: tuple[str, ...]


def read(path: Path, kind: str, options: ReadOptions) -> Volume:
    """Read a picture; a TIFF of several pages of one size becomes a stack along the third axis.

    Raises:
        CorruptFile, UnsupportedFormat, TooLarge: naming the file.
    """
    with path.open("rb") as file, guard(path):
        image = _open(file, path, kind)
        mode, count = image.mode, int(getattr(image, "n_frames", 1)) if kind == "TIFF" else 1
        wanted = _wanted_pages(count, options, path)
        need = image.width * image.height * _BYTES.get(mode, 2) * len(wanted)
        if need > 2**14 * file_size(path):  # Pillow fills what is missing; nothing packs tighter
            raise CorruptFile(
                f"{path}: its header promises {image.width} x {image.height} pixels, far more than "
                f"{file_size(path)} bytes can hold"
            )
        check_need(path, need, options.max_bytes)
        pages = []
        for number in wanted:
            image.seek(number)
            if (image.width * image.height * _BYTES.get(image.mode, 2)) > need:
                check_need(path, image.width * image.height * 4 * len(wanted), options.max_bytes)
            pages.append(_page(image, path, kind, options))
    first = pages[0]
    if any(p.array.shape != first.array.shape or p.channels != first.channels for p in pages):
        shapes = sorted({p.array.shape for p in pages})
        raise UnsupportedFormat(
            f"{path} holds {len(pages)} pages of different sizes or kinds ({shapes}): "
            f"pass frame=0 to frame={count - 1} to pick one"
        )
    array = first.array[:, :, None] if len(pages) == 1 else np.stack([p.array for p in pages], 2)
    meta = {
        "source": str(path),
        "format": kind,
        "dtype": array.dtype.name,
        "mode": mode,
        "frames": count,
        "frame": options.frame,
    }
    notes = (*first.notes, *non_finite_note(array))
    return Volume(array, Grid.pixels(array.shape[:3]), first.channels, meta, notes)


def _open(file: Any, path: Path, kind: str) -> Any:
    """Open with the decoder of one format; our own size check replaces Pillow's."""
    from PIL import Image

    Image.init()
    if kind == "PNG":
        file.seek(0)
        head = file.read(26)
        if len(head) == 26 and head[24] == 16 and head[25] != 0:
            raise UnsupportedFormat(
                f"{path}: colour PNG with 16 bits a channel would be cut to 8. Store it as 16-bit "
                "grey, or convert it to 8-bit colour"
            )
        file.seek(0)
    # without a file name Pillow does not map the file, which scrambles turned TIFF pictures (13.0)
    return Image.OPEN[kind][0](file, "")


def _wanted_pages(count: int, options: ReadOptions, path: Path) -> list[int]:
    if count > 65535:
        raise CorruptFile(f"{path} claims {count} pages")
    if options.frame in (None, "all"):
        return list(range(count))
    if not 0 <= int(options.frame) < count:
        raise FileError(
            f"{path} has no frame {options.frame}: it holds {count} pages, counted from 0"
        )
    return [int(options.frame)]


def _page(image: Any, path: Path, kind: str, options: ReadOptions) -> _Page:
    from PIL import ImageOps

    notes: list[str] = []
    turned = image.getexif().get(0x0112, 1)
    image.load()
    if turned not in (0, 1):
        notes.append(
            f"The picture was turned as its EXIF orientation ({turned}) says, as viewers do."
        )
        if kind != "TIFF":  # Pillow turns TIFF itself
            image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode in ("P", "PA") and options.indices:
        return _Page(np.array(image.getchannel(0) if mode == "PA" else image), (), tuple(notes))
    if mode == "P":
        mode = "RGBA" if "transparency" in image.info else "RGB"
        image = image.convert(mode)
        notes.append("The picture has a palette; its colours were read.")
    elif mode in _CONVERTED:
        notes.append(f"Colours were converted from {mode} to {_CONVERTED[mode]}.")
        mode = _CONVERTED[mode]
        image = image.convert(mode)
    if mode not in _GRAY and mode not in _CHANNELS:
        raise UnsupportedFormat(f"{path}: pictures of mode {mode!r} cannot be read")
    array = native(np.array(image))
    if array.dtype == np.bool_:
        array = (array.view(np.uint8) != 0).astype(np.uint8)  # Pillow stores 255 for True
    return _Page(array, _CHANNELS.get(mode, ()), tuple(notes))


# -- writing -------------------------------------------------------------------------------------


def write(volume: Volume, path: Path, kind: str) -> None:
    """Write a picture without loss; only the grid of a picture, `Grid.pixels`, can be kept.

    Raises:
        GeometryError: if the grid is another.
        UnsupportedFormat: if the format cannot hold the voxels.
    """
    from PIL import Image

    if kind == "JPEG":
        raise UnsupportedFormat(
            f"{path}: JPEG changes the voxels, so it is not written. Write .png or .tiff instead"
        )
    _check_grid(volume, path, kind)
    array = _stored(volume, path, kind)
    pages = [Image.fromarray(np.ascontiguousarray(array[:, :, k])) for k in range(array.shape[2])]
    more: dict[str, Any] = {"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {}
    if len(pages) > 1:
        more |= {"save_all": True, "append_images": pages[1:]}
    with replacing(path) as (new,):
        pages[0].save(new, format=kind, **more)
        with new.open("rb") as file:
            if _open(file, path, kind).size != (array.shape[1], array.shape[0]):
                raise GeometryError(f"{path}: the picture was not written at its size")


def _check_grid(volume: Volume, path: Path, kind: str) -> None:
    plain = Grid.pixels(volume.shape)
    if volume.grid.unit != "px" or not volume.grid.same_as(plain):
        raise GeometryError(
            f"{path}: {kind} holds no spacing, orientation or position, which {volume.grid!r} has. "
            f"Write {_ABLE} instead; a picture for a report is another thing than a volume"
        )
    if volume.shape[2] > 1 and kind != "TIFF":
        raise GeometryError(
            f"{path}: {kind} holds one slice, not {volume.shape[2]}. Write TIFF (.tiff) or {_ABLE}"
        )


def _stored(volume: Volume, path: Path, kind: str) -> Array:
    array = volume.array.view(np.uint8) if volume.dtype == np.bool_ else volume.array
    if isinstance(volume, LabelMap):
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 65535:
            raise UnsupportedFormat(
                f"{path}: {kind} holds labels from 0 to 65535, not {low} to {high}. Write {_ABLE}"
            )
        if array.dtype.name not in _WRITABLE[kind]:
            array = array.astype(smallest_label_dtype(high))
    if array.ndim == 4:
        if array.dtype != np.uint8 or volume.channels not in _CHANNELS.values():
            raise UnsupportedFormat(
                f"{path}: {kind} holds channels R, G, B (, A) or L, A of type uint8, not "
                f"{volume.channels} of type {array.dtype}. Write {_ABLE}"
            )
        if kind == "BMP" and volume.channels != ("R", "G", "B"):
            raise UnsupportedFormat(f"{path}: BMP holds R, G, B only. Write .png or .tiff")
        return array
    if array.dtype.name not in _WRITABLE[kind]:
        raise UnsupportedFormat(
            f"{path}: {kind} holds {' or '.join(_WRITABLE[kind])}, not {array.dtype}. Write {_ABLE}"
        )
    return array
