"""The platform's envelope around an error."""

from marshmallow import Schema, fields, validate


class FieldProblemSchema(Schema):
    """What is wrong with one field."""

    field = fields.String(
        required=True,
        metadata={"description": "Path of the field, such as data_config.sources.0.path."},
    )
    message = fields.String(required=True)


class ErrorBodySchema(Schema):
    """What went wrong."""

    code = fields.String(required=True, metadata={"description": "Stable code to branch on."})
    message = fields.String(required=True, metadata={"description": "For people."})
    details = fields.List(
        fields.Nested(FieldProblemSchema),
        metadata={"description": "On VALIDATION_ERROR and INVALID_ARGUMENT."},
    )
    retry_after = fields.Integer(
        metadata={"description": "Seconds to wait; present only if waiting helps."},
        validate=validate.Range(0),
    )


class ErrorMetaSchema(Schema):
    """About the request."""

    request_id = fields.String(
        required=True, metadata={"description": "Id of the request in the log."}
    )


class ErrorEnvelopeSchema(Schema):
    """The answer to every request that fails."""

    status = fields.String(required=True, validate=validate.Equal("error"))
    error = fields.Nested(ErrorBodySchema, required=True)
    meta = fields.Nested(ErrorMetaSchema, required=True)


ERROR_ENVELOPE = ErrorEnvelopeSchema()
