"""Tests of `app.drive.bucket` over HTTP, against moto's server in a process of its own."""
