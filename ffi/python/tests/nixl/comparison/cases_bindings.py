"""The lower classes of `nixl._bindings`, and `nixl._utils`."""

from __future__ import annotations

import copy
import pickle
from typing import Any

from observe import Package, Seen, until

ENUMS = {
    "nixl_mem_t": ("DRAM_SEG", "VRAM_SEG", "BLK_SEG", "OBJ_SEG", "FILE_SEG"),
    "nixl_xfer_op_t": ("NIXL_READ", "NIXL_WRITE"),
    "nixl_status_t": (
        "NIXL_SUCCESS",
        "NIXL_IN_PROG",
        "NIXL_ERR_NOT_POSTED",
        "NIXL_ERR_INVALID_PARAM",
        "NIXL_ERR_BACKEND",
        "NIXL_ERR_NOT_FOUND",
        "NIXL_ERR_MISMATCH",
        "NIXL_ERR_NOT_ALLOWED",
        "NIXL_ERR_REPOST_ACTIVE",
        "NIXL_ERR_UNKNOWN",
        "NIXL_ERR_NOT_SUPPORTED",
    ),
    "nixl_thread_sync_t": (
        "NIXL_THREAD_SYNC_NONE",
        "NIXL_THREAD_SYNC_STRICT",
        "NIXL_THREAD_SYNC_RW",
        "NIXL_THREAD_SYNC_DEFAULT",
    ),
    "nixl_cost_t": ("NIXL_COST_ANALYTICAL_BACKEND",),
}

EXCEPTIONS = [
    "NotPosted",
    "InvalidParam",
    "Backend",
    "NotFound",
    "Mismatch",
    "NotAllowed",
    "RepostActive",
    "Unknown",
    "NotSupported",
    "RemoteDisconnect",
    "Cancelled",
    "NoTelemetry",
]


def case_enums(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    for kind, members in ENUMS.items():
        cls = getattr(b, kind)
        seen(f"{kind} members", lambda c=cls: {k: int(v) for k, v in c.__members__.items()})
        for name in members:
            value = getattr(b, name)
            seen(f"{name} is", lambda v=value: [str(v), repr(v), int(v), v.name, v.value])
        first = getattr(b, members[0])
        last = getattr(b, members[-1])
        seen(f"{kind} equal", lambda f=first, c=cls: f == c(int(f)))
        seen(f"{kind} equals number", lambda f=first: f == int(f))
        seen(f"{kind} unequal", lambda f=first, x=last: f != x)
        seen(f"{kind} hash", lambda f=first: hash(f) == hash(int(f)))
        seen(f"{kind} as index", lambda f=first: [7, 8, 9][f])
        seen(f"{kind} of number out of range", lambda c=cls: int(c(1000)))
        seen(f"{kind} of text", lambda c=cls: c("a"))
        seen(f"{kind} pickle", lambda f=first: pickle.loads(pickle.dumps(f)))
        seen(f"{kind} copy", lambda f=first: copy.deepcopy(f))
        seen(f"{kind} is an int", lambda f=first: isinstance(f, int))
        seen(f"{kind} order", lambda f=first, x=last: f < x)
    seen("read is false", lambda: bool(b.NIXL_READ))
    return seen


def case_constants(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    seen("NIXL_INIT_AGENT", lambda: b.NIXL_INIT_AGENT)
    seen("DEFAULT_COMM_PORT", lambda: b.DEFAULT_COMM_PORT)
    seen("HAVE_UCX_GPU_DEVICE_API", lambda: type(b.HAVE_UCX_GPU_DEVICE_API).__name__)
    seen("names", lambda: sorted(n for n in dir(b) if not n.startswith("_")))
    return seen


def case_exceptions(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    for name in EXCEPTIONS:
        cls = getattr(b, f"nixl{name}Error")
        seen(name, lambda c=cls: [c.__name__, [base.__name__ for base in c.__bases__]])
    try:
        p.agent("a", backends=[]).create_backend("NOPE")
    except b.nixlNotFoundError as error:
        seen("text", lambda e=error: str(e).startswith("NIXL_ERR_NOT_FOUND"))
        seen("arguments", lambda e=error: len(e.args))
    return seen


def case_config(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    strict = b.NIXL_THREAD_SYNC_STRICT
    names = (
        "useProgThread",
        "useListenThread",
        "listenPort",
        "syncMode",
        "pthrDelay",
        "lthrDelay",
        "captureTelemetry",
        "etcdWatchTimeout",
    )

    def values(*arguments: Any) -> dict[str, Any]:
        config = b.nixlAgentConfig(*arguments)
        return {name: getattr(config, name) for name in names}

    for arguments in (
        (),
        (True,),
        (True, True),
        (True, True, 5),
        (True, True, 5, strict),
        (True, True, 5, strict, 1),
        (True, True, 5, strict, 1, 7),
        (True, True, 5, strict, 1, 7, 9),
        (True, True, 5, strict, 1, 7, 9, True),
    ):
        seen(f"{len(arguments)} arguments", lambda a=arguments: values(*a))
    seen("number", lambda: values(1))
    seen("text", lambda: values("a"))
    seen("too many", lambda: values(*[True] * 9))
    config = b.nixlAgentConfig()
    for name in names:
        seen(f"set {name}", lambda n=name: setattr(config, n, getattr(config, n)))
    seen("another attribute", lambda: setattr(config, "x", 1))
    return seen


def case_agent(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    one, two = (b.nixlAgent(name, b.nixlAgentConfig(True)) for name in ("one", "two"))
    seen("plugins", lambda: "UCX" in one.getAvailPlugins())
    seen("plugin params", lambda: [type(x).__name__ for x in one.getPluginParams("UCX")])
    seen("plugin params unknown", lambda: one.getPluginParams("NOPE"))
    backends = [agent.createBackend("UCX", {}) for agent in (one, two)]
    seen("backend", lambda: type(backends[0]).__name__)
    seen("backend params", lambda: one.getBackendParams(backends[0])[0])
    mine, theirs = p.memory(fill=4), p.memory(fill=5)
    regs = [b.nixlRegDList(b.DRAM_SEG, [(m.address, m.size, 0, "")]) for m in (mine, theirs)]
    seen("register", lambda: one.registerMem(regs[0], [backends[0]]))
    seen("register two", lambda: two.registerMem(regs[1]))
    seen("load", lambda: one.loadRemoteMD(two.getLocalMD()))
    seen("load the other", lambda: two.loadRemoteMD(one.getLocalMD()))
    here = b.nixlXferDList(b.DRAM_SEG, mine.rows((0, 64)))
    there = b.nixlXferDList(b.DRAM_SEG, theirs.rows((0, 64)))
    seen("check", lambda: one.checkRemoteMD("two", there))
    seen("check unknown", lambda: one.checkRemoteMD("three", there))
    seen("connect", lambda: one.makeConnection("two", []))
    handle = one.createXferReq(b.NIXL_WRITE, here, there, "two", "n\0tice")
    seen("handle", lambda: type(handle).__name__)
    seen("status before", lambda: one.getXferStatus(handle))
    seen("post", lambda: one.postXferReq(handle) in (b.NIXL_SUCCESS, b.NIXL_IN_PROG))
    seen("done", lambda: until(lambda: one.getXferStatus(handle) == b.NIXL_SUCCESS))
    seen(
        "post with notice",
        lambda: one.postXferReq(handle, "other") in (b.NIXL_SUCCESS, b.NIXL_IN_PROG),
    )
    seen("done again", lambda: until(lambda: one.getXferStatus(handle) == b.NIXL_SUCCESS))
    got: dict[str, list[bytes]] = {"old": [b"kept"]}

    def both() -> bool:
        nonlocal got
        one.getNotifs({})
        got = two.getNotifs(got)
        return len(got.get("one", ())) == 2

    seen("told", lambda: until(both))
    seen("notices", lambda: got)
    seen("backend of", lambda: one.queryXferBackend(handle) == backends[0])
    seen("cost", lambda: [type(x).__name__ for x in one.estimateXferCost(handle)])
    seen("telemetry", lambda: one.getXferTelemetry(handle))
    seen("release", lambda: one.releaseXferReq(handle))
    local = one.prepXferDlist("", here)
    seen("list", lambda: type(local).__name__)
    seen("list without name", lambda: type(one.prepXferDlist(here)).__name__)
    seen(
        "list of table",
        lambda: type(one.prepXferDlist("", b.DRAM_SEG, mine.table((0, 64)))).__name__,
    )
    remote = one.prepXferDlist("two", there)
    seen("make", lambda: type(one.makeXferReq(b.NIXL_READ, local, [0], remote, [0])).__name__)
    seen("release list", lambda: one.releasedDlistH(local))
    seen("notify", lambda: one.genNotif("two", "x"))
    seen("notify unknown", lambda: one.genNotif("three", "x"))
    seen("invalidate", lambda: one.invalidateRemoteMD("two"))
    seen("invalidate unknown", lambda: one.invalidateRemoteMD("three"))
    seen("deregister", lambda: one.deregisterMem(regs[0], [backends[0]]))
    seen("partial", lambda: type(two.getLocalPartialMD(regs[1], True)).__name__)
    seen.daring("backend that is none", lambda: two.getBackendParams(12345))
    return seen


def case_agent_arguments(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    config = b.nixlAgentConfig(True)
    seen("empty name", lambda: b.nixlAgent("", config))
    seen("no config", lambda: b.nixlAgent("a"))
    seen("api config", lambda: b.nixlAgent("a", p.api.nixl_agent_config()))
    seen("number", lambda: b.nixlAgent(3, config))
    agent = b.nixlAgent("a", config)
    seen("hashable", lambda: type(hash(agent)).__name__)
    seen("another attribute", lambda: setattr(agent, "x", 1))
    return seen


def case_telemetry_object(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    telemetry = b.nixlXferTelemetry()
    for name in ("startTime", "postDuration", "xferDuration", "totalBytes", "descCount"):
        seen(f"type of {name}", lambda n=name: type(getattr(telemetry, n)).__name__)
        seen(f"set {name}", lambda n=name: setattr(telemetry, n, 3))
    seen("another attribute", lambda: setattr(telemetry, "x", 1))
    return seen


def case_utils(p: Package) -> Seen:
    seen, u = Seen(), p.utils
    first, second = u.malloc_passthru(4096), u.malloc_passthru(4096)
    seen("malloc", lambda: type(first).__name__)
    seen("fill", lambda: u.ba_buf(first, 4096))
    seen("fill the other", lambda: u.ba_buf(second, 4096))
    import ctypes

    seen("filled with", lambda: ctypes.string_at(first, 4))
    seen("same", lambda: u.verify_transfer(first, second, 4096))
    ctypes.memset(second, 0, 1)
    seen("another", lambda: u.verify_transfer(first, second, 4096))
    seen("free", lambda: u.free_passthru(first))
    seen("free the other", lambda: u.free_passthru(second))
    seen("malloc text", lambda: u.malloc_passthru("a"))
    seen("malloc negative", lambda: u.malloc_passthru(-1))
    return seen
