"""Two small layers in place of one: the factors that err least in what a layer writes, for what it reads.

With H = L L' the second moments of a layer's inputs and G = S S' what errors of its channels cost, the error
of a matrix V in place of W is |S'(W - V)L|^2, so the best one of rank r comes of the singular values of
S'W L (Eckart and Young): Wang et al. 2024, SVD-LLM, arXiv:2403.07378, section 3.1, without G. A convolution
is such a matrix by its windows, and by its lines: k x 1 and then 1 x k is a matrix [C k, O k] of that rank
(Jaderberg et al. 2014, arXiv:1405.3866, scheme 2), whose metric is the nearest product of two (Van Loan and
Pitsianis 1993); its factors are fitted in turns to what the layer really reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import torch

from quantstudio.core.errors import CalibrationError

Tensor = torch.Tensor

# Part of the mean diagonal that keeps moments positive definite where an input never varies.
_DAMPING, _FLOOR = 1e-4, 1e-12
# Times as much where rounding left them short of it.
_MORE_DAMPING = (1.0, 1e2, 1e4)
# Of what channels cost together more has to be added: it is measured on a hundred samples.
_METRIC_DAMPING = 0.05
# Singular values below this part of the largest are noise, and scale nothing.
_NOISE = 1e-6
_FITTING = 1e-11
_TURNS, _GRADIENT_STEPS = 2, 8


class Form(StrEnum):
    """How a layer is written as two."""

    MATRIX = "matrix"
    LINES = "lines"


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """Two factors of a weight.

    Attributes:
        form: How they lie: MATRIX is read [r, K] and written [O, r]; LINES read [r, C * kh] and written
            [O, r * kw].
        rank: Channels r between them.
        read: The factor that reads what the layer read, float64.
        written: The factor that writes what the layer wrote, float64.
    """

    form: Form
    rank: int
    read: Tensor
    written: Tensor

    def whole(self, kernel: tuple[int, ...]) -> Tensor:
        """The weight they stand for, [O, K]."""
        if self.form is Form.MATRIX:
            return self.written @ self.read
        across = self.written.reshape(-1, self.rank, kernel[1])
        return torch.einsum("orj,ra->oaj", across, self.read).flatten(1)


@dataclass(frozen=True, eq=False)
class FactorProblem:
    """What is known of one layer.

    Attributes:
        weight: What its weights should be, float64 [O, K].
        moments: Second moments of what they meet, float64 [K, K].
        metric: What errors of its channels cost together, float64 [O, O]; None for the same each.
        kernel: Height and width of a convolution's kernel; empty for others.

    Raises:
        CalibrationError: any of them holds NaN or infinity.
    """

    weight: Tensor
    moments: Tensor
    metric: Tensor | None = None
    kernel: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = (self.weight, self.moments, *([] if self.metric is None else [self.metric]))
        if not all(bool(torch.isfinite(one).all()) for one in given):
            raise CalibrationError("its weights, or what it reads, hold NaN or infinity")

    @property
    def has_lines(self) -> bool:
        """Whether there is a form by lines."""
        return len(self.kernel) == 2 and min(self.kernel) > 1

    @cached_property
    def power(self) -> float:
        """What the layer's output is worth, by its metric."""
        return self.error(torch.zeros_like(self.weight))

    def error(self, values: Tensor) -> float:
        """What other weights cost, [O, K]."""
        off = self.weight - values
        felt = off if self.metric is None else self.metric @ off
        return max(float(((felt @ self.moments) * off).sum()), 0.0)

    def tails(self) -> Tensor:
        """What is left of the error at every rank of the form MATRIX, 0 first, [min(O, K) + 1]."""
        values = self._spectrum[0]
        left = values.flip(0).cumsum(0).flip(0)
        return torch.cat([left, left.new_zeros(1)])

    def factors(self, form: Form, rank: int) -> Factors:
        """The best factors of a rank, or nearly."""
        return self._matrix(rank) if form is Form.MATRIX else self._lines(rank)

    def begun(self, rank: int) -> Factors:
        """Factors by lines as they are begun, to compare ranks."""
        return self._across_fitted(self._line_readers[:, :rank].T.contiguous(), rank)

    @cached_property
    def _roots(self) -> tuple[Tensor, Tensor | None]:
        """L and S of the damped moments and metric."""
        root = None if self.metric is None else _root(self.metric, _METRIC_DAMPING)
        return _root(self.moments, _DAMPING), root

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor, bool]:
        """Squared singular values of S'W L, largest first, and the vectors of its shorter side.

        Whether these are of the outputs comes last. Squares are exact to half the digits, which is plenty for
        factors in single precision, and take a fraction of the time.
        """
        inner, outer = self._roots
        product = (self.weight if outer is None else outer.T @ self.weight) @ inner
        by_output = product.shape[0] <= product.shape[1]
        values, vectors = torch.linalg.eigh(product @ product.T if by_output else product.T @ product)
        return values.clamp_min(0.0).flip(0), vectors.flip(1), by_output

    def _matrix(self, rank: int) -> Factors:
        inner, outer = self._roots
        values, vectors, by_output = self._spectrum
        kept = vectors[:, :rank]
        if by_output:
            written = kept if outer is None else torch.linalg.solve_triangular(outer.T, kept, upper=True)
            read = kept.T @ (self.weight if outer is None else outer.T @ self.weight)
        else:
            written = self.weight @ inner @ kept
            read = torch.linalg.solve_triangular(inner.T, kept, upper=True).T
        # Both share the scale, whichever side the vectors are of: what lies between has the variance s.
        scale = values[:rank].sqrt().clamp_min(_NOISE * float(values[0].sqrt()) + _FLOOR).sqrt()
        scale = 1 / scale if by_output else scale
        return Factors(Form.MATRIX, rank, read * scale[:, None], written / scale)

    @cached_property
    def _blocks(self) -> Tensor:
        """Damped moments [C * kh, kw, C * kh, kw]."""
        lines = self.moments.shape[0] // self.kernel[1]
        eye = torch.eye(len(self.moments), dtype=self.moments.dtype)
        damped = self.moments + (_DAMPING * self.moments.diagonal().mean() + _FLOOR) * eye
        return damped.reshape(lines, self.kernel[1], lines, self.kernel[1])

    @cached_property
    def _line_roots(self) -> tuple[Tensor, Tensor]:
        """Roots of the moments of lines and of those along them: together nearest to the moments."""
        down = torch.einsum("ajbj->ab", self._blocks)
        along = torch.einsum("aiaj->ij", self._blocks) / max(float(down.trace()), _FLOOR)
        return _root(down, _DAMPING), _root(along, _DAMPING)

    @cached_property
    def _line_readers(self) -> Tensor:
        """Factors that read lines, the best first, [C * kh, n]."""
        down, along = self._line_roots
        lines, outer = self.weight.reshape(len(self.weight), -1, self.kernel[1]), self._roots[1]
        if outer is not None:
            lines = torch.einsum("po,oaj->paj", outer.T, lines)
        matrix = torch.einsum("ba,oaj,ji->boi", down.T, lines, along).flatten(1)
        vectors = torch.linalg.eigh(matrix @ matrix.T)[1].flip(1)
        readers: Tensor = torch.linalg.solve_triangular(down.T, vectors, upper=True)
        return readers

    def _across_fitted(self, read: Tensor, rank: int) -> Factors:
        """The best factor 1 x k behind a factor k x 1, [r, C * kh]: least squares."""
        seen = torch.einsum("ra,ajbk->rjbk", read, self._blocks)
        met = torch.einsum("obk,rjbk->orj", self.weight.reshape(len(self.weight), *seen.shape[2:]), seen)
        gram = torch.einsum("rjbk,sb->rjsk", seen, read).reshape(rank * self.kernel[1], -1)
        root = _root(gram, _FITTING)
        written = torch.cholesky_solve(met.flatten(1).T, root).T
        return Factors(Form.LINES, rank, read, written)

    def _lines(self, rank: int) -> Factors:
        found = self.begun(rank)
        least = self.error(found.whole(self.kernel))
        for _ in range(_TURNS):
            tried = self._across_fitted(self._down_fitted(found), rank)
            error = self.error(tried.whole(self.kernel))
            if not error < least:
                break
            found, least = tried, error
        return _even(found)

    def _down_fitted(self, factors: Factors) -> Tensor:
        """A better factor k x 1 in front of a factor 1 x k: some steps of conjugate gradients."""
        across = factors.written.reshape(-1, factors.rank, self.kernel[1])
        felt = across if self.metric is None else torch.einsum("po,orj->prj", self.metric, across)

        def slope(off: Tensor) -> Tensor:
            return torch.einsum(
                "orj,oaj->ra", felt, (off @ self.moments).reshape(*off.shape[:1], -1, self.kernel[1])
            )

        def made(read: Tensor) -> Tensor:
            return torch.einsum("orj,ra->oaj", across, read).flatten(1)

        read = factors.read
        left = slope(self.weight - made(read))
        along, size = left, (left * left).sum()
        for _ in range(_GRADIENT_STEPS):
            if float(size) <= _FLOOR:
                break
            turned = slope(made(along))
            step = size / (along * turned).sum().clamp_min(torch.finfo(size.dtype).tiny)
            read, left = read + step * along, left - step * turned
            now = (left * left).sum()
            along, size = left + (now / size) * along, now
        return read


def _even(factors: Factors) -> Factors:
    """The same with the scale of every channel in between shared by both sides."""
    across = factors.written.reshape(-1, factors.rank, factors.written.shape[1] // factors.rank)
    read, written = factors.read.norm(dim=1), across.norm(dim=(0, 2))
    scale = (written.clamp_min(_FLOOR) / read.clamp_min(_FLOOR)).sqrt()
    return Factors(
        factors.form, factors.rank, factors.read * scale[:, None], (across / scale[:, None]).flatten(1)
    )


def _root(matrix: Tensor, damping: float) -> Tensor:
    """The Cholesky factor of a matrix with a part of its mean diagonal added.

    Raises:
        CalibrationError: it is not positive definite for all that.
    """
    eye, mean = torch.eye(len(matrix), dtype=matrix.dtype), float(matrix.diagonal().mean())
    for more in _MORE_DAMPING:
        root: Tensor
        root, failed = torch.linalg.cholesky_ex(matrix + (damping * more * mean + _FLOOR) * eye)
        if not int(failed):
            return root
    raise CalibrationError("the second moments of what it reads cannot be inverted")
