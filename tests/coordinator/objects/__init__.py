"""Tests of `app.coordinator.storage.objects`, against moto's server in a process of its own."""
