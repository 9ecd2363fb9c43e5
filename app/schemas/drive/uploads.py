"""Headers of resumable uploads, for the API's document: `app.api.drive.tus` reads them."""

from app.schemas.fields import Text
from app.schemas.loading import Headers


class UploadHeaders(Headers):
    """Of every request for an upload."""

    tus_resumable = Text("1.0.0", data_key="Tus-Resumable", load_default="")


class CreateUploadHeaders(UploadHeaders):
    """`POST /v1/drive-uploads/`."""

    upload_length = Text(
        "Bytes of the file. Without it, send `Upload-Defer-Length: 1`.",
        data_key="Upload-Length",
        load_default="",
    )
    upload_defer_length = Text(
        "1: the length is sent later.", data_key="Upload-Defer-Length", load_default=""
    )
    upload_metadata = Text(
        "Pairs of a name and a value in base64, separated by commas. `path` is where the file"
        " goes.",
        most=16 * 1024,
        data_key="Upload-Metadata",
        load_default="",
    )


class WriteUploadHeaders(UploadHeaders):
    """`PATCH /v1/drive-uploads/{upload_id}`."""

    upload_offset = Text("Bytes that have come.", data_key="Upload-Offset", load_default="")
    upload_length = Text(
        "Bytes of the file, if they were not known.", data_key="Upload-Length", load_default=""
    )
    upload_checksum = Text(
        "Algorithm (`sha1`, `sha256` or `sha512`) and digest of the body in base64.",
        data_key="Upload-Checksum",
        load_default="",
    )


UPLOAD_HEADERS = UploadHeaders()
CREATE_UPLOAD_HEADERS = CreateUploadHeaders()
WRITE_UPLOAD_HEADERS = WriteUploadHeaders()
