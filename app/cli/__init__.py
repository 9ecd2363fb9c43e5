"""The server's commands, one module a subject. No logic of the services lives here."""
