"""Configuration, agents, plugins and backends."""

from __future__ import annotations

from typing import Any

from observe import Package, Seen


def case_config_defaults(p: Package) -> Seen:
    seen = Seen()
    config = p.api.nixl_agent_config()
    seen("attributes", lambda: dict(vars(config)))
    seen("positional", lambda: dict(vars(p.api.nixl_agent_config(False, True, 9, True, 3, ["X"]))))
    other = p.api.nixl_agent_config(
        enable_prog_thread=False,
        enable_listen_thread=True,
        listen_port=1,
        capture_telemetry=True,
        num_threads=4,
        backends=[],
    )
    seen("keywords", lambda: dict(vars(other)))
    mine = ["UCX"]
    seen("list is taken as it is", lambda: p.api.nixl_agent_config(backends=mine).backends is mine)
    seen("unknown keyword", lambda: p.api.nixl_agent_config(backend=["UCX"]))
    return seen


def case_config_sync_mode(p: Package) -> Seen:
    seen = Seen()
    modes = p.api.nixl_thread_sync_t
    seen("names", lambda: [mode.name for mode in modes])
    seen("default is none", lambda: modes.NIXL_THREAD_SYNC_DEFAULT is modes.NIXL_THREAD_SYNC_NONE)
    for mode in modes:
        seen(mode.name, lambda m=mode: p.api.nixl_agent_config(sync_mode=m).sync_mode is m)
        seen(f"agent {mode.name}", lambda m=mode: p.agent("a", sync_mode=m).name)
    for bad in (1, "STRICT", True):
        seen(f"bad {bad!r}", lambda b=bad: p.api.nixl_agent_config(sync_mode=b))
    return seen


def case_agent_attributes(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a")
    for name in ("name", "notifs", "backend_mems", "backend_options", "nixl_ops"):
        seen(name, lambda n=name: getattr(agent, n))
    seen("backends", lambda: list(agent.backends))
    seen("backend handles", lambda: [type(h).__name__ for h in agent.backends.values()])
    seen("nixl_mems", lambda: {key: str(value) for key, value in agent.nixl_mems.items()})
    seen("plugin_list", lambda: sorted(agent.plugin_list))
    seen("agent", lambda: agent.agent)
    return seen


def case_agent_names(p: Package) -> Seen:
    seen = Seen()
    names: dict[str, Any] = {
        "empty": "",
        "unicode": "ä€😀",
        "long": "x" * 1000,
        "newline": "a\nb",
        "zero": "a\0b",
        "blank": " ",
        "number": 3,
        "bytes": b"a",
        "none": None,
    }
    for label, name in names.items():
        seen(label, lambda n=name: p.api.nixl_agent(n).name)
    seen("same name twice", lambda: [p.agent("twin").name, p.agent("twin").name])
    return seen


def case_agent_conf(p: Package) -> Seen:
    seen = Seen()
    seen("none", lambda: list(p.api.nixl_agent("a", None).backends))
    seen("empty", lambda: list(p.agent("a", backends=[]).backends))
    seen("unknown backend", lambda: list(p.agent("a", backends=["NOPE"]).backends))
    seen("one of two", lambda: list(p.agent("a", backends=["NOPE", "UCX"]).backends))
    seen("not a config", lambda: p.api.nixl_agent("a", "b"))
    seen("threads", lambda: list(p.agent("a", num_threads=4).backends))
    seen("no progress thread", lambda: list(p.agent("a", enable_prog_thread=False).backends))
    seen("keyword", lambda: p.api.nixl_agent(agent_name="a").name)
    return seen


def case_plugins(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a", backends=[])
    seen("list", lambda: sorted(agent.get_plugin_list()))
    seen("mems", lambda: agent.get_plugin_mem_types("UCX"))
    seen("params", lambda: agent.get_plugin_params("UCX"))
    seen(
        "param types",
        lambda: all(
            type(k) is str and type(v) is str for k, v in agent.get_plugin_params("UCX").items()
        ),
    )
    for what in (
        "get_plugin_mem_types",
        "get_plugin_params",
        "get_backend_mem_types",
        "get_backend_params",
    ):
        seen(f"{what} unknown", lambda w=what: getattr(agent, w)("NOPE"))
    seen("backend mems before it is there", lambda: agent.get_backend_mem_types("UCX"))
    seen("backend params before it is there", lambda: agent.get_backend_params("UCX"))
    seen("create", lambda: agent.create_backend("UCX"))
    seen("backend mems", lambda: agent.get_backend_mem_types("UCX"))
    seen("backend params", lambda: agent.get_backend_params("UCX"))
    return seen


def case_create_backend(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a", backends=[])
    seen("none yet", lambda: agent.backends)
    seen("unknown", lambda: agent.create_backend("NOPE"))
    seen("empty name", lambda: agent.create_backend(""))
    seen("number", lambda: agent.create_backend(1))
    seen("params", lambda: agent.create_backend("UCX", {"num_threads": "2"}))
    seen("mems", lambda: agent.backend_mems)
    seen("twice", lambda: agent.create_backend("UCX"))
    other = p.agent("b", backends=[])
    seen("params of numbers", lambda: other.create_backend("UCX", {"num_threads": 2}))
    seen("unknown param", lambda: other.create_backend("UCX", {"no_such_thing": "2"}))
    third = p.agent("c", backends=[])
    seen("keyword", lambda: third.create_backend(backend="UCX", initParams={}))
    return seen


def case_without_backend(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a", backends=[])
    memory = p.memory()
    seen("register", lambda: agent.register_memory([(memory.address, 64, 0, "")], "DRAM"))
    seen("metadata", lambda: type(agent.get_agent_metadata()).__name__)
    seen("notifs", agent.get_new_notifs)
    seen("notify self", lambda: agent.send_notif("a", b"x"))
    seen("prepare", lambda: agent.prep_xfer_dlist("", memory.table((0, 64)), "DRAM"))
    return seen


def case_logging(p: Package) -> Seen:
    seen = Seen()
    logging = p.logging
    seen("logger", lambda: type(logging.get_logger("x.y")).__name__)
    seen("name", lambda: logging.get_logger("x.y").name)
    seen("same", lambda: logging.get_logger("x.y") is logging.get_logger("x.y"))
    seen("api logger", lambda: type(p.api.logger).__name__)
    return seen


def case_exports(p: Package) -> Seen:
    seen = Seen()
    seen("all", lambda: sorted(p.root.__all__))
    for name in ("DEFAULT_COMM_PORT", "nixl_backend_handle"):
        seen(name, lambda n=name: repr(getattr(p.api, n)))
        seen(f"root {name}", lambda n=name: repr(getattr(p.root, n)))
    for name in (
        "nixl_agent",
        "nixl_agent_config",
        "nixl_thread_sync_t",
        "nixl_xfer_handle",
        "nixl_prepped_dlist_handle",
    ):
        seen(name, lambda n=name: getattr(p.api, n) is getattr(p.root, n))
    seen("nixlBind", lambda: p.api.nixlBind is p.bindings)
    for name in ("_api", "_bindings", "_utils", "logging"):
        seen(f"module {name}", lambda n=name: type(getattr(p.root, n)).__name__)
    return seen
