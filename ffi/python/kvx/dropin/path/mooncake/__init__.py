"""Stands before an installed mooncake: `mooncake.engine` is kvx's, everything else is looked for
there."""

from __future__ import annotations

from kvx.dropin.mooncake import installed

__path__ = installed.search_path(__path__)
__getattr__ = installed.attribute
