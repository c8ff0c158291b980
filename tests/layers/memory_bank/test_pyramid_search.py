import torch

from iadbe.layers.features.patches import concatenated
from iadbe.layers.memory_bank.pyramid_search import FeaturePyramid, nearer


def test_layers_that_do_not_fit_into_tiles_are_enlarged():
    def random_layers(sizes, seed):
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(5 + n, *size, generator=generator) for n, size in enumerate(sizes)]

    for sizes in ([(12, 8), (5, 3)], [(12, 8), (6, 4), (4, 8)], [(12, 8), (12, 8), (3, 4)], [(9, 7), (5, 4), (3, 2)]):
        query, normal = (FeaturePyramid(random_layers(sizes, seed)) for seed in (0, 1))
        a, b = (concatenated([x[None] for x in random_layers(sizes, seed)])[0].flatten(1).T for seed in (0, 1))
        best = nearer(torch.full_like(query.fine[..., 0], torch.inf), query, normal)
        expected = torch.cdist(a.double(), b.double()).amin(1).view(sizes[0])
        torch.testing.assert_close(query.untiled(best.sqrt()), expected.float(), rtol=1e-4, atol=1e-4)
