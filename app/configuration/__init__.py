"""The settings kit of all programs: sections, parsing, the reference page.

Not here: any setting. Each room owns its section.
"""
