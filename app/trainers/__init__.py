"""The training program of jobs without a script of their own: it runs inside the job's process.

It runs in an environment of its own (torch, transformers, trl) under the name
`scaimind_trainers`, with the variables, directories and signals that docs/training-scripts.md
promises to every script. So its modules import each other relatively, nothing else of this
project, and torch only where they need it: what checks a job runs without.

`main` puts a run together. What a kind of training needs of its own is a module in `types`,
what a framework needs one in `frameworks`; both tables are in the rooms' `__init__`.
"""
