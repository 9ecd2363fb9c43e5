"""Pictures of the console: `scripts/screenshots`."""
