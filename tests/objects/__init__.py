"""Tests of `app.objects`, against moto's server in a process of its own."""
