"""The stages between a commit and production that need the project: train, gate, deploy, smoke, promote, compare.

Belongs here: what a stage does and what it leaves for the next one. Does not belong here: arguments
(``cli/pipeline.py``), what a job of the lifecycle does (``assets/lifecycle``), the commands of the providers
(``Makefile``).

    build/home/        the state folder of the pipeline, apart from that of the checkout
    build/state/       what travels between stages: a record of each stage, and the packed state folder
    build/releases/    one folder per model that the gate passed: the version, its evidence, and their hashes
    build/reports/     what people read: JUnit, coverage, evaluations, model cards, comparison
"""
