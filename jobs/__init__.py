"""One module a job, thin; `cli` is the `recsys` command."""
