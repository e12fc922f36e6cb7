"""One request, start to finish: places, people, explanations, policy."""
