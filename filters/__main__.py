"""`python -m filters`, and where the command `finesieve` begins: Ctrl-C is answered before the heavy imports, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; see `filters.cli.main.main`."""
    try:
        from filters.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("finesieve: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
