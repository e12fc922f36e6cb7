"""A team's own tables → ours: a mapping file says where columns are, ids are numbered, what is missing is derived."""

from recsys.ingest.mapping import Mapping, read_mapping

__all__ = ["Mapping", "read_mapping"]
