"""Memory by its address, for examples and tests."""

import sys

from kvx.dropin.nixl import raw_memory

# One module, by whichever name it is imported.
sys.modules[__name__] = raw_memory
