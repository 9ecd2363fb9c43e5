"""The API's description, built from what the handlers declare, and the errors' reference.

Not here: the declarations (`api.endpoint`) and the page's routes (`api.routes`).
"""
