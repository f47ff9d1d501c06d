"""Pictures of X11's drawables through shared memory: a few calls of libxcb, as python-xlib has none for it.

Any connection to the server may ask for them by the drawable's number.
"""

import ctypes
import ctypes.util
import mmap
import os
import sys

import numpy as np
from jaxtyping import UInt8

from BC_training.common.errors import UserError

_ALL_PLANES, _Z_PIXMAP = 0xFFFFFFFF, 2


class _Cookie(ctypes.Structure):
    _fields_ = (("sequence", ctypes.c_uint),)


class SharedPictures:
    """Reads pictures by MIT-SHM's GetImage.

    Args:
        display: such as ":0".

    Raises:
        UserError: the libraries are missing, or the server is on another machine.
    """

    def __init__(self, display: str):
        self._memory: mmap.mmap | None = None
        self._segment = 0
        self._connection = None
        names = [ctypes.util.find_library(name) for name in ("xcb", "xcb-shm", "c")]
        if None in names:
            raise UserError("windows are captured with libxcb and libxcb-shm: apt-get install libxcb1 libxcb-shm0")
        self._xcb, self._shm, self._c = (ctypes.CDLL(name) for name in names)
        pointer, u32, u16, i16 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint16, ctypes.c_int16
        self._xcb.xcb_connect.restype = pointer
        self._xcb.xcb_request_check.restype = pointer
        self._xcb.xcb_request_check.argtypes = pointer, _Cookie
        for call in (self._xcb.xcb_connection_has_error, self._xcb.xcb_disconnect, self._xcb.xcb_generate_id):
            call.argtypes = (pointer,)
        self._xcb.xcb_generate_id.restype = u32
        self._c.free.argtypes = (pointer,)
        self._shm.xcb_shm_attach_fd_checked.argtypes = pointer, u32, ctypes.c_int, ctypes.c_uint8
        self._shm.xcb_shm_attach_fd_checked.restype = _Cookie
        self._shm.xcb_shm_detach_checked.argtypes = pointer, u32
        self._shm.xcb_shm_detach_checked.restype = _Cookie
        place = (i16, i16, u16, u16)
        self._shm.xcb_shm_get_image.argtypes = pointer, u32, *place, u32, ctypes.c_uint8, u32, u32
        self._shm.xcb_shm_get_image.restype = _Cookie
        self._shm.xcb_shm_get_image_reply.argtypes = pointer, _Cookie, ctypes.POINTER(pointer)
        self._shm.xcb_shm_get_image_reply.restype = pointer
        self._connection = self._xcb.xcb_connect(display.encode(), None)
        self._open()

    def read(self, drawable: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 4"] | None:
        """A part of a drawable with 32 bits a pixel: blue, green, red and an unused byte; None where there is no such.

        The array is the caller's.
        """
        size = width * height * 4
        if self._memory is None or len(self._memory) < size:
            self._share(size)
        assert self._memory is not None
        place = x, y, width, height
        cookie = self._shm.xcb_shm_get_image(
            self._connection, drawable, *place, _ALL_PLANES, _Z_PIXMAP, self._segment, 0
        )
        fault = ctypes.c_void_p()
        reply = self._shm.xcb_shm_get_image_reply(self._connection, cookie, ctypes.byref(fault))
        self._c.free(reply)
        self._c.free(fault)
        self._open()
        if not reply:
            return None
        return np.frombuffer(self._memory, np.uint8, size).reshape(height, width, 4).copy()

    def _open(self) -> None:
        if self._xcb.xcb_connection_has_error(self._connection):
            raise UserError("the connection to the X server is lost: it was closed, or there is none")

    def _share(self, size: int) -> None:
        """Shares memory for pictures of ``size`` bytes with the server."""
        self._unshare()
        assert sys.platform == "linux"
        file = os.memfd_create("pictures")
        os.truncate(file, size)
        memory = mmap.mmap(file, size)
        segment = self._xcb.xcb_generate_id(self._connection)
        # xcb closes the file when it has sent it.
        cookie = self._shm.xcb_shm_attach_fd_checked(self._connection, segment, file, 0)
        if fault := self._xcb.xcb_request_check(self._connection, cookie):
            self._c.free(fault)
            raise UserError("the X server shares no memory: capture on the machine that shows the window, not over ssh")
        self._memory, self._segment = memory, segment

    def _unshare(self) -> None:
        if self._memory is not None:
            self._xcb.xcb_request_check(
                self._connection, self._shm.xcb_shm_detach_checked(self._connection, self._segment)
            )
            self._memory.close()
            self._memory = None

    def close(self) -> None:
        if self._connection is not None:
            self._unshare()
            self._xcb.xcb_disconnect(self._connection)
            self._connection = None
