"""HTTP: access, envelope, headers, middlewares; the handlers are in `routes`.

Not here: what a body may be (`schemas`), and how the application is put together (`gateway`).
"""
