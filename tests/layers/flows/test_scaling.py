import torch

from iadbe.layers.flows.scaling import ChannelAffine, Standardisation, fit_standardisation


def test_the_affine_layer_starts_as_the_identity():
    x = torch.randn(2, 5, 3, 4)
    z, log_det = ChannelAffine(5)(x)
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(log_det, torch.zeros(2, 3, 4), atol=1e-5, rtol=0)


def test_standardisation_is_measured_over_all_batches():
    x = [torch.randn(12, 3, 4, 4) * torch.tensor([5.0, 0.3, 0.0])[:, None, None] + 2, torch.randn(12, 2, 2, 2)]
    layers = [Standardisation(3), Standardisation(2)]
    fit_standardisation(layers, ([layer[i : i + 5] for layer in x] for i in (0, 5, 10)))
    for standard, features in zip(layers, x, strict=True):
        flat = features.transpose(0, 1).flatten(1)
        torch.testing.assert_close(standard.mean, flat.mean(1))
        variance = flat.var(1, correction=0)
        torch.testing.assert_close(standard.deviation, (variance + 0.01 * variance.mean()).sqrt())
        assert torch.isfinite(standard(features)[0]).all()
        assert not list(standard.parameters())
