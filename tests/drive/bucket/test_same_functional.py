"""What a drive in a folder promises a reader and a writer holds for one in a bucket, too."""

import pytest

pytest.importorskip("s3fs")

# Of those that the store has a part in: what a range or a path is, is read before.
from tests.drive.test_reading_functional import (
    tag,
    test_a_connection_serves_file_after_file,
    test_a_range_is_a_part,
    test_a_writer_says_what_it_expects,
    test_conditions_are_heeded_in_the_order_of_the_standard,
    test_of_writers_that_expect_the_same_one_succeeds,
)

__all__ = [
    "tag",
    "test_a_connection_serves_file_after_file",
    "test_a_range_is_a_part",
    "test_a_writer_says_what_it_expects",
    "test_conditions_are_heeded_in_the_order_of_the_standard",
    "test_of_writers_that_expect_the_same_one_succeeds",
]
