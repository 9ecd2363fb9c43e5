"""What the routes of the drive share: paths in URLs, content that is sent and received.

Not here: anything that touches a disk (`app.drive`), and the handlers (`api.routes`).
"""
