"""One tile of logits: the device code that every kernel starts from.

Logits are in base 2, ``z = scale * x . y`` with a scale that has log2(e) in it, so that ``2**z`` is
the exponential; in float32. A kernel takes its tile from one of three sources, its constexpr
``SOURCE``:

``"product"``    the tile's own matrix product of ``x [rows, width]`` and ``y [columns, width]``;
``"stored"``     a float32 matrix ``values [rows, columns]`` of logits;
``"quantized"``  an int16 matrix ``values`` and, for each tile, the two floats of the line
                 ``z = middle + step * value`` in ``affine [tile rows, tile columns, 2]``; a tile of
                 so wide a range that its steps are coarse takes its product instead.

Rows beyond the matrix hold copies of the last one, columns anything: who reduces over a tile masks
them with ``outside_to``.
"""

import triton
import triton.language as tl

# The coarsest step of quantized logits. Its error in a softmax (an eighth of a step, root mean
# square) is well below the rounding of a gradient to bfloat16; the logits of a tile with this step
# span a range of 128, in base 2.
COARSEST_STEP = tl.constexpr(2.0**-9)


@triton.jit
def tile_of_program(program, tile_rows, tile_columns, GROUP: tl.constexpr):
    """The tile of a program: down GROUP tiles of a column, then the next column, so that the
    programs in flight share operands in the L2 cache."""
    in_group = GROUP * tile_columns
    group = program // in_group
    first = group * GROUP
    height = min(tile_rows - first, GROUP)
    within = program % in_group
    return first + within % height, within // height


@triton.jit
def widened(tile, INTERPRETED: tl.constexpr):
    """An operand of ``tl.dot``. Triton's interpreter multiplies bfloat16 as the integers that hold
    it, so that it gets float32, in which the products of 16-bit numbers are as exact."""
    if INTERPRETED:
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def narrowed(tile, dtype: tl.constexpr, INTERPRETED: tl.constexpr):
    """A float32 tile rounded to ``dtype``, to nearest even also in the interpreter, which cuts."""
    if INTERPRETED and dtype == tl.bfloat16:
        whole = tile.to(tl.int32, bitcast=True)
        whole = (whole + 0x7FFF + ((whole >> 16) & 1)) >> 16
        return whole.to(tl.int16).to(tl.bfloat16, bitcast=True)
    return tile.to(dtype)


@triton.jit
def extent(columns, stride):
    """How many entries of a buffer's row a tile may touch: its columns rounded up to a multiple of
    16, so that masks leave accesses whole, but within the row."""
    return tl.minimum((columns + 15) // 16 * 16, stride)


@triton.jit
def product_tile(
    operands,
    row_ids,
    column_ids,
    width,
    strides,
    BLOCK_DEPTH: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """``scale * x[row_ids] @ y[column_ids].T`` in float32, ``[row_ids, column_ids]``; ids in int64
    and within the matrices.

    ``operands`` and ``strides`` are those of ``logits_of_program``. ``EVEN_DEPTH`` says that
    BLOCK_DEPTH divides the width.
    """
    x, y, scale = operands[:3]
    x_row_stride, x_stride, y_row_stride, y_stride = strides[:4]
    depth_ids = tl.arange(0, BLOCK_DEPTH)
    x_at = x + row_ids[:, None] * x_row_stride + depth_ids[None, :] * x_stride  # [rows, DEPTH]
    y_at = y + column_ids[None, :] * y_row_stride + depth_ids[:, None] * y_stride  # [DEPTH, cols]
    total = tl.zeros((row_ids.shape[0], column_ids.shape[0]), dtype=tl.float32)
    for start in range(0, width, BLOCK_DEPTH):
        if EVEN_DEPTH:
            x_part = tl.load(x_at)
            y_part = tl.load(y_at)
        else:
            x_part = tl.load(x_at, mask=depth_ids[None, :] < width - start, other=0.0)
            y_part = tl.load(y_at, mask=depth_ids[:, None] < width - start, other=0.0)
        total = tl.dot(
            widened(x_part, INTERPRETED),
            widened(y_part, INTERPRETED),
            total,
            input_precision=PRECISION,
        )
        x_at += BLOCK_DEPTH * x_stride
        y_at += BLOCK_DEPTH * y_stride
    return total * tl.load(scale)


@triton.jit
def logits_of_program(
    operands,
    sizes,
    strides,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    SOURCE: tl.constexpr,
):
    """What every kernel begins with: the tile of logits that its program works on.

    Args:
        operands: ``x, y, scale, values, affine``; the last two are None for ``SOURCE`` "product".
        sizes: ``rows, columns, width``.
        strides: of rows and entries of x, of rows and entries of y, of rows of ``values``, and how
            many entries of ``affine`` lie between one row of tiles and the next.
    Returns:
        The logits ``[BLOCK_ROWS, BLOCK_COLUMNS]`` float32; the ids (int32) of their rows and of
        their columns, some of which may lie outside; the tile's row and column among tiles.
    """
    rows, columns, width = sizes
    tile_rows, tile_columns = tl.cdiv(rows, BLOCK_ROWS), tl.cdiv(columns, BLOCK_COLUMNS)
    tile_row, tile_column = tile_of_program(tl.program_id(0), tile_rows, tile_columns, GROUP)
    row_ids = tile_row * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column_ids = tile_column * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    # int64: a matrix may hold more than 2**31 entries.
    near_rows = tl.minimum(row_ids, rows - 1).to(tl.int64)
    near_columns = tl.minimum(column_ids, columns - 1).to(tl.int64)
    if SOURCE == "product":
        z = product_tile(
            operands, near_rows, near_columns, width, strides, BLOCK_DEPTH, EVEN_DEPTH, PRECISION,
            INTERPRETED,
        )  # fmt: skip
    else:
        values, affine = operands[3], operands[4]
        values_stride, affine_stride = strides[4], strides[5]
        at = values + near_rows[:, None] * values_stride + column_ids[None, :]
        known = column_ids[None, :] < extent(columns, values_stride)
        if SOURCE == "stored":
            z = tl.load(at, mask=known, other=0.0)
        else:
            place = affine + (tile_row.to(tl.int64) * affine_stride + tile_column) * 2
            middle, step = tl.load(place), tl.load(place + 1)
            if step > COARSEST_STEP:
                z = product_tile(
                    operands, near_rows, near_columns, width, strides, BLOCK_DEPTH, EVEN_DEPTH,
                    PRECISION, INTERPRETED,
                )  # fmt: skip
            else:
                z = middle + step * tl.load(at, mask=known, other=0).to(tl.float32)
    return z, row_ids, column_ids, tile_row, tile_column


@triton.jit
def halves(tile):
    """The left and the right half of a tile's columns: ``[rows, columns / 2]`` each.

    Epilogues go through a tile in strips of a few columns, by halves of halves: what they hold of a
    strip beside the logits is what decides how many blocks share a multiprocessor, and only with
    two of them do the products of one run under the epilogue of the other.
    """
    pairs = tl.reshape(tile, (tile.shape[0], 2, tile.shape[1] // 2))
    return tl.split(tl.permute(pairs, (0, 2, 1)))


@triton.jit
def outside_to(z, value, row_ids, column_ids, rows, columns):
    """The tile ``z`` with ``value`` in the entries that lie outside the matrix."""
    inside = (row_ids[:, None] < rows) & (column_ids[None, :] < columns)
    return tl.where(inside, z, value)


@triton.jit
def at_edge(
    tile_row, tile_column, rows, columns, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr
):
    """Whether a part of the tile lies outside the matrix."""
    return ((tile_row + 1) * BLOCK_ROWS > rows) | ((tile_column + 1) * BLOCK_COLUMNS > columns)


@triton.jit
def has_targets(
    tile_row,
    tile_column,
    target_offset,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Whether a target ``[i, i + target_offset]`` lies in the tile."""
    first = tile_row * BLOCK_ROWS + target_offset - tile_column * BLOCK_COLUMNS
    return (first < BLOCK_COLUMNS) & (first + BLOCK_ROWS > 0)


@triton.jit
def finite_or_zero(maximum):
    """Maxima to subtract, of any shape: 0 where there was nothing but -inf."""
    return tl.where(maximum == float("-inf"), 0.0, maximum)


@triton.jit
def merged(maximum, sum_exp, other_max, other_sum_exp):
    """Two partial sums of exponentials ``[rows]``, each under a maximum of its own, as one: their
    common maximum and the sum under it."""
    most = tl.maximum(maximum, other_max)
    under = finite_or_zero(most)
    return most, sum_exp * tl.exp2(maximum - under) + other_sum_exp * tl.exp2(other_max - under)


@triton.jit
def affine_of_range(low, high):
    """Of logits between ``low`` and ``high`` in 16 bits: the middle and the step of the line that
    gives them back to half a step, ``(high - low) / 131070``, and the inverse of the step."""
    step = (high - low) * (1.0 / 65535.0)
    per_step = 65535.0 / tl.where(high > low, high - low, 1.0)
    return low + 32768.0 * step, step, per_step


@triton.jit
def quantized(z, low, per_step):
    """A tile of logits as int16, those below ``low`` as if they were it."""
    value = ((tl.maximum(z, low) - low) * per_step + 0.5).to(tl.int32) - 32768
    return value.to(tl.int16)


@triton.jit
def store_tile(tile, matrix, row_ids, column_ids, rows, columns, stride):
    """Stores a tile of a matrix whose rows may have room for more than its columns."""
    at = matrix + row_ids.to(tl.int64)[:, None] * stride + column_ids[None, :]
    inside = (row_ids < rows)[:, None] & (column_ids < extent(columns, stride))[None, :]
    tl.store(at, tile, mask=inside)


@triton.jit
def _keep_strips(
    z, values, first_column, row_ids, low, per_step, shape, STRIP: tl.constexpr, KEEP: tl.constexpr
):
    if z.shape[1] > STRIP:
        left, right = halves(z)
        _keep_strips(left, values, first_column, row_ids, low, per_step, shape, STRIP, KEEP)
        first_column += left.shape[1]
        _keep_strips(right, values, first_column, row_ids, low, per_step, shape, STRIP, KEEP)
    else:
        rows, columns, values_stride, _ = shape
        column_ids = first_column + tl.arange(0, z.shape[1])
        kept = quantized(z, low, per_step) if KEEP == "quantized" else z
        store_tile(kept, values, row_ids, column_ids, rows, columns, values_stride)


@triton.jit
def keep_logits(
    z,
    values,
    affine,
    tile_row,
    tile_column,
    row_ids,
    shape,
    BLOCK_COLUMNS: tl.constexpr,
    STRIP: tl.constexpr,
    KEEP: tl.constexpr,
):
    """Stores a tile of logits as its ``SOURCE`` ``KEEP`` will have it, if it is to be kept.

    ``shape`` is rows, columns, and the strides of ``values`` and ``affine``.
    """
    if KEEP != "product":
        low, per_step = 0.0, 0.0
        if KEEP == "quantized":
            # Copies of the last row and column, outside, lie in the range of the others.
            # All at once: Triton 3.6 fails on two reductions by rows here, on sm_100.
            low = tl.min(z)
            middle, step, per_step = affine_of_range(low, tl.max(z))
            place = affine + (tile_row.to(tl.int64) * shape[3] + tile_column) * 2
            tl.store(place, middle)
            tl.store(place + 1, step)
        first_column = tile_column * BLOCK_COLUMNS
        _keep_strips(z, values, first_column, row_ids, low, per_step, shape, STRIP, KEEP)
