"""How long a line is on its way to a watcher: `python -m scripts.bench.live_lines`."""
