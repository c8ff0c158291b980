import torch
import torch.nn.functional as F

from iadbe.layers.blocks.vq_autoencoder import ResidualStack, VQAutoencoder, published_tensors


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=source(seed))


def authors_file(width, codes):
    """Tensors with the names and shapes of the authors' pre-trained model, of random values."""
    half = width // 2
    shapes = {
        "_encoder_t._conv_1": (width, width, 4, 4),
        "_encoder_t._conv_2": (width, width, 3, 3),
        "_encoder_b._conv_1": (half, 3, 4, 4),
        "_encoder_b._conv_2": (width, half, 4, 4),
        "_encoder_b._conv_3": (width, width, 3, 3),
        "_pre_vq_conv_bot": (width, 2 * width, 1, 1),
        "_pre_vq_conv_top": (width, width, 1, 1),
        "_decoder_b._conv_1": (width, 2 * width, 3, 3),
        "_decoder_b._conv_trans_1": (width, half, 4, 4),
        "_decoder_b._conv_trans_2": (half, 3, 4, 4),
        "upsample_t": (width, width, 4, 4),
    }
    transposed = {"_decoder_b._conv_trans_1", "_decoder_b._conv_trans_2", "upsample_t"}
    state = {}
    for name, shape in shapes.items():
        state |= {f"{name}.weight": shape, f"{name}.bias": (shape[1 if name in transposed else 0],)}
    for part in ("_encoder_t", "_encoder_b", "_decoder_b"):
        for n in (0, 1):
            stack = f"{part}._residual_stack._layers.{n}._block"
            state |= {f"{stack}.1.weight": (half, width, 3, 3), f"{stack}.3.weight": (width, half, 1, 1)}
    for part in ("_vq_vae_top", "_vq_vae_bot"):
        state |= {f"{part}._embedding.weight": (codes, width), f"{part}._ema_w": (codes, width)}
        state[f"{part}._ema_cluster_size"] = (codes,)
    return {name: torch.randn(shape, generator=source(n)) / 4 for n, (name, shape) in enumerate(state.items())}


def test_the_authors_file_is_read_and_computes_what_their_network_computes():
    state = authors_file(8, 30)
    model = VQAutoencoder(8, 30)
    model.load_state_dict(published_tensors(state))
    image = drawn(2, 3, 16, 24)

    def conv(name, x, **options):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def doubled(name, x):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)

    def stack(name, x):
        for n in (0, 1):
            x = F.relu(x)  # in place, so that the shortcut sees it
            hidden = F.relu(F.conv2d(x, state[f"{name}._layers.{n}._block.1.weight"], padding=1))
            x = x + F.conv2d(hidden, state[f"{name}._layers.{n}._block.3.weight"])
        return F.relu(x)

    def quantised(name, x):
        codes = state[f"{name}._embedding.weight"]
        numbers = torch.cdist(x.permute(0, 2, 3, 1), codes).argmin(3)
        return codes[numbers].permute(0, 3, 1, 2)

    fine = F.relu(conv("_encoder_b._conv_1", image, stride=2, padding=1))
    fine = F.relu(conv("_encoder_b._conv_2", fine, stride=2, padding=1))
    fine = stack("_encoder_b._residual_stack", conv("_encoder_b._conv_3", fine, padding=1))
    coarse = F.relu(conv("_encoder_t._conv_1", fine, stride=2, padding=1))
    coarse = F.relu(conv("_encoder_t._conv_2", coarse, padding=1))
    coarse = stack("_encoder_t._residual_stack", coarse)
    coarse = quantised("_vq_vae_top", conv("_pre_vq_conv_top", coarse))
    up = doubled("upsample_t", coarse)
    fine = quantised("_vq_vae_bot", conv("_pre_vq_conv_bot", torch.cat([fine, up], 1)))
    x = conv("_decoder_b._conv_1", torch.cat([up, fine], 1), padding=1)
    x = F.relu(doubled("_decoder_b._conv_trans_1", stack("_decoder_b._residual_stack", x)))
    expected = doubled("_decoder_b._conv_trans_2", x)

    found_coarse, found_fine = model(image)
    torch.testing.assert_close(found_coarse, coarse)
    torch.testing.assert_close(found_fine, fine)
    torch.testing.assert_close(model.decoder(model.joined(found_coarse, found_fine)), expected)


def test_a_residual_stack_rectifies_the_shortcut():
    torch.manual_seed(0)
    stack, x = ResidualStack(4), torch.randn(1, 4, 3, 3, generator=source())
    for branch in stack.branches:
        x = F.relu(x) + branch(F.relu(x))
    torch.testing.assert_close(stack(torch.randn(1, 4, 3, 3, generator=source())), F.relu(x))


def test_the_loss_is_the_squared_error_and_both_commitments():
    torch.manual_seed(0)
    model = VQAutoencoder(4, 10)
    image = drawn(2, 3, 16, 16)
    model.loss(image, source())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = model.loss(image, source())
    assert not torch.equal(model.fine_codes.codes, before["fine_codes.codes"])
    model.load_state_dict(before)
    features = model.fine(image)
    raw_coarse = model.coarse_features(features)
    coarse = model.coarse_codes(raw_coarse)
    raw_fine = model.fine_features(features, coarse)
    fine = model.fine_codes(raw_fine)
    error = ((model.decoder(torch.cat([model.doubling(coarse), fine], 1)) - image) ** 2).mean()
    expected = error + 0.25 * ((raw_coarse - coarse) ** 2).mean() + 0.25 * ((raw_fine - fine) ** 2).mean()
    torch.testing.assert_close(found, expected)


def test_training_reconstructs():
    torch.manual_seed(0)
    model, image = VQAutoencoder(8, 32), drawn(4, 3, 1, 1).expand(4, 3, 16, 16)
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(image, source())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]
