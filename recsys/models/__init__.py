"""The graph network: encoders, sparse layer, backbone, heads, losses, and its serving side."""
