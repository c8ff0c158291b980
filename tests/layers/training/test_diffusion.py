import math

import numpy as np
import pytest
import torch

from iadbe.layers.training.diffusion import (
    NoiseSchedule,
    discretised_log_likelihood,
    hybrid_loss,
    noise_like,
    sampled,
)

BETAS = [0.1, 0.2, 0.4]


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=source(seed))


def kept(t, betas=BETAS):
    """ᾱ, factor by factor; 1 before the first time."""
    return math.prod(1 - beta for beta in betas[: t + 1])


def slow_posterior(clean, x, t):
    """Mean and variance of q(x_{t-1} | x_t, x_0), by the rule for the product of two Gaussians."""
    beta, before = BETAS[t], kept(t - 1)
    if t == 0:
        return clean, 0.0
    precision = (1 - beta) / beta + 1 / (1 - before)  # of x_t given x_{t-1}, and of x_{t-1} given x_0
    mean = (math.sqrt(1 - beta) / beta * x + math.sqrt(before) / (1 - before) * clean) / precision
    return mean, 1 / precision


def test_the_linear_schedule_is_that_of_the_paper():
    schedule = NoiseSchedule()
    betas = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
    assert len(schedule) == 1000
    for t in (0, 1, 299, 999):
        assert schedule.kept[t] == pytest.approx(kept(t, betas))
    assert schedule.times.tolist() == list(range(1000))


def test_noise_is_added_step_by_step():
    """In one step as in many: the signal falls and the variances add up."""
    schedule, x = NoiseSchedule(np.array(BETAS)), drawn(3, 2, 4, 5)
    noise, t = drawn(3, 2, 4, 5, seed=1), torch.tensor([0, 1, 2])
    found = schedule.noised(x, t, noise)
    for b in range(3):
        signal, variance = 1.0, 0.0
        for beta in BETAS[: b + 1]:
            signal, variance = signal * math.sqrt(1 - beta), variance * (1 - beta) + beta
        torch.testing.assert_close(found[b], signal * x[b] + math.sqrt(variance) * noise[b])
        assert float(schedule.deviation(t, x)[b]) == pytest.approx(math.sqrt(variance))
    torch.testing.assert_close(schedule.denoised(found, t, noise), x)


def test_the_posterior_is_that_of_two_gaussians():
    schedule, clean, x = NoiseSchedule(np.array(BETAS)), drawn(3, 1, 2, 2), drawn(3, 1, 2, 2, seed=1)
    t = torch.tensor([0, 1, 2])
    found, least = schedule.posterior_mean(clean, x, t), schedule.log_variance(t, torch.full_like(x, -1.0))
    most = schedule.log_variance(t, torch.ones_like(x))
    for b in range(3):
        mean, variance = slow_posterior(clean[b], x[b], b)
        torch.testing.assert_close(found[b], torch.as_tensor(mean))
        variance = variance or slow_posterior(clean[1], x[1], 1)[1]  # 0 at first: the next one stands for it
        assert float(least[b, 0, 0, 0]) == pytest.approx(math.log(variance), rel=1e-5)
        assert float(most[b, 0, 0, 0]) == pytest.approx(math.log(BETAS[b]), rel=1e-5)
    between = schedule.log_variance(t, torch.zeros_like(x))
    torch.testing.assert_close(between, (least + most) / 2)


def test_a_spaced_schedule_has_the_signal_of_the_times_that_are_left():
    schedule = NoiseSchedule()
    spaced = schedule.spaced(20)
    assert spaced.times.tolist() == list(range(0, 1000, 50))
    np.testing.assert_allclose(spaced.kept, schedule.kept[::50])
    assert spaced.spaced(10).times.tolist() == list(range(0, 1000, 100))
    with pytest.raises(ValueError, match="equal distances"):
        schedule.spaced(999)


def test_the_likelihood_is_the_mass_of_a_grey_level():
    levels = torch.linspace(-1, 1, 256)
    normal = torch.distributions.Normal(torch.tensor(0.3, dtype=torch.float64), 0.2)
    edges = (levels[:-1].double() + levels[1:].double()) / 2
    cdf = torch.cat([torch.zeros(1), normal.cdf(edges), torch.ones(1)])
    expected = cdf.diff()
    found = discretised_log_likelihood(levels, torch.tensor(0.3), torch.tensor(math.log(0.2))).exp()
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-7)
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)


def test_the_hybrid_loss_is_the_error_of_the_noise_and_the_bound_in_bits():
    schedule = NoiseSchedule(np.array(BETAS))
    x, noise, t = drawn(3, 1, 2, 2).clamp(-1, 1), drawn(3, 1, 2, 2, seed=1), torch.tensor([0, 1, 2])
    output, told = 0.5 * drawn(3, 2, 2, 2, seed=2), []

    def network(noised, time):
        told.append(time)
        return output

    found = float(hybrid_loss(schedule, network, x, t, noise))
    assert told[0].tolist() == [0, 1, 2]
    whole = 0.0
    for b in range(3):
        for i in range(2):
            for j in range(2):
                clean, predicted, share = float(x[b, 0, i, j]), float(output[b, 0, i, j]), float(output[b, 1, i, j])
                signal = kept(b)
                noised = math.sqrt(signal) * clean + math.sqrt(1 - signal) * float(noise[b, 0, i, j])
                estimate = (noised - math.sqrt(1 - signal) * predicted) / math.sqrt(signal)
                mean, _ = slow_posterior(estimate, noised, b)
                truth, variance = slow_posterior(clean, noised, b)
                least = variance or slow_posterior(0, 0, 1)[1]
                own = math.exp((share + 1) / 2 * math.log(BETAS[b]) + (1 - share) / 2 * math.log(least))
                if b == 0:
                    mass = discretised_log_likelihood(
                        torch.tensor(clean), torch.tensor(mean), torch.tensor(0.5 * math.log(own))
                    )
                    bound = -float(mass)
                else:
                    bound = 0.5 * (math.log(own / least) + (least + (truth - mean) ** 2) / own - 1)
                whole += (predicted - float(noise[b, 0, i, j])) ** 2 + bound / math.log(2)
    assert found == pytest.approx(whole / 12, rel=1e-4)


def test_the_bound_trains_the_variance_alone():
    schedule, x = NoiseSchedule(np.array(BETAS)), drawn(2, 1, 2, 2).clamp(-1, 1)
    noise, t = drawn(2, 1, 2, 2, seed=1), torch.tensor([1, 2])
    output = drawn(2, 2, 2, 2, seed=2).requires_grad_()
    hybrid_loss(schedule, lambda noised, time: output, x, t, noise).backward()
    torch.testing.assert_close(output.grad[:, :1], 2 * (output[:, :1].detach() - noise) / noise.numel())
    assert (output.grad[:, 1:] != 0).all()


def test_sampling_goes_back_through_all_times_with_the_variance_times_one_plus_s():
    schedule, start, told = NoiseSchedule(np.array(BETAS)), drawn(2, 1, 2, 2), []

    def network(x, time):
        told.append(time.tolist())
        return torch.cat([0.3 * x, torch.full_like(x, 0.5)], 1)

    found, generator, x = sampled(schedule, network, start, source(3), 0.2), source(3), start
    for t in (2, 1, 0):
        clean = ((x - math.sqrt(1 - kept(t)) * 0.3 * x) / math.sqrt(kept(t))).clamp(-1, 1)
        mean, variance = slow_posterior(clean, x, t)
        x = mean
        if t:
            log_variance = 0.75 * math.log(BETAS[t]) + 0.25 * math.log(variance)
            x = mean + math.sqrt(1.2 * math.exp(log_variance)) * torch.randn(2, 1, 2, 2, generator=generator)
    torch.testing.assert_close(found, x)
    assert told == [[2, 2], [1, 1], [0, 0]]


def test_with_the_true_noise_of_one_image_its_samples_are_that_image():
    image, schedule = drawn(1, 1, 4, 4).clamp(-1, 1), NoiseSchedule()

    def network(x, time):
        left = torch.from_numpy(schedule.kept)[time].float().view(-1, 1, 1, 1)
        return torch.cat([(x - left.sqrt() * image) / (1 - left).sqrt(), torch.zeros_like(x)], 1)

    found = sampled(schedule.spaced(20), network, drawn(3, 1, 4, 4, seed=1), source())
    torch.testing.assert_close(found, image.expand_as(found), rtol=1e-3, atol=1e-3)


def test_noise_follows_from_its_generator():
    x = torch.zeros(2, 3, 4, 4)
    assert torch.equal(noise_like(x, source(1)), noise_like(x, source(1)))
    assert not torch.equal(noise_like(x, source(1)), noise_like(x, source(2)))
