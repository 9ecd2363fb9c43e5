"""The asynchronous client's parts; `scaimind.async_client` puts them together."""
