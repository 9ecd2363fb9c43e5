"""The handlers, one module per section of the API reference. What they share is one folder up."""
