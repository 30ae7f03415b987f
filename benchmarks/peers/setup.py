"""Installs the other clients from PyPI, each in a virtual environment of its own: they agree on no versions.

    python -m benchmarks.peers.setup FOLDER [aiohttp-httpx] [aiperf] [guidellm]

About 1.2 GB for AIPerf and 1.5 GB for GuideLLM with a torch for CPUs; several times that where pip chooses a
torch for GPUs. Then: python -m benchmarks --peers --peer-venv FOLDER/aiperf --peer-venv FOLDER/guidellm ...
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "aiohttp-httpx": (("aiohttp==3.14.5", "httpx==0.28.1"),),
    "aiperf": (("aiperf==0.13.0",),),
    # torch first and by itself, so that the one chosen here stays
    "guidellm": (("torch==2.13.0",), ("guidellm==0.8.1",)),
}


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("clients", nargs="*", help=f"of {', '.join(PACKAGES)} (all)")
    arguments = parser.parse_args()
    unknown = set(arguments.clients) - set(PACKAGES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PACKAGES)}")
    for name in arguments.clients or PACKAGES:
        venv = arguments.folder / name
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        for packages in PACKAGES[name]:
            subprocess.run([str(venv / "bin" / "pip"), "install", "-q", *packages], check=True)


if __name__ == "__main__":
    main()
