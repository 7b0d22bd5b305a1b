"""Triton kernels that apply a whole circuit to a tile of vectors on chip.

A tile is ``(BLOCK, D)``: vectors with every axis padded to a power of two. A gate on axes m and n
views it as ``(BLOCK, P, M, Q, N, R)``, moves M and N last, and is one matrix product on the tensor
cores. Moving the axes costs one pass through shared memory per gate, and vectors are read from and
written to device memory once. Products accumulate in float32; between gates vectors have the dtype
of the pass.

Gates come packed in one vector, each ``(out_m, out_n, in_m, in_n)`` in row-major order. `GATES`
describes each as ``(P, M, Q, N, R, M2, N2, m, n, m2, n2, offset, exact, small)``: padded sizes
before and after, true sizes before and after, its offset, whether padded and true sizes are equal,
and whether its gradient fits into registers.
"""

# Triton compiles the source of these functions: annotations are Triton's, and tuples are indexed
# because the only constants are numbers and tuples of numbers.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _rows(x, BLOCK: tl.constexpr, GATES: tl.constexpr, i: tl.constexpr):
    """A tile before gate i as a matrix ``(BLOCK P Q R, M N)``."""
    x = tl.reshape(x, (BLOCK, GATES[i][0], GATES[i][1], GATES[i][2], GATES[i][3], GATES[i][4]))
    x = tl.permute(x, (0, 1, 3, 5, 2, 4))
    return tl.reshape(
        x, (BLOCK * GATES[i][0] * GATES[i][2] * GATES[i][4], GATES[i][1] * GATES[i][3])
    )


@triton.jit
def _rows_after(x, BLOCK: tl.constexpr, GATES: tl.constexpr, i: tl.constexpr):
    """A tile after gate i as a matrix ``(BLOCK P Q R, M2 N2)``."""
    x = tl.reshape(x, (BLOCK, GATES[i][0], GATES[i][5], GATES[i][2], GATES[i][6], GATES[i][4]))
    x = tl.permute(x, (0, 1, 3, 5, 2, 4))
    return tl.reshape(
        x, (BLOCK * GATES[i][0] * GATES[i][2] * GATES[i][4], GATES[i][5] * GATES[i][6])
    )


@triton.jit
def _tile(
    rows, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, GATES: tl.constexpr,
    i: tl.constexpr,
):  # fmt: skip
    """Rows of gate i, before it or after it by ``M`` and ``N``, as a tile ``(BLOCK, D)``."""
    x = tl.reshape(rows, (BLOCK, GATES[i][0], GATES[i][2], GATES[i][4], M, N))
    x = tl.permute(x, (0, 1, 4, 2, 5, 3))
    return tl.reshape(x, (BLOCK, GATES[i][0] * M * GATES[i][2] * N * GATES[i][4]))


@triton.jit
def _entries(GATES: tl.constexpr, i: tl.constexpr, r, c):
    """Offsets of the entries (r, c) of gate i in the packed vector, and a mask of valid ones."""
    if GATES[i][12]:
        place = r * (GATES[i][1] * GATES[i][3]) + c
        exists = place >= 0
    else:
        rm, rn = r // GATES[i][6], r % GATES[i][6]
        cm, cn = c // GATES[i][3], c % GATES[i][3]
        place = ((rm * GATES[i][10] + rn) * GATES[i][7] + cm) * GATES[i][8] + cn
        exists = (rm < GATES[i][9]) & (rn < GATES[i][10])
        exists = exists & (cm < GATES[i][7]) & (cn < GATES[i][8])
    return GATES[i][11] + place, exists


@triton.jit
def _forward_matrix(pointer, GATES: tl.constexpr, i: tl.constexpr):
    """Gate i as ``(M N, M2 N2)``."""
    r = tl.arange(0, GATES[i][5] * GATES[i][6])[None, :]
    c = tl.arange(0, GATES[i][1] * GATES[i][3])[:, None]
    place, exists = _entries(GATES, i, r, c)
    if GATES[i][12]:
        matrix = tl.load(pointer + place)
    else:
        matrix = tl.load(pointer + place, mask=exists, other=0.0)
    return matrix


@triton.jit
def _backward_matrix(pointer, GATES: tl.constexpr, i: tl.constexpr):
    """Gate i as ``(M2 N2, M N)``."""
    r = tl.arange(0, GATES[i][5] * GATES[i][6])[:, None]
    c = tl.arange(0, GATES[i][1] * GATES[i][3])[None, :]
    place, exists = _entries(GATES, i, r, c)
    if GATES[i][12]:
        matrix = tl.load(pointer + place)
    else:
        matrix = tl.load(pointer + place, mask=exists, other=0.0)
    return matrix


@triton.jit
def _columns(SIZES: tl.constexpr, AXES: tl.constexpr, D: tl.constexpr, LENGTH: tl.constexpr):
    """Offsets of a padded vector's elements in a row of ``LENGTH``, and a mask of valid ones.

    ``SIZES`` has for each axis its padded size, its true size, and its stride in both; if no axis
    is padded, ``AXES`` is 0.
    """
    index = tl.arange(0, D)
    exists = index >= 0
    place = index
    if AXES > 0:
        place = index * 0
    for j in tl.static_range(AXES):
        own = (index // SIZES[4 * j + 2]) % SIZES[4 * j]
        place += own * SIZES[4 * j + 3]
        exists = exists & (own < SIZES[4 * j + 1])
    return place, exists & (place < LENGTH)


@triton.jit
def _chain(
    x, gates, BLOCK: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """All gates one after the other; the result is float32."""
    dtype = x.dtype
    for i in tl.static_range(COUNT):
        matrix = _forward_matrix(gates, GATES, i)
        product = tl.dot(_rows(x.to(dtype), BLOCK, GATES, i), matrix, input_precision=PRECISION)
        x = _tile(product, GATES[i][5], GATES[i][6], BLOCK, GATES, i)
    return x


@triton.jit
def _backward_step(
    g, gates, BLOCK: tl.constexpr, GATES: tl.constexpr, i: tl.constexpr, PRECISION: tl.constexpr
):
    """The gradient before gate i from that after it."""
    rows = _rows_after(g, BLOCK, GATES, i)
    product = tl.dot(rows, _backward_matrix(gates, GATES, i), input_precision=PRECISION)
    return _tile(product, GATES[i][1], GATES[i][3], BLOCK, GATES, i)


@triton.jit
def _reversed_chain(
    g, gates, BLOCK: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The transposed gates, last one first; the result is float32."""
    dtype = g.dtype
    for j in tl.static_range(COUNT):
        g = _backward_step(g.to(dtype), gates, BLOCK, GATES, COUNT - 1 - j, PRECISION)
    return g


@triton.jit
def _load_tile(
    pointer, row, tokens,
    AXES: tl.constexpr, SIZES: tl.constexpr, D: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """Vectors ``row`` as a padded tile."""
    column, exists = _columns(SIZES, AXES, D, LENGTH)
    place = row.to(tl.int64) * LENGTH + column[None, :]
    mask = row < tokens
    if AXES > 0 or D > LENGTH:
        mask = mask & exists[None, :]
    return tl.load(pointer + place, mask=mask, other=0.0)


@triton.jit
def _store_tile(
    pointer, tile, row, tokens,
    AXES: tl.constexpr, SIZES: tl.constexpr, D: tl.constexpr, LENGTH: tl.constexpr,
    ADD: tl.constexpr,
):  # fmt: skip
    """Write a padded tile to vectors ``row``, or add it to them."""
    column, exists = _columns(SIZES, AXES, D, LENGTH)
    place = row.to(tl.int64) * LENGTH + column[None, :]
    mask = row < tokens
    if AXES > 0 or D > LENGTH:
        mask = mask & exists[None, :]
    if ADD:
        tile += tl.load(pointer + place, mask=mask, other=0.0)
    tl.store(pointer + place, tile, mask=mask)


@triton.jit(do_not_specialize=["tokens"])
def forward_kernel(
    x_pointer, trained, frozen, y_pointer, tokens,
    BLOCK: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr,
    IN_AXES: tl.constexpr, IN_SIZES: tl.constexpr, IN_PADDED: tl.constexpr,
    IN_LENGTH: tl.constexpr,
    OUT_AXES: tl.constexpr, OUT_SIZES: tl.constexpr, OUT_PADDED: tl.constexpr,
    OUT_LENGTH: tl.constexpr,
    SUBTRACT: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = T x - S x, added to y with ``ADD``; one tile per program."""
    row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    x = _load_tile(x_pointer, row, tokens, IN_AXES, IN_SIZES, IN_PADDED, IN_LENGTH)
    y = _chain(x, trained, BLOCK, GATES, COUNT, PRECISION)
    if SUBTRACT:
        y -= _chain(x, frozen, BLOCK, GATES, COUNT, PRECISION)
    _store_tile(y_pointer, y, row, tokens, OUT_AXES, OUT_SIZES, OUT_PADDED, OUT_LENGTH, ADD)


@triton.jit(do_not_specialize=["tokens"])
def backward_kernel(
    g_pointer, trained, frozen, dx_pointer, tokens,
    BLOCK: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr,
    IN_AXES: tl.constexpr, IN_SIZES: tl.constexpr, IN_PADDED: tl.constexpr,
    IN_LENGTH: tl.constexpr,
    OUT_AXES: tl.constexpr, OUT_SIZES: tl.constexpr, OUT_PADDED: tl.constexpr,
    OUT_LENGTH: tl.constexpr,
    SUBTRACT: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dx = T' g - S' g, added to dx with ``ADD``; one tile per program."""
    row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    g = _load_tile(g_pointer, row, tokens, OUT_AXES, OUT_SIZES, OUT_PADDED, OUT_LENGTH)
    dx = _reversed_chain(g, trained, BLOCK, GATES, COUNT, PRECISION)
    if SUBTRACT:
        dx -= _reversed_chain(g, frozen, BLOCK, GATES, COUNT, PRECISION)
    _store_tile(dx_pointer, dx, row, tokens, IN_AXES, IN_SIZES, IN_PADDED, IN_LENGTH, ADD)


@triton.jit
def _add_outer(
    pointer, g, x, later, GATES: tl.constexpr, i: tl.constexpr, START: tl.constexpr,
    ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add ``g`` transposed times ``x`` to rows of gate i's gradient from ``START``, in memory."""
    total = tl.dot(tl.trans(g), x, input_precision=PRECISION)
    r = START + tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, GATES[i][1] * GATES[i][3])[None, :]
    place, exists = _entries(GATES, i, r, c)
    total += tl.load(pointer + place, mask=exists & later, other=0.0)
    tl.store(pointer + place, total, mask=exists)


@triton.jit
def _halves(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The first and the second half of a matrix's columns."""
    return tl.split(tl.permute(tl.reshape(x, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit
def _add_in_memory(
    pointer, g, x, later, BLOCK: tl.constexpr, GATES: tl.constexpr, i: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add a tile's part of gate i's gradient in memory, in four parts that fit into registers."""
    R: tl.constexpr = GATES[i][5] * GATES[i][6]
    M: tl.constexpr = BLOCK * GATES[i][0] * GATES[i][2] * GATES[i][4]
    low, high = _halves(g, M, R)
    a, b = _halves(low, M, R // 2)
    c, d = _halves(high, M, R // 2)
    _add_outer(pointer, a, x, later, GATES, i, 0, R // 4, PRECISION)
    _add_outer(pointer, b, x, later, GATES, i, R // 4, R // 4, PRECISION)
    _add_outer(pointer, c, x, later, GATES, i, R // 2, R // 4, PRECISION)
    _add_outer(pointer, d, x, later, GATES, i, 3 * R // 4, R // 4, PRECISION)


@triton.jit
def _gate_gradients(
    x_pointer, trained, g_pointer, gradients, tokens,
    GROUPS: tl.constexpr, k: tl.constexpr,
    BLOCK: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr,
    IN_AXES: tl.constexpr, IN_SIZES: tl.constexpr, IN_PADDED: tl.constexpr,
    IN_LENGTH: tl.constexpr,
    OUT_AXES: tl.constexpr, OUT_SIZES: tl.constexpr, OUT_PADDED: tl.constexpr,
    OUT_LENGTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates of group k, over this program's tiles."""
    LOW: tl.constexpr = GROUPS[k]
    HIGH: tl.constexpr = GROUPS[k + 1]
    program = tl.program_id(0)
    totals = ()
    for i in tl.static_range(LOW, HIGH):
        if GATES[i][13]:
            totals = totals + (  # noqa: RUF005
                tl.full((GATES[i][5] * GATES[i][6], GATES[i][1] * GATES[i][3]), 0.0, tl.float32),
            )
        else:
            totals = totals + (0.0,)  # noqa: RUF005
    tile = program
    while tile * BLOCK < tokens:  # the interpreter does not support ranges over tensors
        later = tile != program
        row = (tile * BLOCK + tl.arange(0, BLOCK))[:, None]
        x = _load_tile(x_pointer, row, tokens, IN_AXES, IN_SIZES, IN_PADDED, IN_LENGTH)
        g = _load_tile(g_pointer, row, tokens, OUT_AXES, OUT_SIZES, OUT_PADDED, OUT_LENGTH)
        dtype = g.dtype
        inputs = ()
        for i in tl.static_range(HIGH):
            rows = _rows(x, BLOCK, GATES, i)
            if i >= LOW:
                inputs = inputs + (rows,)  # noqa: RUF005
            if i + 1 < HIGH:
                matrix = _forward_matrix(trained, GATES, i)
                product = tl.dot(rows, matrix, input_precision=PRECISION).to(dtype)
                x = _tile(product, GATES[i][5], GATES[i][6], BLOCK, GATES, i)
        sums = ()
        for j in tl.static_range(COUNT - LOW):
            if COUNT - 1 - j < HIGH:
                rows = _rows_after(g, BLOCK, GATES, COUNT - 1 - j)
                if GATES[COUNT - 1 - j][13]:
                    total = tl.dot(
                        tl.trans(rows), inputs[COUNT - 1 - j - LOW],
                        acc=totals[COUNT - 1 - j - LOW], input_precision=PRECISION,
                    )  # fmt: skip
                    sums = (total,) + sums  # noqa: RUF005
                else:
                    _add_in_memory(
                        gradients, rows, inputs[COUNT - 1 - j - LOW], later,
                        BLOCK, GATES, COUNT - 1 - j, PRECISION,
                    )  # fmt: skip
                    sums = (0.0,) + sums  # noqa: RUF005
            if COUNT - 1 - j > LOW:
                g = _backward_step(g, trained, BLOCK, GATES, COUNT - 1 - j, PRECISION).to(dtype)
        totals = sums
        tile += tl.num_programs(0)
    for i in tl.static_range(LOW, HIGH):
        if GATES[i][13]:
            r = tl.arange(0, GATES[i][5] * GATES[i][6])[:, None]
            c = tl.arange(0, GATES[i][1] * GATES[i][3])[None, :]
            place, exists = _entries(GATES, i, r, c)
            tl.store(gradients + place, totals[i - LOW], mask=exists)


@triton.jit(do_not_specialize=["tokens", "entries"])
def gradient_kernel(
    x_pointer, trained, g_pointer, gradients, tokens, entries,
    GROUPS: tl.constexpr, GROUP_COUNT: tl.constexpr,
    BLOCK: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr,
    IN_AXES: tl.constexpr, IN_SIZES: tl.constexpr, IN_PADDED: tl.constexpr,
    IN_LENGTH: tl.constexpr,
    OUT_AXES: tl.constexpr, OUT_SIZES: tl.constexpr, OUT_PADDED: tl.constexpr,
    OUT_LENGTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of T's gates; activations between the gates are recomputed.

    The grid is ``(programs, groups)``. ``GROUPS`` has the end of each group of gates; the gradients
    of a group are accumulated in registers over every ``programs``-th tile and stored in a row of
    ``gradients``, ``(programs, entries)``.
    """
    gradients += tl.program_id(0) * entries
    for k in tl.static_range(GROUP_COUNT):
        if tl.program_id(1) == k:
            _gate_gradients(
                x_pointer, trained, g_pointer, gradients, tokens, GROUPS, k,
                BLOCK, GATES, COUNT, IN_AXES, IN_SIZES, IN_PADDED, IN_LENGTH,
                OUT_AXES, OUT_SIZES, OUT_PADDED, OUT_LENGTH, PRECISION,
            )  # fmt: skip


@triton.jit(do_not_specialize=["programs", "entries"])
def sum_kernel(parts, total, programs, entries, BLOCK: tl.constexpr):
    """The sum of ``parts``, ``(programs, entries)``, over programs."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    result = tl.full((BLOCK,), 0.0, tl.float32)
    program = 0
    while program < programs:
        for j in tl.static_range(8):  # independent loads
            mask = (place < entries) & (program + j < programs)
            result += tl.load(parts + (program + j) * entries + place, mask=mask, other=0.0)
        program += 8
    tl.store(total + place, result, mask=place < entries)
