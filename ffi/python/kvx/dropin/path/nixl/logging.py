"""The logger `nixl`."""

import sys

from kvx.dropin.nixl import log

# One module, by whichever name it is imported.
sys.modules[__name__] = log
