"""The console: one page for those who train and those who run the cluster.

Plain ES modules without a build step, in `static/`; `static/vendor/` holds the libraries
as npm has them (`scripts/vendor-console`). The page uses the public API alone. Not here:
its routes (`api.pages.console`) and its sign-in (`auth.console_sessions`).
"""
