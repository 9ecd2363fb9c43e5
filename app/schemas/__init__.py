"""What a body or a query string may be, by section of the API reference.

Each schema is made once (`SUBMIT_JOB_BODY`, `LOGS_QUERY`); `load_body` and
`load_query` of `app.schemas.loading` apply one.
"""
