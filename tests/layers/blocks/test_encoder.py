import pytest
import torch

from iadbe.layers.blocks.encoder import Encoder, halved
from iadbe.networks.timm_loader import load_timm


def image(side, count=2):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def made(seed, *given):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(*given).eval()


@pytest.mark.parametrize(
    ("name", "channels", "stride"), [("resnet10t", 512, 32), ("vit_tiny_patch16_224", 192, 16), ("resnet18", 512, 32)]
)
def test_without_weights_torchs_generator_draws_them(name, channels, stride):
    one, two, other = (made(seed, name, "none") for seed in (0, 0, 1))
    found = one(image(64))
    assert (one.channels, one.stride) == (channels, stride)
    assert found.shape == (2, channels, 64 // stride, 64 // stride)
    assert torch.equal(found, two(image(64)))
    assert not torch.allclose(found, other(image(64)), atol=1e-3)
    assert "random" in one.description


def test_pretrained_features_are_those_of_the_network():
    encoder = made(0, "tf_efficientnet_lite0.in1k", "auto")
    whole = load_timm().create_model("tf_efficientnet_lite0", num_classes=0).eval()
    whole.load_state_dict(encoder.network.state_dict(), strict=False)
    x = image(64)
    expected = whole.forward_intermediates((x - 0.5) / 0.5, intermediates_only=True)[-1]
    torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(encoder(x), made(7, "tf_efficientnet_lite0.in1k", "auto")(x))
    assert "trained further" in encoder.description
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_transformers_features_are_its_normalised_patch_tokens():
    encoder = made(0, "vit_tiny_patch16_224", "none")
    x = image(48)
    tokens = encoder.network.forward_features((x - encoder.mean) / encoder.std)[:, 1:]
    torch.testing.assert_close(encoder(x).flatten(2).mT, tokens)
    assert encoder(image(50)).shape[-2:] == (3, 3)


def test_an_embedding_is_the_class_token_or_the_mean_of_positions():
    encoder = made(0, "vit_tiny_patch16_224", "none")
    x = image(48)
    whole = encoder.network.forward_features((x - encoder.mean) / encoder.std)
    torch.testing.assert_close(encoder.embedding(x), whole[:, 0])
    shorter = made(0, "vit_tiny_patch16_224", "none", (3,))
    assert shorter.embedding(x).shape == (2, 192)
    assert not torch.allclose(shorter.embedding(x), whole[:, 0], atol=1e-3)
    convolutional = made(0, "resnet10t", "none", (1,))
    torch.testing.assert_close(convolutional.embedding(x), convolutional(x).mean((2, 3)))


def test_the_description_is_saved_with_the_tensors():
    encoder, other = made(0, "resnet10t", "none"), made(0, "resnet10t", "none")
    text = "resnet10t: 0123 from a file".ljust(len(other.source))
    encoder.source = torch.tensor(list(text.encode()), dtype=torch.uint8)
    other.load_state_dict(encoder.state_dict())
    assert other.description == text


def test_a_pyramid_has_a_map_per_layer():
    encoder = made(0, "resnet10t", "none", (0, 1, 3))
    found = encoder.pyramid(image(64))
    assert encoder.pyramid_channels == tuple(f.shape[1] for f in found) == (64, 64, 256)
    assert [f.shape[-1] for f in found] == [32, 16, 4]
    assert (encoder.channels, encoder.stride) == (256, 16)
    assert torch.equal(encoder(image(64)), found[-1])


def test_halving_is_repeated():
    x = torch.rand(1, 3, 8, 12)
    assert halved(x, 0) is x
    assert halved(x, 2).shape == (1, 3, 2, 3)
    assert float(halved(torch.full((1, 3, 9, 9), 0.25), 1).std()) < 1e-6
