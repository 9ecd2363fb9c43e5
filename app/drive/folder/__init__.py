"""The drive in a directory of this machine, which jobs write to as well."""
