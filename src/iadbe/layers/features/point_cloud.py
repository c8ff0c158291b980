"""What lies in front of the ground in an organised point cloud: without the plane at the image's border, one object.

Paper: Horwitz & Hoshen, "Back to the Feature", CVPR workshops 2023, 2203.05550, section 3 (pre-processing); Fischler &
    Bolles, "Random sample consensus", 1981. Clouds are (3, H, W), x, y and z of each pixel, nan where nothing was
    measured.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

BORDER = 10  # pixels at each side of the image in which the plane is sought


def border_plane(points: Tensor, draws: Tensor, tolerance: float) -> Tensor | None:
    """Return (a, b, c, d) with unit (a, b, c) of the plane ax + by + cz + d = 0 in the border, by RANSAC.

    Args:
        points: cloud (3, H, W)
        draws: uniform numbers in [0, 1), (trials, n): each trial fits a plane to n points by least squares
        tolerance: distance within which a point agrees with a plane; the one with most of them is fitted to these

    Returns None if fewer than three points of the border were measured.
    """
    if points.device.type == "mps":  # which has no float64
        found = border_plane(points.cpu(), draws, tolerance)
        return None if found is None else found.float().to(points.device)
    border = torch.ones(points.shape[1:], dtype=torch.bool, device=points.device)
    height, width = (min(BORDER, (side - 1) // 2) for side in border.shape)
    border[height : border.shape[0] - height, width : border.shape[1] - width] = False
    found = points[:, border].T.double()
    found = found[found.isfinite().all(1)]
    if len(found) < 3:
        return None
    chosen = found[(draws.to(points.device).double() * len(found)).long().clamp_max_(len(found) - 1)]  # (trials, n, 3)
    planes = fitted_planes(chosen)
    agree = ((planes[:, :3] @ found.T + planes[:, 3:]).abs() < tolerance).sum(1)
    best = planes[agree.argmax()]
    near = (found @ best[:3] + best[3]).abs() < tolerance
    return fitted_planes(found[near][None])[0] if int(near.sum()) >= 3 else best


def fitted_planes(points: Tensor) -> Tensor:
    """Return the planes (T, 4), with unit normals, that fit points (T, n, 3) best by orthogonal distance."""
    middle = points.mean(1)
    local = points - middle[:, None]
    normal = torch.linalg.eigh(local.mT @ local)[1][:, :, 0]
    return torch.cat([normal, -(normal * middle).sum(1, keepdim=True)], 1)


def plane_distance(points: Tensor, plane: Tensor) -> Tensor:
    """Return the distance (H, W) of every point of a cloud (3, H, W) from a plane, nan where nothing was measured."""
    flat = plane.to(points.dtype)
    return (torch.einsum("c,chw->hw", flat[:3], points) + flat[3]).abs()


def largest_cluster(points: Tensor, keep: Tensor, size: float) -> Tensor:
    """Return (H, W) bool: the pixels of ``keep`` (H, W) in the largest cluster of their points.

    Points in the same or in touching cubes of side ``size`` belong together.
    """
    if not bool(keep.any()):
        return keep
    cells = np.floor(points[:, keep].T.cpu().double().numpy() / size).astype(np.int64)
    cubes, cube = np.unique(cells, axis=0, return_inverse=True)
    pairs = cKDTree(cubes.astype(float)).query_pairs(1.5, p=np.inf, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(cubes), len(cubes)))
    cluster = connected_components(graph, directed=False)[1][cube.ravel()]
    kept = keep.clone()
    kept[keep] = torch.from_numpy(cluster == np.bincount(cluster).argmax()).to(keep.device)
    return kept
