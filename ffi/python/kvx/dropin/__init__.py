"""Drop-ins: packages of the names that other transfer engines have, served by kvx.

They lie in a folder of their own, which no import finds unless someone asks for it: by
`KVX_DROP_IN=nixl,mooncake` in the environment, or by the folder on `PYTHONPATH`. `python -m
kvx.dropin` prints the folder and what would be imported from where.
"""

from __future__ import annotations

import os

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "path")
"""What goes on `PYTHONPATH`, before the folders of installed packages."""
