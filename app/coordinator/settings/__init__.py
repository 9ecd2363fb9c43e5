"""The coordinator's settings: a TOML file and environment variables."""
