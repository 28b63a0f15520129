"""The lower classes of NIXL's Python API, served by kvx."""

import sys

from kvx.dropin.nixl import bindings

# One module, by whichever name it is imported.
sys.modules[__name__] = bindings
