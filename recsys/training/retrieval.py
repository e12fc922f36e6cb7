"""What retrieval costs: of the places that the head likes best among all of a city's, how many are candidates."""

import torch

from recsys.models.backbone import Embeddings
from recsys.models.model import RecModel
from recsys.models.ranker import Ranker
from recsys.training.evaluation import place_scores
from recsys.training.inputs import Prepared

_BLOCK = 8  # users whose whole city goes through the head at once


@torch.inference_mode()
def exact_recall(
    model: RecModel,
    prepared: Prepared,
    embeddings: Embeddings,
    *,
    k: int = 10,
    candidates: int = 200,
    users: int = 512,
    seed: int = 0,
) -> float | None:
    """Share of the head's own top k over all places of the home city that is among its candidates.

    Args:
        model: in eval mode.
        prepared, embeddings: a snapshot, and vectors as of it.
        k: length of the list.
        candidates: how many places retrieval hands to the head.
        users: a random sample of so many, of those whose home city has more places than there are candidates.
        seed: of the sample.

    Returns:
        A mean over users, or None where no city is so large.
    """
    ranker, sizes = Ranker(model.config, model.heads), prepared.places.sizes()
    eligible = (sizes[prepared.users.city] > candidates).nonzero()[:, 0]
    drawn = eligible[torch.randperm(len(eligible), generator=torch.Generator().manual_seed(seed))[:users]]
    found = []
    for city in torch.unique(prepared.users.city[drawn]).tolist():
        for block in torch.split(drawn[prepared.users.city[drawn] == city], _BLOCK):
            near, _ = place_scores(ranker, embeddings, prepared, block, city, candidates)
            every, scores = place_scores(ranker, embeddings, prepared, block, city, int(sizes[city]))
            best = every.gather(1, scores.topk(min(k, scores.shape[1]), dim=1).indices)
            found.append((best[:, :, None] == near[:, None]).any(dim=2).float().mean(dim=1))
    return float(torch.cat(found).mean()) if found else None
