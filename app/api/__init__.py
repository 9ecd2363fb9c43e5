"""HTTP: access, envelope, headers, middlewares; the handlers are in `routes`."""
