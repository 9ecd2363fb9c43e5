"""Files and folders: queries and answers."""

from marshmallow import Schema, fields

from app.schemas.fields import Choice, QueryFlag, QueryWhole, Text, Time, Whole
from app.schemas.loading import Query

_URI = "`scaidrive://<tenant>/<path>`, as a submission names it."
_TAG = "As the header `ETag` has it; of a file alone."


class DriveQuery(Query):
    """`GET /v1/drive/{path}`. The page is of a folder; the other arguments are of a file."""

    page_size = QueryWhole(
        "Maximum number of entries on a page.", least=1, most=1000, load_default=200
    )
    page_token = Text("next_page_token of the previous page.", most=2048, load_default="")
    inline = QueryFlag(
        "Show images, JSON and plain text in a browser instead of saving them.", load_default=False
    )
    ticket = Text("A ticket of kind `drive` for this path.", most=1024, load_default="")


class DeleteFileQuery(Query):
    """`DELETE /v1/drive/{path}`."""

    recursive = QueryFlag("Whether a folder goes with all that is in it.", load_default=False)


class FolderEntry(Schema):
    """A file, a folder or something else in a folder."""

    name = Text(
        "Name; bytes that are not UTF-8 are escaped as `\\xff`, and it is not addressable then.",
        required=True,
    )
    kind = Choice("What it is.", ("file", "folder", "link", "special"), required=True)
    size_bytes = Whole("Size of a file.", most=2**63 - 1, required=True, allow_none=True)
    modified_at = Time("Time of the last change.", required=True, allow_none=True)
    etag = Text(_TAG, required=True, allow_none=True)
    addressable = fields.Boolean(
        required=True, metadata={"description": "Whether a path can name it."}
    )


class Folder(Schema):
    """A page of a folder."""

    path = Text("Path of the folder; empty for the tenant's own.", required=True)
    uri = Text(_URI, required=True)
    entries = fields.List(
        fields.Nested(FolderEntry),
        required=True,
        metadata={
            "description": "By the bytes of their names; in a store, a folder's with a slash."
        },
    )
    next_page_token = Text("Empty on the last page.", required=True)


class StoredFile(Schema):
    """A file that was stored."""

    path = Text("Path of the file.", required=True)
    uri = Text(_URI, required=True)
    size_bytes = Whole("Size.", most=2**63 - 1, required=True)
    modified_at = Time("Time of the last change.", required=True, allow_none=True)
    etag = Text(_TAG, required=True)


DRIVE_QUERY = DriveQuery()
DELETE_FILE_QUERY = DeleteFileQuery()
FOLDER = Folder()
STORED_FILE = StoredFile()
