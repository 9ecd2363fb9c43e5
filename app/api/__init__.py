"""HTTP: route tables by section of the API reference, the envelope, the middlewares."""
