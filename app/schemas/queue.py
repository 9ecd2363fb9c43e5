"""Query of the queue endpoint."""

from app.schemas.fields import Text
from app.schemas.jobs import PageQuery


class QueueQuery(PageQuery):
    """`GET /queue`."""

    queue_name = Text("Empty means all queues.", most=256, load_default="")


QUEUE_QUERY = QueueQuery()
