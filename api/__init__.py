"""The HTTP face: app factory, routes, schemas, and the one place with status codes."""
