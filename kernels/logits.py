"""One tile of logits: the device code that every kernel starts from.

Logits are in bits, ``z = scale * x . y`` with a scale that has log2(e) in it, in float32. A kernel
takes its tile from one of three sources, its constexpr ``SOURCE``:

``"product"``  the tile's own matrix product of ``x [rows, width]`` and ``y [columns, width]``;
``"stored"``   a float32 matrix ``values [rows, columns]`` of logits;
``"fixed"``    an int16 matrix ``values`` and, for each tile, the two floats of the line
               ``z = middle + step * value`` in ``lines [tile rows, tile columns, 2]``; a tile of
               so wide a range that its steps are coarse takes its product instead.

Rows beyond the matrix hold copies of the last one, columns anything: who reduces over a tile masks
them with ``outside_to``.
"""

import triton
import triton.language as tl

# The coarsest steps, in bits, whose error in a softmax (an eighth of a step, root mean square) is
# well below the rounding of a gradient to bfloat16: tiles with a range of 128 bits.
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
    x,
    y,
    scale,
    row_ids,
    column_ids,
    width,
    x_row_stride,
    x_stride,
    y_row_stride,
    y_stride,
    BLOCK_DEPTH: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """``scale * x[row_ids] @ y[column_ids].T`` in float32; ids in int64 and within the matrices.

    ``EVEN_DEPTH`` says that BLOCK_DEPTH divides the width.
    """
    depth_ids = tl.arange(0, BLOCK_DEPTH)
    x_at = x + row_ids[:, None] * x_row_stride + depth_ids[None, :] * x_stride
    y_at = y + column_ids[None, :] * y_row_stride + depth_ids[:, None] * y_stride
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
def logits_tile(
    x,
    y,
    scale,
    values,
    lines,
    tile_row,
    tile_column,
    rows,
    columns,
    width,
    x_row_stride,
    x_stride,
    y_row_stride,
    y_stride,
    values_stride,
    lines_stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    SOURCE: tl.constexpr,
):
    """The tile of logits, and the ids (int32) of its rows and columns, some of which may lie
    outside. ``lines_stride`` counts lines from one row of tiles to the next."""
    row_ids = tile_row * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column_ids = tile_column * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    # int64: a matrix may hold more than 2**31 entries.
    near_rows = tl.minimum(row_ids, rows - 1).to(tl.int64)
    near_columns = tl.minimum(column_ids, columns - 1).to(tl.int64)
    if SOURCE == "product":
        z = product_tile(
            x,
            y,
            scale,
            near_rows,
            near_columns,
            width,
            x_row_stride,
            x_stride,
            y_row_stride,
            y_stride,
            BLOCK_DEPTH,
            EVEN_DEPTH,
            PRECISION,
            INTERPRETED,
        )
    else:
        at = values + near_rows[:, None] * values_stride + column_ids[None, :]
        known = column_ids[None, :] < extent(columns, values_stride)
        if SOURCE == "stored":
            z = tl.load(at, mask=known, other=0.0)
        else:
            line = lines + (tile_row.to(tl.int64) * lines_stride + tile_column) * 2
            middle, step = tl.load(line), tl.load(line + 1)
            if step > COARSEST_STEP:
                z = product_tile(
                    x,
                    y,
                    scale,
                    near_rows,
                    near_columns,
                    width,
                    x_row_stride,
                    x_stride,
                    y_row_stride,
                    y_stride,
                    BLOCK_DEPTH,
                    EVEN_DEPTH,
                    PRECISION,
                    INTERPRETED,
                )
            else:
                z = middle + step * tl.load(at, mask=known, other=0).to(tl.float32)
    return z, row_ids, column_ids


@triton.jit
def halves(tile):
    """The left and the right half of a tile's columns.

    Epilogues go through a tile in strips of a few columns, by halves of halves: what they hold of a
    strip beside the logits is what decides how many blocks share a multiprocessor, and only with
    two of them do the products of one run under the epilogue of the other.
    """
    pairs = tl.reshape(tile, (tile.shape[0], 2, tile.shape[1] // 2))
    return tl.split(tl.permute(pairs, (0, 2, 1)))


@triton.jit
def outside_to(z, value, row_ids, column_ids, rows, columns):
    """``z`` with ``value`` in the entries that lie outside the matrix."""
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
def finite_or_zero(top):
    """A maximum to subtract: 0 where there was nothing but -inf."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def merged(top, total, other_top, other_total):
    """Two partial sums of exponentials, each under a maximum of its own, as one."""
    most = tl.maximum(top, other_top)
    under = finite_or_zero(most)
    return most, total * tl.exp2(top - under) + other_total * tl.exp2(other_top - under)


@triton.jit
def fixed_line(low, high):
    """Of logits between ``low`` and ``high`` in 16 bits: the middle and the step of the line that
    gives them back to half a step, ``(high - low) / 131070``, and the inverse of the step."""
    step = (high - low) * (1.0 / 65535.0)
    per_step = 65535.0 / tl.where(high > low, high - low, 1.0)
    return low + 32768.0 * step, step, per_step


@triton.jit
def to_fixed(z, low, per_step):
    """Logits as int16, those below ``low`` as if they were it."""
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
        kept = to_fixed(z, low, per_step) if KEEP == "fixed" else z
        store_tile(kept, values, row_ids, column_ids, rows, columns, values_stride)


@triton.jit
def keep_logits(
    z,
    values,
    lines,
    tile_row,
    tile_column,
    row_ids,
    shape,
    BLOCK_COLUMNS: tl.constexpr,
    STRIP: tl.constexpr,
    KEEP: tl.constexpr,
):
    """Stores a tile of logits as its ``SOURCE`` ``KEEP`` will have it, if it is to be kept.

    ``shape`` is rows, columns, and the strides of ``values`` and ``lines``.
    """
    if KEEP != "product":
        low, per_step = 0.0, 0.0
        if KEEP == "fixed":
            # Copies of the last row and column, outside, lie in the range of the others.
            # All at once: Triton 3.6 fails on two reductions by rows here, on sm_100.
            low = tl.min(z)
            middle, step, per_step = fixed_line(low, tl.max(z))
            line = lines + (tile_row.to(tl.int64) * shape[3] + tile_column) * 2
            tl.store(line, middle)
            tl.store(line + 1, step)
        first_column = tile_column * BLOCK_COLUMNS
        _keep_strips(z, values, first_column, row_ids, low, per_step, shape, STRIP, KEEP)
