"""The gateway put together: settings, components, routes, HTTP server.

No feature lives here.
"""
