"""Linear blend skinning of SMPL bodies (Loper et al., "SMPL: A Skinned Multi-Person Linear Model", 2015).

Shape letters: B bodies, V vertices, J joints, P = 9 * (J - 1) pose blend shapes. Lengths are in metres.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_matrices(axis_angles: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of axis-angle vectors [..., 3] in radians, by Rodrigues' formula."""
    angle = axis_angles.norm(dim=-1, keepdim=True).clamp_min(1e-8)  # the lower bound keeps the gradient finite at zero
    x, y, z = (axis_angles / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle = angle.unsqueeze(-1)
    return torch.eye(3).to(cross) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def skin(
    shaped: Tensor, poses: Tensor, posedirs: Tensor, J_regressor: Tensor, parents: list[int], weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Posed vertices [B, V, 3] and joints [B, J, 3].

    Args:
        shaped: T-posed vertices [B, V, 3] with their shape, metres.
        poses: axis-angle rotations [B, J, 3] in radians, each relative to the joint's parent.
        posedirs: pose blend shapes [V, 3, P], metres per unit of (rotation matrix - identity); or [V, 3, 0] for none.
        J_regressor: joints from T-posed vertices [J, V].
        parents: parent of each joint; the root comes first, and each parent before its children.
        weights: skinning weights [V, J], rows sum to 1.
    """
    rotations = rotation_matrices(poses)
    rest_joints = J_regressor @ shaped
    if posedirs.shape[-1]:
        features = (rotations[:, 1:] - torch.eye(3).to(rotations)).flatten(1)
        shaped = shaped + (features @ posedirs.flatten(0, 1).T).view_as(shaped)

    turns, joints = [rotations[:, 0]], [rest_joints[:, 0]]
    for joint, parent in enumerate(parents[1:], start=1):
        bone = rest_joints[:, joint] - rest_joints[:, parent]
        joints.append(joints[parent] + (turns[parent] @ bone.unsqueeze(-1)).squeeze(-1))
        turns.append(turns[parent] @ rotations[:, joint])
    turn, posed_joints = torch.stack(turns, 1), torch.stack(joints, 1)
    # Each joint moves a vertex by  v -> turn v + shift.
    shift = posed_joints - (turn @ rest_joints.unsqueeze(-1)).squeeze(-1)
    blended = weights @ torch.cat([turn.flatten(2), shift], -1)  # [B, V, 12]
    moved = blended[..., :9].unflatten(-1, (3, 3)) @ shaped.unsqueeze(-1)
    return moved.squeeze(-1) + blended[..., 9:], posed_joints
