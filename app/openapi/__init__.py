"""The API's description of itself, made of what its handlers declare."""
