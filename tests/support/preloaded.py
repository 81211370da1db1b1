"""What the server of `processes.py` imports once for all the processes that are forks of it. Of no use elsewhere."""

from __future__ import annotations

import atexit
import os

from lightning_gcam import callbacks, cli, evaluation
from tests.support import modules, toys

__all__ = ["callbacks", "cli", "evaluation", "modules", "toys"]

# The server has nothing to tidy up; libraries would only report at length what they still hold.
atexit.register(os._exit, 0)
