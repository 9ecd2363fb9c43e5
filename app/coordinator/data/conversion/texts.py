"""Arrays of text as the metadata of safetensors, which has texts alone, and back."""

import json
from typing import Any

from app.coordinator.data.conversion.errors import CannotConvert
from app.shortening import quoted


def text_of(array: Any) -> str:
    """Return the text that stands for an array of text: JSON, or a single text as it is.

    Raises CannotConvert if the array does not come back from it.
    """
    value = array.tolist()
    told = json.dumps(value)
    if isinstance(value, str) and _as_it_is(value):
        told = value
    back = array_of(told)
    if back.shape != array.shape or back.tolist() != value:
        raise CannotConvert("its texts cannot be kept in safetensors; save them in another file")
    return told


def array_of(text: str) -> Any:
    """Return the array that a text of the metadata stands for.

    JSON of a text, or of lists of texts, is what `text_of` makes; any other
    text is somebody else's, such as `pt` under `format`, and is kept as it is.
    """
    import numpy as np

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    shape = _shape(value)
    if shape is None:
        value, shape = text, ()
    array = np.array(value, dtype=np.str_)
    if array.shape != shape or array.tolist() != value:
        raise CannotConvert(f"its metadata {quoted(text)} cannot be kept in an array of text")
    return array


def _as_it_is(text: str) -> bool:
    """Whether a text can stand for itself: it is UTF-8, and not JSON of ours."""
    try:
        text.encode()
        value = json.loads(text)
    except UnicodeEncodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return _shape(value) is None


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of lists of texts; None for everything else."""
    if isinstance(value, str):
        return ()
    if not isinstance(value, list):
        return None
    shapes = {_shape(each) for each in value}
    if len(shapes) > 1 or None in shapes:
        return None
    (inner,) = shapes or {()}
    return None if inner is None else (len(value), *inner)
