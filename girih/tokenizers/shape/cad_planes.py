"""How the CAD languages say in three angles which way a sketch plane faces.

Knows planes and angles in radians. Does not know bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from girih.tokenizers.shape.cad import Plane, Vector


def euler(plane: Plane) -> tuple[float, float, float]:
    """Angles in radians about z, y, x, in that order about fixed axes, of the matrix whose rows are x, y and normal.

    By half angles from the quaternion (Bernardes and Viollet 2022), which also settles the signs at +-pi and the free
    angle at +-pi/2 as SciPy does, whose angles the published tokens hold.
    """
    rows = [[value + 0.0 for value in axis] for axis in (plane.x_axis, plane.y_axis, plane.normal)]  # -0.0 turns 0.0
    trace = rows[0][0] + rows[1][1] + rows[2][2]
    largest = max((trace, 3), *((rows[i][i], i) for i in range(3)), key=lambda pair: (pair[0], -pair[1]))[1]
    q = [0.0, 0.0, 0.0, 0.0]
    if largest == 3:
        q = [rows[2][1] - rows[1][2], rows[0][2] - rows[2][0], rows[1][0] - rows[0][1], 1 + trace]
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        q[i], q[j], q[k] = 1 - trace + 2 * rows[i][i], rows[j][i] + rows[i][j], rows[k][i] + rows[i][k]
        q[3] = rows[k][j] - rows[j][k]
    x, y, z, w = q
    a, b, c, d = w - y, z - x, y + w, -x - z
    middle = 2 * math.atan2(math.hypot(c, d), math.hypot(a, b))
    total, difference = math.atan2(b, a), math.atan2(d, c)
    if abs(middle) <= 1e-7:
        first, third = 2 * total, 0.0
    elif abs(middle - math.pi) <= 1e-7:
        first, third = -2 * difference, 0.0
    else:
        first, third = total - difference, total + difference
    return _wrapped(first), _wrapped(middle - math.pi / 2), _wrapped(-third)


def _wrapped(angle: float) -> float:
    return angle + math.tau if angle < -math.pi else angle - math.tau if angle > math.pi else angle


def plane_from_euler(origin: tuple[float, ...], angles: Sequence[float]) -> Plane:
    """The plane at ``origin`` whose ``euler`` angles these are."""
    (sa, ca), (sb, cb), (sc, cc) = ((math.sin(angle), math.cos(angle)) for angle in angles)
    x_axis = cb * ca, -cb * sa, sb
    y_axis = cc * sa + sc * sb * ca, cc * ca - sc * sb * sa, -sc * cb
    return Plane((origin[0], origin[1], origin[2]), x_axis, y_axis)


def polar(vector: Vector) -> tuple[float, float]:
    """(theta, phi) of a direction; phi is 0 at the poles."""
    flat = math.hypot(vector[0], vector[1])
    return math.atan2(flat, vector[2]), math.atan2(vector[1] + 0.0, vector[0] + 0.0) if flat > 1e-9 else 0.0


def polar_published(vector: Vector) -> tuple[float, float]:
    """The same as the published code has it: rounded, and phi by arctan, which cannot tell -x from +x."""
    x, y, z = (round(value, 6) + 0.0 for value in vector)
    return math.acos(max(-1.0, min(z / math.sqrt(x * x + y * y + z * z), 1.0))), math.atan(y / (x + 1e-15))


def plane_from_polar(origin: Vector, angles: Sequence[float]) -> Plane:
    """The plane at ``origin`` with these (theta, phi, gamma): the normal's direction, the x axis' turn about it."""
    (st, ct), (sp, cp), (sg, cg) = ((math.sin(angle), math.cos(angle)) for angle in angles)
    unturned, across = np.array((ct * cp, ct * sp, -st)), np.array((-sp, cp, 0.0))
    x_axis, y_axis = cg * unturned + sg * across, cg * across - sg * unturned
    return Plane(origin, tuple(x_axis.tolist()), tuple(y_axis.tolist()))
