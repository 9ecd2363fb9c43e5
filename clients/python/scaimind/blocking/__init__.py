"""The blocking client's parts; `scaimind.client` puts them together."""
