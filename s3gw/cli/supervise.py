"""`python -S -m s3gw.cli.supervise --fd N …`: the supervisor, once everything is prepared (handover.py).

It stays for as long as the server runs and does next to nothing, so what it holds counts: 10 MiB instead of 35 without
installed packages, what site does for them (-S), and OpenSSL, which asyncio loads where it can. What follows --fd N is
for whoever looks at the processes.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, cast

TLS_VARIABLE = "FROSTBYTE_SUPERVISES_TLS"
"""set where a question over TLS has to be asked"""


def main() -> int:
    """→ the exit status."""
    if TLS_VARIABLE not in os.environ:
        cast(dict[str, Any], sys.modules)["ssl"] = None  # an import of it fails, which asyncio is prepared for
    return int(importlib.import_module("s3gw.cli.handover").resume(int(sys.argv[2])))


if __name__ == "__main__":
    sys.exit(main())
