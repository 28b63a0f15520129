"""What memory can be registered, and what becomes of it."""

from __future__ import annotations

import array
import gc
import mmap
from collections.abc import Callable

import numpy as np
import pytest

import kvx

Make = Callable[..., kvx.Engine]


class Tensor:
    """As PyTorch's: DLPack and nothing else."""

    def __init__(self, values: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.values = values
        self.device = device

    def __dlpack__(self, **_: object) -> object:
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def test_memory_of_every_kind_is_registered(make_engine: Make) -> None:
    engine = make_engine()
    values = np.arange(64, dtype=np.float32)
    address = values.__array_interface__["data"][0]
    kinds = [
        values,
        values[16:32],
        values.reshape(8, 8).T,
        Tensor(values),
        Tensor(values.reshape(4, 16)),
        memoryview(values),
        bytearray(256),
        array.array("d", range(32)),
        mmap.mmap(-1, 4096),
    ]
    for memory in kinds:
        with engine.register(memory) as region:
            length = 4096 if isinstance(memory, mmap.mmap) else 256
            assert region.length == (64 if getattr(memory, "shape", 0) == (16,) else length)
    for tensor in (values, Tensor(values)):
        assert engine.register(tensor).address == address


@pytest.mark.parametrize(
    ("memory", "says"),
    [
        (b"constant", "cannot be written"),
        (np.broadcast_to(np.zeros(4), (4, 4)), "cannot be written"),
        (np.zeros((8, 8))[:, :4], "not in one piece"),
        (np.zeros(16)[::2], "not in one piece"),
        (np.zeros(16)[::-1], "not in one piece"),
        (Tensor(np.zeros((8, 8))[:, :4]), "not in one piece"),
        (memoryview(bytearray(16))[::2], "not in one piece"),
        (np.zeros(0), "empty"),
        (bytearray(), "empty"),
        ("text", "neither a buffer"),
        (7, "neither a buffer"),
        (None, "neither a buffer"),
    ],
)
def test_what_is_no_memory_is_an_error(make_engine: Make, memory: object, says: str) -> None:
    with pytest.raises(kvx.InvalidError, match=says):
        make_engine().register(memory)


class Described:
    """An array that is not NumPy's."""

    def __init__(self, values: np.ndarray, **other: object) -> None:
        self.values = values
        self.__array_interface__ = {**values.__array_interface__, **other}


def test_elements_of_every_kind_have_their_length(make_engine: Make) -> None:
    engine = make_engine()
    kinds = ["<U3", "S5", "M8[ns]", "m8[us]", "?", ">f8", "c16", "V7", "f4, (2,)i2, U1"]
    for kind in kinds:
        values = np.zeros(4, kind)
        for memory in (values, Described(values)):
            assert engine.register(memory).length == values.nbytes, kind


@pytest.mark.parametrize(
    ("memory", "says"),
    [
        (np.empty(4, object), "objects"),
        (np.empty(4, "i4, O"), "objects"),
        (Described(np.empty(4, object)), "objects"),
        (Described(np.zeros(4), typestr="|t8"), "typestr"),
        (Described(np.zeros(4), typestr="M8[nothing]"), "typestr"),
        (Described(np.zeros(4), typestr=None), "typestr"),
    ],
)
def test_elements_that_are_no_bytes_are_errors(
    make_engine: Make, memory: object, says: str
) -> None:
    with pytest.raises(kvx.InvalidError, match=says):
        make_engine().register(memory)


def test_device_memory_is_not_supported(make_engine: Make) -> None:
    engine = make_engine()
    with pytest.raises(kvx.UnsupportedError, match="device 3"):
        engine.register(Tensor(np.zeros(4), (2, 3)))

    class Cuda:
        __cuda_array_interface__ = {"data": (1, False)}  # noqa: RUF012

    with pytest.raises(kvx.UnsupportedError, match="CUDA"):
        engine.register(Cuda())


def test_addresses_that_are_none_are_errors(make_engine: Make) -> None:
    engine = make_engine()
    for address, length in [(0, 1), (-1, 1), (1 << 64, 1), (4096, 0), (4096, -1), (4096, 1 << 64)]:
        with pytest.raises(kvx.InvalidError):
            engine.register_address(address, length)
    with pytest.raises(kvx.InvalidError):
        engine.allocate(0)
    with pytest.raises(kvx.OutOfMemoryError):
        engine.allocate(1 << 60)


def test_registered_memory_is_kept_alive(make_engine: Make) -> None:
    engine = make_engine()
    memory = bytearray(4096)
    region = engine.register(memory)
    with pytest.raises(BufferError):
        memory.append(1)
    region.deregister()
    memory.append(1)


def test_a_block_may_end_after_its_engine(make_engine: Make) -> None:
    engine = make_engine()
    with engine.allocate(4096) as region:
        engine.close()
    with pytest.raises(kvx.UnknownHandleError):
        region.deregister()
    with make_engine() as other:
        region = other.allocate(4096)
    with pytest.raises(kvx.ShutDownError):
        region.deregister()


def test_a_view_outlives_its_region(make_engine: Make) -> None:
    engine = make_engine()
    region = engine.allocate(1 << 20)
    view = region.buffer
    view[:3] = b"kvx"
    region.deregister()
    del region
    engine.close()
    gc.collect()
    assert bytes(view[:3]) == b"kvx"
    view[-1] = 1


def test_a_region_of_the_callers_memory_has_no_buffer(make_engine: Make) -> None:
    region = make_engine().register(bytearray(16))
    with pytest.raises(kvx.UnsupportedError):
        _ = region.buffer
