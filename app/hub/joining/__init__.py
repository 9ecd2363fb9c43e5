"""Where a watcher begins: by a tail, or behind the id that it sends back."""
