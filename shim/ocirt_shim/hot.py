"""What a shim itself runs, loaded before all else.

Python counts references in the objects, so to use one is to write to its page, which is then the shim's own. Loaded one after the
other these lie side by side, and not each in a page with much that only a worker uses.
"""

from __future__ import annotations

import ocirt_api.messages.shim
import ocirt_api.ttrpc  # noqa: F401
import ocirt_shim.execs
import ocirt_shim.shims  # noqa: F401
