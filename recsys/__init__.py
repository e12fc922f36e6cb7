"""Places to go, and people to go with: a feature-store-backed online recommender."""
