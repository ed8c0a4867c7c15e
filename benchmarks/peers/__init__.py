"""rexport beside the other tools that make INT8 files or simplify graphs, each in an environment of its own.

    python -m benchmarks.peers --data PICTURES --environments DIR --files DIR --json benchmarks/results/peers.json

run in the repository, whose installed package it measures; this folder is not packaged. What is compared and how is in
docs/peers.md.
"""

from __future__ import annotations
