"""``python -m rexport.device``, which is what ``python3 rexport-agent.pyz`` runs on the device."""

from __future__ import annotations

import sys

from .command_line import main

if __name__ == "__main__":
    sys.exit(main())
