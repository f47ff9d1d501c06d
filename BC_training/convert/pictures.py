"""Decodes pictures in PNG, JPEG and the other formats that Pillow reads."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from BC_training.common.errors import UserError, first_line


def decode_picture(encoded: bytes, where: str, remedy: str) -> np.ndarray:
    """uint8 [H, W, 3] RGB of a picture's file, turned upright by its EXIF orientation.

    Grey and palettes become RGB; an alpha channel is dropped. Raises a UserError, with the picture's place ``where``
    and a ``remedy``, if the file is damaged or no picture, has more pixels than Pillow trusts (a "decompression
    bomb"), or holds values that do not fit into 8 bits (depth).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded)) as opened:
                mode = opened.mode
                if mode[0] not in "IF":
                    turned = ImageOps.exif_transpose(opened)
                    if "transparency" in turned.info:
                        turned = turned.convert("RGBA")  # otherwise Pillow warns
                    return np.asarray(turned.convert("RGB"))
    except UnidentifiedImageError as error:
        raise UserError(f"{where} is no picture in a known format: {remedy}") from error
    except Exception as error:  # Pillow's decoders raise almost anything for a damaged file
        raise UserError(f"{where}: cannot decode the picture ({first_line(error)}): {remedy}") from error
    fault = f"one channel of more than 8 bits (mode {mode}), as depth maps have"
    raise UserError(f"{where} has {fault}: choose another camera, or save it in 8 bits")
