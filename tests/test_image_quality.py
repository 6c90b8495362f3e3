"""Scores of reconstructed images against float64 references written from their definitions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d

from relrep_jax.experiments.image_quality import IMAGE_METRICS, ergas, psnr, ssim


def images(shape, noise=0.2, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.uniform(size=shape)
    return np.clip(target + rng.normal(scale=noise, size=shape), 0, 1), target


def reference_psnr(prediction, target):
    return 10 * np.log10(1 / np.mean((prediction - target) ** 2))


def reference_ssim(prediction, target):
    side = min(11, *target.shape[:2])
    side -= side % 2 == 0
    line = np.exp(-0.5 * ((np.arange(side) - side // 2) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2

    def mean(values):
        return convolve2d(values, window, mode="valid")

    found = []
    for x, y in zip(np.moveaxis(prediction, -1, 0), np.moveaxis(target, -1, 0), strict=True):
        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        near = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        found.append(np.mean(near * (2 * cov + 0.03**2) / (vx + vy + 0.03**2)))
    return np.mean(found)


def reference_ergas(prediction, target):
    errors = np.mean((prediction - target) ** 2, axis=(0, 1))
    return 25 * np.sqrt(np.mean(errors / np.mean(target, axis=(0, 1)) ** 2))


REFERENCES = {"psnr": reference_psnr, "ssim": reference_ssim, "ergas": reference_ergas}


def test_every_metric_has_a_reference():
    assert set(REFERENCES) == set(IMAGE_METRICS)


class Metrics(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_agree_with_the_references(self):
        for name, reference in REFERENCES.items():
            prediction, target = images((2, 32, 32, 3))
            ours = self.variant(IMAGE_METRICS[name])(jnp.float32(prediction), jnp.float32(target))
            theirs = [reference(*pair) for pair in zip(prediction, target, strict=True)]
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, err_msg=name)


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (2, 10, 14, 2), (2, 28, 28, 1)])
def test_windows_fit_small_images(shape):
    prediction, target = images(shape)
    ours = jax.jit(ssim)(jnp.float32(prediction), jnp.float32(target))
    theirs = [reference_ssim(*pair) for pair in zip(prediction, target, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_better_reconstructions_score_better(name):
    sign = -1 if name == "ergas" else 1
    scores = []
    for noise in (0.02, 0.1, 0.4):
        prediction, target = images((4, 16, 16, 3), noise)
        scores.append(sign * np.asarray(IMAGE_METRICS[name](prediction, target)))
    assert (scores[0] > scores[1]).all()
    assert (scores[1] > scores[2]).all()


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_vmap_over_predictions_scores_each_alone(name):
    target = images((3, 12, 12, 1))[1]
    predictions = np.stack([images((3, 12, 12, 1), seed=seed)[0] for seed in range(4)])
    score = jax.jit(IMAGE_METRICS[name])
    together = jax.jit(jax.vmap(score, in_axes=(0, None)))(predictions, target)
    alone = [score(prediction, target) for prediction in predictions]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5)


@pytest.mark.slow
def test_perfect_reconstructions():
    _, target = images((2, 12, 12, 1))
    np.testing.assert_allclose(ssim(target, target), 1, atol=1e-6)
    np.testing.assert_array_equal(ergas(target, target), 0)
    np.testing.assert_array_equal(psnr(target, target), 100)


def test_a_black_channel_has_a_finite_error():
    target = np.zeros((1, 12, 12, 3), np.float32)
    assert np.isfinite(ergas(target + 0.1, target)).all()
