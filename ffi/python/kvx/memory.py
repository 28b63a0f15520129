"""Memory: what Python objects have of it, and regions, which are memory that is registered."""

from __future__ import annotations

import contextlib
import ctypes
import enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kvx._call import check, ffi, lib
from kvx.errors import InvalidError, ShutDownError, UnsupportedError

if TYPE_CHECKING:
    from kvx.engine import Engine

# Of DLPack (dlpack.h): memory that the CPU reaches as its own.
_DL_CPU = 1
_DL_CUDA_HOST = 3


class Rights(enum.IntFlag):
    """What peers that hold a region's key may do with it."""

    NONE = 0
    READ = 1
    WRITE = 2
    ALL = 3


class Memory(NamedTuple):
    """Bytes that lie one after another in host memory."""

    address: int
    length: int
    #: What keeps them there.
    owner: object


class Region:
    """Registered memory.

    It is registered, and kept alive, until `deregister()` or the engine's `close()`; as a context
    manager it is deregistered at the end of the block.
    """

    def __init__(
        self, engine: Engine, handle: int, memory: Memory, rights: Rights, buffer: Any
    ) -> None:
        self._engine = engine
        self._handle = handle
        self._memory = memory
        self._rights = rights
        self._buffer = buffer

    @property
    def engine(self) -> Engine:
        """The engine that it is registered with."""
        return self._engine

    @property
    def address(self) -> int:
        """The address of the first byte."""
        return self._memory.address

    @property
    def length(self) -> int:
        """Length in bytes."""
        return self._memory.length

    @property
    def rights(self) -> Rights:
        """What peers may do with it."""
        return self._rights

    @property
    def buffer(self) -> memoryview:
        """The bytes, of memory that the engine allocated: they stay as long as a view does.

        Raises:
            UnsupportedError: the memory is the caller's own.
        """
        if self._buffer is None:
            raise UnsupportedError("buffer: the memory was registered, not allocated here")
        return memoryview(ffi.buffer(self._buffer, self.length))

    def publish(self) -> None:
        """From now on any peer that may connect is told of it when it asks (`Peer.published`).

        Once more does nothing.
        """
        check(lib.kvx_region_publish(self._handle))

    def deregister(self) -> None:
        """Takes the registration back; transfers that use the region fail.

        When this returns no byte lands in it and none is read from it any more, whatever peers do.

        Raises:
            UnknownHandleError: it was deregistered before.
            ShutDownError: its engine was closed, which has deregistered it.
        """
        check(lib.kvx_region_deregister(self._handle))
        self._engine._forget(self._handle)
        self._memory = self._memory._replace(owner=None)

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        # An engine that was closed has deregistered it.
        with contextlib.suppress(ShutDownError):
            self.deregister()

    def __repr__(self) -> str:
        return f"<kvx.Region {self.length} bytes at {self.address:#x}>"


def memory_of(thing: Any) -> Memory:
    """The memory of an object: `__array_interface__`, the buffer protocol, or DLPack.

    Raises:
        InvalidError: it has none, cannot be written to, or its bytes are not in one piece.
        UnsupportedError: it is the memory of a device.
    """
    _refuse_devices(thing)
    if hasattr(thing, "__array_interface__"):
        return _of_array(thing)
    try:
        view = memoryview(thing)
    except TypeError:
        if hasattr(thing, "__dlpack__"):
            return _of_dlpack(thing)
        kind = type(thing).__name__
        raise InvalidError(
            f"memory: {kind} has neither a buffer nor __array_interface__ nor __dlpack__"
        ) from None
    return _of_buffer(view)


def _refuse_devices(thing: Any) -> None:
    if hasattr(thing, "__dlpack_device__"):
        kind, number = thing.__dlpack_device__()
        if int(kind) not in (_DL_CPU, _DL_CUDA_HOST):
            raise UnsupportedError(f"memory: of device {int(number)}, DLPack type {int(kind)}")
    elif hasattr(thing, "__cuda_array_interface__"):
        raise UnsupportedError("memory: of a CUDA device")


def _of_buffer(view: memoryview) -> Memory:
    if view.readonly:
        raise InvalidError("memory: cannot be written to")
    if not view.contiguous:
        raise InvalidError("memory: not in one piece")
    if view.ndim == 0 or not view.c_contiguous:
        raise InvalidError("memory: neither a sequence nor a C-contiguous array")
    # As long as it lives, the object can neither be freed nor change its size.
    exported = ffi.from_buffer(view)
    return Memory(int(ffi.cast("uintptr_t", exported)), view.nbytes, exported)


def _of_array(thing: Any) -> Memory:
    interface = thing.__array_interface__
    data = interface.get("data")
    if not isinstance(data, tuple):
        raise InvalidError("memory: __array_interface__ without an address")
    address, readonly = data
    if readonly:
        raise InvalidError("memory: cannot be written to")
    shape = tuple(interface["shape"])
    length = _contiguous(shape, interface.get("strides"), _item(thing, interface.get("typestr")))
    return Memory(int(address), length, thing)


def _item(thing: Any, typestr: object) -> int:
    """The bytes of an element of an array that has `__array_interface__`."""
    # Of one of several fields the interface does not tell whether they are objects.
    kind = thing.dtype if isinstance(thing, np.ndarray) else _kind(typestr)
    if kind.hasobject:
        raise InvalidError("memory: its elements are objects, which others cannot read")
    return int(kind.itemsize)


def _kind(typestr: object) -> np.dtype[Any]:
    if isinstance(typestr, str):
        with contextlib.suppress(TypeError, ValueError):
            return np.dtype(typestr)
    raise InvalidError(f"memory: {typestr!r} is no typestr of __array_interface__")


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, item: int) -> int:
    """The number of bytes of an array whose elements lie in one piece, in any order of axes."""
    length = item
    for extent in shape:
        length *= extent
    if strides is None or length == 0:
        return length
    expected = item
    for stride, extent in sorted(zip(strides, shape)):
        if extent == 1:
            continue
        if stride != expected:
            raise InvalidError(f"memory: not in one piece, with strides {strides} of {shape}")
        expected *= extent
    return length


class _DLTensor(ctypes.Structure):
    """DLTensor of dlpack.h; the DLManagedTensor of a capsule begins with it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _of_dlpack(thing: Any) -> Memory:
    try:
        capsule = thing.__dlpack__()
    except (BufferError, RuntimeError, TypeError, ValueError) as cause:
        raise InvalidError(f"memory: {cause}") from cause
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    # The capsule is not consumed: with it goes the tensor.
    tensor = _DLTensor.from_address(pointer(capsule, b"dltensor"))
    bits = tensor.bits * tensor.lanes
    if bits % 8:
        raise UnsupportedError(f"memory: elements of {bits} bits")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    item = bits // 8
    strides = None
    if tensor.strides:
        strides = tuple(tensor.strides[axis] * item for axis in range(tensor.ndim))
    length = _contiguous(shape, strides, item)
    return Memory((tensor.data or 0) + tensor.byte_offset, length, (capsule, thing))
