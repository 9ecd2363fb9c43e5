"""Training without a script: what runs it, in which environment, and what it may be told.

The training itself is `app/trainers`, a program of its own that is only copied here, never
imported. Belongs here: its environment, its copy for a job, and the schema of its
hyperparameters. Does not: what a submission is refused for besides.
"""
