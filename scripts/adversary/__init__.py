"""Attacks the scheduler at random, and checks each decision by a model of its own."""
