"""`python -m jobs` is `recsys`."""

from jobs.cli import main

main()
