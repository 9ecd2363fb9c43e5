"""HTTP: access, envelope, headers, middlewares; the handlers are in `routes`.

What all routes share stays in one room: bodies and answers, access, and the streams' way
out of the HTTP server. Not here: what a body may be (`schemas`), and how the application is put
together (`gateway`).
"""
