"""The whole model: backbone, heads, and the temperatures of its retrieval losses."""

from torch import Tensor, nn

from recsys.models.backbone import Backbone, Embeddings, GraphInputs
from recsys.models.config import ModelConfig
from recsys.models.heads import Heads
from recsys.models.losses import Temperature


def combined_score(compat: Tensor, attend: Tensor, alpha: float = 0.7) -> Tensor:
    """What people are ranked by: alpha × compat + (1 - alpha) × attend, both probabilities (seed, section 4.4)."""
    return alpha * compat + (1 - alpha) * attend


class RecModel(nn.Module):
    """Heterogeneous GNN with a place head and a friend head.

    Attributes:
        config: its sizes.
        backbone: graph → unit vectors.
        heads: vectors, context and online features → logits.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.heads = Heads(config)
        self.place_temperature = Temperature()
        self.people_temperature = Temperature()

    def forward(self, graph: GraphInputs) -> Embeddings:
        """One full-graph pass."""
        out: Embeddings = self.backbone(graph)
        return out
