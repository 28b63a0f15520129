"""What stands behind the packages `nixl`, `nixl_cu12` and `nixl_cu13` of `kvx.dropin.path`.

`api` is what callers use, `bindings` the lower classes under it. Each agent is an engine of its
own. docs/compatibility.md lists where this differs from NIXL, and why.
"""
