"""What a coordinator must hold before it acts: its data directory, and the lead.

Not here: what it does then.
"""
