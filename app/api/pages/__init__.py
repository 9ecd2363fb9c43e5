"""Pages for people, and the files that they load: the API reference and the console."""
