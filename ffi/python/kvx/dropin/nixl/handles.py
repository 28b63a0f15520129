"""Handles of prepared lists and of transfers, as `nixl._api` has them."""

from __future__ import annotations

from kvx.dropin.nixl.agent import nixlAgent


class _Handle:
    """A number of an agent, released once at the latest when its last holder is gone."""

    __slots__ = ("__weakref__", "_agent", "_handle", "_released")

    def __init__(self, agent: nixlAgent, value: int) -> None:
        self._agent = agent
        self._handle = value
        self._released = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._handle:#x}, released={self._released})"

    def release(self) -> None:
        """Releases it; once more does nothing."""
        if not self._released:
            self._release()
            self._released = True

    def _release(self) -> None:
        raise NotImplementedError

    def __del__(self) -> None:
        # Without attributes if `__init__` was not come to.
        if not getattr(self, "_released", True):
            self._agent.abandon(self._handle)


class nixl_prepped_dlist_handle(_Handle):
    """A prepared list of one side."""

    __slots__ = ()

    def _release(self) -> None:
        self._agent.releasedDlistH(self._handle)


class nixl_xfer_handle(_Handle):
    """A transfer. When its last holder is gone it is given up, without waiting."""

    __slots__ = ()

    def _release(self) -> None:
        self._agent.releaseXferReq(self._handle)
