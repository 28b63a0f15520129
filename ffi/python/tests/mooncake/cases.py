"""What is asked of both implementations, step by step.

A case is given worker processes of one of them and notes what came of each step. Whoever adds one
sees to it that notes hold nothing that differs from run to run: addresses, ports, times.
"""

from __future__ import annotations

import json
from typing import Any, Callable

from objects import CHECKS, LISTS, NUMBERS, TEXTS
from world import Pair, World

Notes = dict[str, Any]

READ = {"$op": "Read"}
WRITE = {"$op": "Write"}
UNREGISTERED = 1 << 30
"""From a buffer's address on, where nothing is."""
LONG = "9" * 5000
"""A number of more digits than Python reads."""


def registering(world: World) -> Notes:
    worker = world.worker()
    worker.start()
    base = worker.buffer("b", 1 << 20)
    call = worker.call
    return {
        "new": call("register_memory", base, 4096),
        "same": call("register_memory", base, 4096),
        "sub-range": call("register_memory", base + 10, 10),
        "super-range": call("register_memory", base - 4096, 12288),
        "end overlaps": call("register_memory", base - 2048, 4096),
        "begin overlaps": call("register_memory", base + 2048, 4096),
        "adjacent": call("register_memory", base + 4096, 4096),
        "empty": call("register_memory", base + 8192, 0),
        "empty where something is": call("register_memory", base, 0),
        "unknown": call("unregister_memory", base + 5),
        "known": call("unregister_memory", base + 4096),
        "once more": call("unregister_memory", base + 4096),
        "new again": call("register_memory", base + 4096, 4096),
        "by name": call("register_memory", buffer_addr=base + 8192, capacity=9, location="cpu:0"),
        "of a GPU": call("register_memory", base + 16384, 100, "cuda:0"),
        "of nonsense": call("register_memory", base + 32768, 100, "nonsense"),
    }


def registering_nothing(world: World) -> Notes:
    worker = world.worker()
    worker.start()
    return {"null": worker.call("register_memory", 0, 4096)}


def registering_many(world: World) -> Notes:
    worker = world.worker()
    worker.start()
    base = worker.buffer("b", 1 << 20)
    call = worker.call
    return {
        "two": call("batch_register_memory", [base, base + 4096], [100, 100]),
        "one overlaps": call("batch_register_memory", [base + 8192, base], [100, 100]),
        "none of those was registered": call("register_memory", base + 8192, 100),
        "overlap each other": call("batch_register_memory", [base + 9000, base + 9050], [100, 100]),
        "none of those either": call("register_memory", base + 9000, 100),
        "one is empty": call("batch_register_memory", [base + 12288, base + 13000], [100, 0]),
        "nor of those": call("register_memory", base + 12288, 100),
        "empty lists": call("batch_register_memory", [], []),
        "fewer addresses": call("batch_register_memory", [base + 20000], [100, 100]),
        "some unknown": call("batch_unregister_memory", [base, 1, base + 4096]),
        "the first is gone": call("unregister_memory", base),
        "the last is gone": call("unregister_memory", base + 4096),
        "nothing": call("batch_unregister_memory", []),
        "a thousand": call(
            "batch_register_memory",
            {"$range": [base + 32768, 1000, 64]},
            {"$range": [64, 1000, 0]},
        ),
        "and away": call("batch_unregister_memory", {"$range": [base + 32768, 1000, 64]}),
    }


def writing_and_reading(world: World) -> Notes:
    pair = world.pair()
    a, b, name, near, far = _parts(pair)
    a.do("pattern", name="a", seed=1)
    notes: Notes = {
        "write": a.call("transfer_sync_write", name, near, far, 1 << 20),
        "landed": b.do("check", name="b", seed=1),
    }
    b.do("pattern", name="b", seed=2)
    notes.update(
        {
            "read": a.call("transfer_sync_read", name, near, far, 1 << 20),
            "came": a.do("check", name="a", seed=2),
            "either, write": a.call("transfer_sync", name, near, far, 10, WRITE),
            "either, read": a.call("transfer_sync", name, near, far, 10, READ, None, "hint"),
            "by name": a.call(
                "transfer_sync_write",
                target_hostname=name,
                buffer=near,
                peer_buffer_address=far,
                length=1,
                transport_hint="tcp",
            ),
            "empty": a.call("transfer_sync_write", name, near, far, 0),
            "empty, not registered": a.call("transfer_sync_write", name, near, far - 4096, 0),
            "empty, nowhere": a.call("transfer_sync_write", name, 0, 0, 0),
        }
    )
    return notes


def memory_that_is_not_there(world: World) -> Notes:
    """Each with a pair of its own: a refusal leaves traces in some engines."""
    steps: dict[str, Callable[[Pair], Any]] = {
        "not registered": lambda p: _write(p, p.far + (1 << 20), 10),
        "one byte more": lambda p: _write(p, p.far + (1 << 20) - 9, 10),
        "null": lambda p: _write(p, 0, 10),
        "at the end of all addresses": lambda p: _write(p, (1 << 64) - 5, 10),
        "longer than all memory": lambda p: _write(p, p.far, 1 << 63),
        "read, not registered": lambda p: p.initiator.call(
            "transfer_sync_read", p.name, p.near, p.far + (1 << 20), 10
        ),
        "from null": lambda p: p.initiator.call("transfer_sync_write", p.name, 0, p.far, 10),
        "to null": lambda p: p.initiator.call("transfer_sync_read", p.name, 0, p.far, 10),
        "one of a batch": lambda p: p.initiator.call(
            "batch_transfer_sync_write", p.name, [p.near] * 2, [p.far, p.far + (1 << 20)], [9, 9]
        ),
        "across two regions": _across_two_regions,
        "taken away there": _taken_away_there,
    }
    notes = {step: run(world.pair()) for step, run in steps.items()}
    # kvx finds out by its deadline.
    notes["taken away here"] = _taken_away_here(world.pair(environment={"KVX_DEADLINE": "1"}))
    return notes


def _write(pair: Pair, place: int, length: int) -> Any:
    return pair.initiator.call("transfer_sync_write", pair.name, pair.near, place, length)


def _across_two_regions(pair: Pair) -> Any:
    far = pair.target.buffer("c", 8192)
    pair.target.call("batch_register_memory", [far, far + 4096], [4096, 4096])
    return _write(pair, far + 4000, 200)


def _taken_away_here(pair: Pair) -> Any:
    pair.initiator.do("take_away", name="a")
    return _write(pair, pair.far, 10)


def _taken_away_there(pair: Pair) -> Any:
    pair.target.do("take_away", name="b")
    code = _write(pair, pair.far, 10)
    return [code, pair.target.call("get_rpc_port") > 0]


def peers_that_are_not_there(world: World) -> Notes:
    pair = world.pair()
    a, _, name, near, far = _parts(pair)
    port = name.rpartition(":")[2]
    nobody, unknown = "127.0.0.1:1", "nosuch.invalid:15000"
    return {
        "nobody": a.call("transfer_sync_write", nobody, near, far, 10),
        "nobody, empty": a.call("transfer_sync_write", nobody, near, far, 0),
        "nobody, empty batch": a.call("batch_transfer_sync_write", nobody, [], [], []),
        "nobody, begun": a.call("batch_transfer_async_write", nobody, [near], [far], [1]),
        "nobody, submitted": a.call("transfer_submit_write", nobody, near, far, 1),
        "nobody, first": a.call("get_first_buffer_address", nobody),
        "unknown": a.call("transfer_sync_write", unknown, near, far, 10),
        "no port": a.call("transfer_sync_write", "127.0.0.1", near, far, 10),
        "a long port": a.call("transfer_sync_write", "127.0.0.1:" + LONG, near, far, 10),
        "no name": a.call("transfer_sync_write", "", near, far, 10),
        "probe": a.call("send_probe", name),
        "probe by name": a.call("send_probe", peer_server_name=f"localhost:{port}"),
        "probe nobody": a.call("send_probe", nobody),
        "probe unknown": a.call("send_probe", unknown),
        "probe no port": a.call("send_probe", "127.0.0.1"),
        "probe a long port": a.call("send_probe", "127.0.0.1:" + LONG),
        "probe no name": a.call("send_probe", ""),
        "by the host's name": a.call("transfer_sync_write", f"localhost:{port}", near, far, 10),
    }


def batches(world: World) -> Notes:
    pair = world.pair()
    a, b, name, near, far = _parts(pair)
    a.do("pattern", name="a", seed=3)
    places = [[near + at * 4096 for at in range(256)], [far + at * 4096 for at in range(256)]]
    notes: Notes = {
        "all": a.call("batch_transfer_sync_write", name, *places, [4096] * 256),
        "landed": b.do("check", name="b", seed=3),
        "read": a.call("batch_transfer_sync_read", name, *places, [4096] * 256),
        "either": a.call("batch_transfer_sync", name, *places, [4096] * 256, READ),
        "empty": a.call("batch_transfer_sync_write", name, [], [], []),
        "some empty": a.call("batch_transfer_sync_write", name, [near] * 2, [far] * 2, [10, 0]),
        "empty and not registered": a.call(
            "batch_transfer_sync_write", name, [near] * 2, [far, far + (1 << 20)], [10, 0]
        ),
        "they overlap": a.call(
            "batch_transfer_sync_write", name, [near] * 2, [far, far + 5], [10, 10]
        ),
        "fewer buffers": a.call("batch_transfer_sync_write", name, [near], [far] * 2, [1] * 2),
        "fewer lengths": a.call("batch_transfer_sync_write", name, [near] * 2, [far] * 2, [1]),
        "begun, fewer lengths": a.call(
            "batch_transfer_async_write", name, [near] * 2, [far] * 2, [1]
        ),
    }
    return notes


def large_batches(world: World) -> Notes:
    notes: Notes = {}
    for count in (1000, 3000):
        pair = world.pair()
        notes[str(count)] = pair.initiator.call(
            "batch_transfer_sync_write",
            pair.name,
            {"$range": [pair.near, count, 7]},
            {"$range": [pair.far, count, 9]},
            {"$range": [5, count, 0]},
        )
    return notes


def begun_batches(world: World) -> Notes:
    pair = world.pair()
    a, _, name, near, far = _parts(pair)
    one = (name, [near], [far], [10])
    ids = [a.call("batch_transfer_async_write", *one) for _ in range(3)]
    read = a.call("batch_transfer_async_read", *one)
    empty = a.call("batch_transfer_async_write", name, [], [], [])
    notes: Notes = {
        "ids differ": len({*ids, read, empty}) == 5 and 0 not in (*ids, read, empty),
        "all": a.call("get_batch_transfer_status", ids),
        "read": a.call("get_batch_transfer_status", [read]),
        "empty": a.call("get_batch_transfer_status", [empty]),
        "none": a.call("get_batch_transfer_status", []),
    }
    twice = a.call("batch_transfer_async", *one, WRITE)
    notes["twice the same"] = a.call("get_batch_transfer_status", [twice, twice])
    checked = a.call("batch_transfer_async_read", *one)
    notes["looked at"] = _checked(a, checked)
    submitted = a.call("transfer_submit_write", name, near, far, 10)
    notes["submitted"] = [submitted > 0, _checked(a, submitted)]
    submitted = a.call("transfer_submit_write", name, near, far, 0)
    notes["submitted, empty"] = [submitted > 0, _checked(a, submitted)]
    return notes


def begun_batches_that_fail(world: World) -> Notes:
    notes: Notes = {}
    pair = world.pair()
    bad = (pair.name, [pair.near], [pair.far + (1 << 20)], [4])
    batch = pair.initiator.call("batch_transfer_async", *bad, READ)
    # A refusal may be known before there is a number.
    notes["read"] = (
        "fails" if not batch else _failed(pair.initiator.call("get_batch_transfer_status", [batch]))
    )
    pair = world.pair()
    batch = pair.initiator.call(
        "transfer_submit_write", pair.name, pair.near, pair.far + (1 << 20), 4
    )
    notes["submitted"] = "fails" if not batch else _failed(_checked(pair.initiator, batch))
    return notes


def _failed(code: Any) -> Any:
    return "fails" if code == -1 else code


def _checked(worker: Any, batch: int) -> Any:
    """What `transfer_check_status` says once it says something."""
    while True:
        code = worker.call("transfer_check_status", batch)
        if code != 0:
            return code


def submitted_and_waited_for(world: World) -> Notes:
    pair = world.pair()
    batch = pair.initiator.call("transfer_submit_write", pair.name, pair.near, pair.far, 10)
    return {"status": pair.initiator.call("get_batch_transfer_status", [batch])}


def numbers_of_no_batch(world: World) -> Notes:
    def spent(pair: Pair) -> Any:
        batch = pair.initiator.call(
            "batch_transfer_async_write", pair.name, [pair.near], [pair.far], [4]
        )
        first = pair.initiator.call("get_batch_transfer_status", [batch])
        return [first, pair.initiator.call("get_batch_transfer_status", [batch])]

    def checked_twice(pair: Pair) -> Any:
        batch = pair.initiator.call("transfer_submit_write", pair.name, pair.near, pair.far, 4)
        return [
            _checked(pair.initiator, batch),
            pair.initiator.call("transfer_check_status", batch),
        ]

    def empty(pair: Pair) -> Any:
        batch = pair.initiator.call("batch_transfer_async_write", pair.name, [], [], [])
        return pair.initiator.call("transfer_check_status", batch)

    steps: dict[str, Callable[[Pair], Any]] = {
        "made up, waited for": lambda p: p.initiator.call("get_batch_transfer_status", [5]),
        "made up, looked at": lambda p: p.initiator.call("transfer_check_status", 5),
        "0, waited for": lambda p: p.initiator.call("get_batch_transfer_status", [0]),
        "0, looked at": lambda p: p.initiator.call("transfer_check_status", 0),
        "waited for twice": spent,
        "looked at twice": checked_twice,
        "empty, looked at": empty,
    }
    return {step: run(world.pair()) for step, run in steps.items()}


def notifications(world: World) -> Notes:
    pair = world.pair()
    a, b, name, near, far = _parts(pair)
    one = {"$notify": ["n", "m"]}
    notes: Notes = {"none": b.call("get_notifies")}

    def told(*args: Any, method: str = "transfer_sync") -> Any:
        return [a.call(method, name, *args), b.call("get_notifies"), b.call("get_notifies")]

    notes["write"] = told(near, far, 10, WRITE, one)
    notes["read"] = told(near, far, 10, READ, one)
    notes["empty"] = told(near, far, 0, WRITE, one)
    notes["batch"] = told([near], [far], [10], WRITE, one, method="batch_transfer_sync")
    notes["empty batch"] = told([], [], [], WRITE, one, method="batch_transfer_sync")
    notes["not registered"] = told(near, far + (1 << 20), 10, WRITE, one)
    notes["nothing in it"] = told(near, far, 10, WRITE, {"$notify": []})
    notes["not only ASCII"] = told(
        near, far, 10, WRITE, {"$notify": ["\u00fc\u20ac", "\U0001f600"]}
    )
    notes["with a zero"] = told(near, far, 10, WRITE, {"$notify": ["a\0b", "\0"]})
    broken = {"$notify": [{"$bytes": "61ff62"}, "m"]}
    notes["no UTF-8"] = told(near, far, 10, WRITE, broken)
    codes = [
        a.call("transfer_sync", name, near, far, 10, WRITE, {"$notify": [f"{number}", ""]})
        for number in range(50)
    ]
    notes["fifty"] = [codes, [told["name"] for told in b.call("get_notifies")]]
    return notes


def long_notifications(world: World) -> Notes:
    pair = world.pair()
    notes: Notes = {}
    for length in (100_000, 2_000_000):
        text = {"$notify": [{"$text": ["x", length]}, ""]}
        code = pair.initiator.call("transfer_sync", pair.name, pair.near, pair.far, 10, WRITE, text)
        came = [len(told["name"]) for told in pair.target.call("get_notifies")]
        notes[str(length)] = [code, came]
    return notes


def to_oneself(world: World) -> Notes:
    worker = world.worker()
    name = worker.start()
    base = worker.buffer("a", 1 << 20, fill=7)
    port = name.rpartition(":")[2]
    call = worker.call
    notes: Notes = {
        "first, nothing registered": call("get_first_buffer_address", name),
        "not registered": call("transfer_sync_write", name, base, base + 8192, 10),
        "registered": call("register_memory", base, 4096),
        "write": call("transfer_sync_write", name, base + 8192, base, 10),
        "read": call("transfer_sync_read", name, base + 8192, base, 10),
        "by the host's name": call("transfer_sync_write", f"localhost:{port}", base + 9, base, 10),
        "batch": call(
            "batch_transfer_sync_write", name, [base + 8192] * 2, [base, base + 100], [10, 10]
        ),
        "probe": call("send_probe", name),
        "first": call("get_first_buffer_address", name) == base,
        "told": call("transfer_sync", name, base + 8192, base, 10, WRITE, {"$notify": ["s", "t"]}),
    }
    notes["heard"] = call("get_notifies")
    return notes


def registered_anew(world: World) -> Notes:
    pair = world.pair()
    a, b, name, near, far = _parts(pair)
    notes: Notes = {"before": a.call("transfer_sync_write", name, near, far, 10)}
    notes["unregistered"] = b.call("unregister_memory", far)
    notes["then"] = a.call("transfer_sync_write", name, near, far, 10)
    notes["registered"] = b.call("register_memory", far, 4096)
    notes["after"] = a.call("transfer_sync_write", name, near, far, 10)
    more = b.buffer("c", 4096)
    notes["more"] = b.call("register_memory", more, 4096)
    notes["there too"] = a.call("transfer_sync_write", name, near, more, 10)
    return notes


def first_buffers(world: World) -> Notes:
    worker = world.worker()
    name = worker.start()
    base = worker.buffer("a", 1 << 20)

    def first() -> int:
        address = worker.call("get_first_buffer_address", name)
        return address - base if address else -1

    notes: Notes = {"none": first()}
    for place in (8192, 0, 4096):
        worker.call("register_memory", base + place, 100)
    notes["the first registered"] = first()
    worker.call("unregister_memory", base + 8192)
    notes["then the next"] = first()
    worker.call("register_memory", base + 8192, 100)
    notes["which stays"] = first()
    return notes


def first_buffer_of_a_peer(world: World) -> Notes:
    pair = world.pair()
    a, b, name, _, far = _parts(pair)
    notes: Notes = {"registered": a.call("get_first_buffer_address", name) == far}
    b.call("unregister_memory", far)
    notes["unregistered"] = a.call("get_first_buffer_address", name) == 0
    b.call("register_memory", far, 4096)
    notes["registered again"] = a.call("get_first_buffer_address", name) == far
    return notes


def managed_buffers(world: World) -> Notes:
    pair = world.pair()
    a, b, name, near, far = _parts(pair)
    buffer = b.call("allocate_managed_buffer", 4096)
    notes: Notes = {
        "allocated": buffer > 0,
        "filled": b.call("write_bytes_to_buffer", buffer, {"$bytes": "616263"}, 3),
        "held": b.call("read_bytes_from_buffer", buffer, 3),
        "by text": b.call("write_bytes_to_buffer", buffer, "xyz", 2),
        "holds the text": b.call("read_bytes_from_buffer", buffer, 3),
        "nothing": b.call("read_bytes_from_buffer", buffer, 0),
        "written": a.call("transfer_sync_write", name, near, buffer, 4096),
        "was written": b.call("read_bytes_from_buffer", buffer, 2),
        "registered": b.call("register_memory", buffer, 100),
        "unregistered": b.call("unregister_memory", buffer),
        "one byte more": a.call("transfer_sync_write", name, near, buffer, 4097),
        "first": a.call("get_first_buffer_address", name) == far,
        "freed": b.call("free_managed_buffer", buffer, 4096),
        "freed again": b.call("free_managed_buffer", buffer, 4096),
        "freed what is none": b.call("free_managed_buffer", 12345, 100),
        "of length 0": b.call("allocate_managed_buffer", 0) > 0,
        "too long": b.call("allocate_managed_buffer", 1 << 50),
        "any memory": a.call("write_bytes_to_buffer", near, {"$bytes": "aabb"}, 2),
        "read there": a.call("read_bytes_from_buffer", near, 3),
    }
    return notes


def managed_buffers_after(world: World) -> Notes:
    pair = world.pair()
    buffer = pair.target.call("allocate_managed_buffer", 4096)
    pair.target.call("free_managed_buffer", buffer, 4096)
    return {"freed and written": _write(pair, buffer, 10)}


def bytes_of_no_memory(world: World) -> Notes:
    def started() -> Any:
        worker = world.worker()
        worker.start()
        return worker

    base = (worker := started()).buffer("a", 4096)
    return {
        "more than given": worker.call("write_bytes_to_buffer", base, {"$bytes": "aa"}, 50),
        "read": started().call("read_bytes_from_buffer", 1, 10),
        "write": started().call("write_bytes_to_buffer", 1, {"$bytes": "aa"}, 1),
    }


def before_initialize(world: World) -> Notes:
    one = ("127.0.0.1:1", 1, 1, 1)
    lists = ("127.0.0.1:1", [1], [1], [1])
    calls: dict[str, tuple[Any, ...]] = {
        "get_rpc_port": (),
        "register_memory": (4096, 10),
        "unregister_memory": (4096,),
        "batch_register_memory": ([4096], [1]),
        "batch_unregister_memory": ([4096],),
        "transfer_sync_write": one,
        "transfer_sync_read": one,
        "transfer_sync": (*one, READ),
        "batch_transfer_sync_write": lists,
        "batch_transfer_sync_read": lists,
        "batch_transfer_sync": (*lists, WRITE),
        "batch_transfer_async_write": lists,
        "batch_transfer_async_read": lists,
        "batch_transfer_async": (*lists, WRITE),
        "get_batch_transfer_status": ([],),
        "transfer_submit_write": one,
        "transfer_check_status": (5,),
        "get_notifies": (),
        "send_probe": ("127.0.0.1:1",),
        "get_first_buffer_address": ("127.0.0.1:1",),
        "allocate_managed_buffer": (10,),
        "free_managed_buffer": (4096, 10),
        "get_engine_ptr": (),
        "get_engine": (),
        "warmup_efa_segment": ("x",),
    }
    notes: Notes = {}
    for method, args in calls.items():
        worker = world.worker()
        worker.do("new")
        notes[method] = worker.call(method, *args)
        worker.end()
    worker = world.worker()
    worker.do("new")
    notes["get_local_topology"] = _first_node(worker.call("get_local_topology"))
    return notes


def about_the_engine(world: World) -> Notes:
    worker = world.worker()
    worker.start()
    return {
        "topology": _first_node(worker.call("get_local_topology")),
        "topology of NICs": _first_node(worker.call("get_local_topology", "none_0,none_1")),
        "topology by name": _first_node(worker.call("get_local_topology", device_name="x")),
        "warmup": worker.call("warmup_efa_segment", "x"),
        "warmup by name": worker.call("warmup_efa_segment", segment_name="x"),
        "pointer": worker.call("get_engine_ptr") != 0,
        "engine": worker.call("get_engine"),
    }


def _first_node(topology: str) -> Any:
    """Machines differ in how many there are, and in what is near to them."""
    return len(json.loads(topology)["cpu:0"])


def initializing(world: World) -> Notes:
    def code(host: str, server: str = "P2PHANDSHAKE", protocol: str = "tcp", nics: str = "") -> Any:
        worker = world.worker()
        worker.do("new")
        result = worker.call("initialize", host, server, protocol, nics)
        worker.end()
        return result

    def code_ext(kind: str) -> Any:
        worker = world.worker()
        worker.do("new")
        result = worker.call("initialize_ext", "127.0.0.1", "P2PHANDSHAKE", "tcp", "", kind)
        worker.end()
        return result

    hosts = ("127.0.0.1", "127.0.0.1:5", "localhost", "127.0.0.2", "127.0.0.1:99999")
    nowhere = ("nosuch.invalid", "256.1.1.1", "192.0.2.1", "")
    servers = ("p2phandshake", "", "127.0.0.1:1", "etcd://127.0.0.1:1", "http://127.0.0.1:1/m")
    worse = ("redis://127.0.0.1:1", "nonsense://x")
    return {
        **{f"host {host}": code(host) for host in (*hosts, *nowhere)},
        "a long port": code("127.0.0.1:" + LONG),
        **{f"server {server}": code("127.0.0.1", server) for server in (*servers, *worse)},
        **{f"protocol {name}": code("127.0.0.1", protocol=name) for name in ("rdma", "", "efa")},
        "protocol nonsense": code("127.0.0.1", protocol="nonsense"),
        "NICs": code("127.0.0.1", nics="mlx5_0,mlx5_1"),
        **{f"type {kind}": code_ext(kind) for kind in ("P2PHANDSHAKE", "etcd", "")},
    }


def initializing_again(world: World) -> Notes:
    pair = world.pair()
    a, _, name, near, far = _parts(pair)
    a.call("register_memory", near, 100)
    port = a.call("get_rpc_port")
    notes: Notes = {"again": a.call("initialize", "127.0.0.1", "P2PHANDSHAKE", "tcp", "")}
    notes["old port"] = a.call("send_probe", f"127.0.0.1:{port}")
    notes["registered before"] = a.call("unregister_memory", near)
    notes["register"] = a.call("register_memory", near, 100)
    notes["write"] = a.call("transfer_sync_write", name, near, far, 10)
    notes["in vain"] = a.call("initialize", "127.0.0.1", "etcd://127.0.0.1:1", "tcp", "")
    notes["write then"] = a.call("transfer_sync_write", name, near, far, 10)
    return notes


def two_in_one_process(world: World) -> Notes:
    worker = world.worker()
    worker.start(engine="one")
    name = worker.start(engine="two")
    near, far = worker.buffer("a", 4096, fill=7), worker.buffer("b", 4096)
    worker.call("register_memory", far, 4096, engine="two")
    notes: Notes = {"write": worker.call("transfer_sync_write", name, near, far, 10, engine="one")}
    notes["landed"] = worker.read("b", 0, 11).hex()
    worker.do("drop", engine="two")
    notes["gone"] = worker.call("send_probe", name, engine="one")
    return notes


def ipv6(world: World) -> Notes:
    if not _has_ipv6():
        return {}
    alone = world.worker()
    alone.do("new")
    initiator = world.worker({"MC_USE_IPV6": "1"})
    target = world.worker({"MC_USE_IPV6": "1"})
    initiator.start("[::1]")
    name = target.start("[::1]")
    near, far = initiator.buffer("a", 4096, fill=7), target.buffer("b", 4096)
    target.call("register_memory", far, 4096)
    return {
        "probe": initiator.call("send_probe", name),
        "write": initiator.call("transfer_sync_write", name, near, far, 100),
        "landed": target.read("b", 0, 2).hex(),
        "first": initiator.call("get_first_buffer_address", name) == far,
        "without saying so": alone.call("initialize", "[::1]:5", "P2PHANDSHAKE", "tcp", ""),
    }


def _has_ipv6() -> bool:
    import socket

    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def ports(world: World) -> Notes:
    def port(**environment: str) -> Any:
        worker = world.worker(environment)
        return int(worker.start().rpartition(":")[2])

    return {
        "default": 15000 <= port() <= 17000,
        "chosen": 18300 <= port(MC_MIN_RPC_PORT="18300", MC_MAX_RPC_PORT="18340") <= 18340,
        "other spelling": 18300 <= port(MC_MIN_PRC_PORT="18300", MC_MAX_PRC_PORT="18340") <= 18340,
        "no numbers": 15000 <= port(MC_MIN_RPC_PORT="x", MC_MAX_RPC_PORT="y") <= 17000,
        "upside down": 15000 <= port(MC_MIN_RPC_PORT="18340", MC_MAX_RPC_PORT="18300") <= 17000,
    }


def arguments(world: World) -> Notes:
    worker = world.worker()
    name = worker.start()
    worker.buffer("a", 4096)
    worker.call("register_memory", {"$at": ["a", 0]}, 4096)
    one = (name, {"$at": ["a", 0]}, {"$at": ["a", 0]}, 1)
    notes: Notes = {}
    for kind in NUMBERS:
        notes[f"number {kind}"] = worker.call("unregister_memory", {"$number": kind})
    for kind in TEXTS:
        notes[f"text {kind}"] = worker.call("get_first_buffer_address", {"$str": kind})
    for kind in LISTS:
        notes[f"list {kind}"] = worker.call("batch_unregister_memory", {"$list": kind})
    for kind in CHECKS:
        notes[f"check {kind}"] = worker.do("ask", name=kind)
    notes["no list of buffers"] = worker.call("batch_transfer_sync_write", name, 1, [1], [1])
    notes["no such keyword"] = worker.call("transfer_sync_write", *one[:3], size=1)
    notes["too few"] = worker.call("transfer_sync_write", name)
    notes["too many"] = worker.call("transfer_sync_write", *one, "tcp", "x")
    notes["hint None"] = worker.call("transfer_sync_write", *one, None)
    for kind, opcode in {"0": 0, "Read": "Read", "None": None}.items():
        notes[f"opcode {kind}"] = worker.call("transfer_sync", *one, opcode)
    notes["notify text"] = worker.call("transfer_sync", *one, READ, "x")
    notes["location None"] = worker.call("register_memory", 4096, 1, None)
    return notes


def _parts(pair: Pair) -> Any:
    return pair.initiator, pair.target, pair.name, pair.near, pair.far


CASES: dict[str, Callable[[World], Notes]] = {
    case.__name__: case
    for case in (
        registering,
        registering_nothing,
        registering_many,
        writing_and_reading,
        memory_that_is_not_there,
        peers_that_are_not_there,
        batches,
        large_batches,
        begun_batches,
        begun_batches_that_fail,
        submitted_and_waited_for,
        numbers_of_no_batch,
        notifications,
        long_notifications,
        to_oneself,
        registered_anew,
        first_buffers,
        first_buffer_of_a_peer,
        managed_buffers,
        managed_buffers_after,
        bytes_of_no_memory,
        before_initialize,
        about_the_engine,
        initializing,
        initializing_again,
        two_in_one_process,
        ipv6,
        ports,
        arguments,
    )
}
