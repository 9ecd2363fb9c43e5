"""What `GET /version` answers."""

from marshmallow import Schema, fields, validate


class VersionAnswer(Schema):
    """Which gateway this is."""

    name = fields.String(required=True, validate=validate.Equal("scaimind-gateway"))
    version = fields.String(
        required=True, metadata={"description": "The release, as in the changelog."}
    )
    commit = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The commit that it was built from; null if that is not known."},
    )
    contract = fields.String(
        required=True,
        metadata={"description": "The version of the contract with the coordinator."},
    )


VERSION_ANSWER = VersionAnswer()
