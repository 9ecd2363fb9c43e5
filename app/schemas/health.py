"""What the endpoints for operators answer."""

from marshmallow import Schema, fields, validate


class AliveAnswer(Schema):
    """`GET /health`."""

    status = fields.String(required=True, validate=validate.Equal("alive"))


class DependencyAnswer(Schema):
    """State of a dependency."""

    status = fields.String(
        required=True, validate=validate.OneOf(("ok", "failed", "not_configured"))
    )
    message = fields.String(metadata={"description": "The problem, if there is one."})
    required = fields.Boolean(
        required=True,
        metadata={"description": "Whether the gateway is unready while this dependency fails."},
    )


class ReadyAnswer(Schema):
    """`GET /health/ready`."""

    status = fields.String(required=True, validate=validate.OneOf(("ready", "unready")))
    dependencies = fields.Dict(
        keys=fields.String(), values=fields.Nested(DependencyAnswer), required=True
    )


ALIVE_ANSWER = AliveAnswer()
READY_ANSWER = ReadyAnswer()
