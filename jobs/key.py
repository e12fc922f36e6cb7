"""A new API key: its secret goes to the screen, and nowhere else."""

from rich.console import Console

from api.keys import make


def run(name: str, *, operator: bool) -> None:
    """Print a secret, and the entry to configure.

    Args:
        name: what the log calls it.
        operator: it may operate too.

    Raises:
        ConfigError: the name cannot be one.
    """
    secret, key = make(name, operator=operator)
    print(f"secret {secret}\nentry  {key.entry}")  # plain, on standard output: to be cut by a script
    Console(stderr=True).print(
        "The secret is not shown again: requests send it as X-API-Key. The entry goes into RECSYS_API_KEYS (several: "
        "with commas between), or into a line of the file that RECSYS_API_KEYS_FILE names; then start the API again."
    )
