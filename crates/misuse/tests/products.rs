//! Matrix products and what they are made of: `[3, 5] · [5, 70]`, and its transposes.

use crate::{all, numbers};
use std::ops::Range;
use vqdna_kernels::product::{
    self, Left, Matrix, Onto, Pair, Panels, Precision, Saved, Unit, View, multiply, multiply_all, panel_width, peak,
    rows_times, transpose,
};
use vqdna_kernels::simd::{Level, check_environment, level, native_bf16};
use vqdna_kernels::{gelu, pool};
use vqdna_misuse::{Kernel, Tried, kernel};

const ROWS: usize = 3;
const DEPTH: usize = 5;
const COLS: usize = 70;

pub fn tried() -> Vec<Tried> {
    let mut tried = vec![matrix_new(), matrix_strided(), matrix_transposed(), transposed_copy(), machine(), peak_of()];
    tried.extend([
        gelu_in_place(),
        gelu_with_gradient(),
        gelu_backward(),
        awake(),
        levels(),
        bf16(),
        level_name(),
        environment(),
    ]);
    tried.extend(of_unit::<f32>());
    tried.extend(of_unit::<Pair>());
    tried
}

fn of_unit<U: Unit>() -> Vec<Tried> {
    let mut tried =
        vec![product_of_parts::<U>(), product_of_steps::<U>(), product_of_all::<U>(), product_of_rows::<U>()];
    tried.extend([view_units::<U>(), view_pack::<U>(), panels_new::<U>(), panels_view::<U>()]);
    tried.extend(view_sizes::<U>());
    tried.extend(saved::<U>());
    tried.extend(units::<U>());
    let plain: Transposed = |out, a, m, b, n, onto| product::transposed::<U>(out, a, m, b, n, onto);
    let turned: Transposed = |out, a, m, b, n, onto| product::turned::<U>(out, a, m, b, n, onto);
    tried.extend([
        transposed("product::transposed::transposed", plain).tried(),
        transposed("product::transposed::turned", turned).tried(),
    ]);
    let plain: Transposed = |out, a, m, b, n, onto| {
        let panels = Panels::<U>::new(Matrix::new(b, b.len() / n.max(1), n));
        product::transposed_panels::<U>(out, a, m, panels.view(), onto);
    };
    let turned: Transposed = |out, a, m, b, n, onto| {
        let panels = Panels::<U>::new(Matrix::new(b, b.len() / n.max(1), n));
        product::turned_panels::<U>(out, a, m, panels.view(), onto);
    };
    tried.extend([
        of_panels(transposed("product::transposed::transposed_panels", plain)).tried(),
        of_panels(transposed("product::transposed::turned_panels", turned)).tried(),
    ]);
    tried
}

#[derive(Clone)]
struct Held {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
}

fn held() -> Held {
    Held { data: numbers(15), rows: ROWS, cols: DEPTH, stride: DEPTH }
}

fn too_large(kernel: Kernel<Held>) -> Kernel<Held> {
    kernel
        .right(0, |a| (a.rows, a.cols, a.stride) = (0, 1 << 40, 1 << 40))
        .wrong("a [3, 5] matrix does not fit a slice of 14", |a| a.data.truncate(14))
        .wrong("a [4, 5] matrix does not fit a slice of 15", |a| a.rows = 4)
        .wrong("a [9223372036854775810, 5] matrix does not fit", |a| a.rows = (1 << 63) + 2)
        .wrong("a [18446744073709551615, 5] matrix does not fit", |a| a.rows = usize::MAX)
        .wrong("a [4294967297, 4294967296] matrix does not fit", |a| {
            (a.rows, a.cols, a.stride) = ((1 << 32) + 1, 1 << 32, 1 << 32);
        })
}

fn matrix_new() -> Tried {
    let tried = kernel("product::Matrix::new", held(), 0, |a| {
        _ = Matrix::new(&a.data, a.rows, a.cols);
        vec![]
    });
    too_large(tried).tried()
}

fn matrix_strided() -> Tried {
    let tried = kernel("product::Matrix::strided", held(), 0, |a| {
        _ = Matrix::strided(&a.data, a.rows, a.cols, a.stride);
        vec![]
    });
    too_large(tried)
        .wrong("rows of 5 overlap at a stride of 4", |a| a.stride = 4)
        .wrong("a [3, 5] matrix does not fit a slice of 15", |a| a.stride = 6)
        .wrong("a [3, 5] matrix does not fit a slice of 15", |a| a.stride = 1 << 63)
        .wrong("a [3, 5] matrix does not fit a slice of 15", |a| a.stride = usize::MAX)
        .tried()
}

fn matrix_transposed() -> Tried {
    kernel("product::Matrix::transposed", held(), 9, |a| {
        let panels = Panels::<f32>::new(Matrix::new(&a.data, a.rows, a.cols).transposed());
        let mut out = vec![f32::NAN; 9];
        multiply_all(&mut out, &a.data, panels.view(), Onto::Zero);
        out
    })
    .tried()
}

fn transposed_copy() -> Tried {
    kernel("product::transpose", held(), 15, |a| transpose(&a.data, a.rows, a.cols))
        .right(0, |a| (a.data, a.rows) = (vec![], 0))
        .right(0, |a| (a.data, a.rows, a.cols) = (vec![], 1 << 62, 0))
        .wrong("`data` holds 14 elements, but its shape is [3, 5]", |a| a.data.truncate(14))
        .wrong("`data` holds 15 elements, but its shape is [3, 4]", |a| a.cols = 4)
        .wrong("`data` holds 15 elements, but its shape is [9223372036854775811, 5]", |a| a.rows = (1 << 63) + 3)
        .tried()
}

fn machine() -> Tried {
    kernel("product::kernel::panel_width", (), 1, |()| vec![panel_width() as f32]).tried()
}

fn peak_of() -> Tried {
    kernel("product::peak", 1e-4, 2, |seconds| {
        [Precision::F32, Precision::Bf16].map(|p| peak(p, seconds) as f32).to_vec()
    })
    .tried()
}

fn levels() -> Tried {
    kernel("simd::level", (), 1, |()| vec![f32::from(u8::from(level() >= Level::Baseline))]).tried()
}

fn level_name() -> Tried {
    kernel("simd::Level::name", Level::Avx2, 1, |level| vec![level.name().len() as f32]).tried()
}

fn environment() -> Tried {
    kernel("simd::check_environment", (), 1, |()| vec![f32::from(u8::from(check_environment() == Ok(level())))]).tried()
}

fn bf16() -> Tried {
    kernel("simd::native_bf16", (), 1, |()| vec![f32::from(u8::from(native_bf16()))]).tried()
}

fn awake() -> Tried {
    kernel("pool::awake", 3.0, 1, |x| vec![pool::awake(|| x)]).tried()
}

fn gelu_in_place() -> Tried {
    kernel("gelu::in_place", numbers(100), 100, |mut x| {
        gelu::in_place(&mut x);
        x
    })
    .right(0, Vec::clear)
    .tried()
}

fn gelu_with_gradient() -> Tried {
    kernel("gelu::with_gradient", (numbers(100), numbers(100)), 200, |(mut x, mut dy)| {
        gelu::with_gradient(&mut x, &mut dy);
        all([x, dy])
    })
    .right(0, |(x, dy)| (*x, *dy) = (vec![], vec![]))
    .wrong("`dy` holds 99 elements, but its shape is [100]", |(_, dy)| dy.truncate(99))
    .wrong("`dy` holds 100 elements, but its shape is [0]", |(x, _)| x.clear())
    .tried()
}

fn gelu_backward() -> Tried {
    kernel("gelu::backward", (numbers(100), numbers(100)), 100, |(x, mut dy)| {
        gelu::backward(&x, &mut dy);
        dy
    })
    .right(0, |(x, dy)| (*x, *dy) = (vec![], vec![]))
    .wrong("`dy` holds 101 elements, but its shape is [100]", |(_, dy)| dy.push(0.0))
    .wrong("`dy` holds 100 elements, but its shape is [99]", |(x, _)| x.truncate(99))
    .tried()
}

/// A product of parts of a right operand.
#[derive(Clone)]
struct Parts<U> {
    out: Vec<f32>,
    stride: usize,
    left: Vec<U>,
    left_stride: usize,
    adjacent: usize,
    right: Panels<U>,
    steps: Range<usize>,
    columns: Range<usize>,
    onto: Option<Vec<f32>>,
}

/// Units in the inner dimension.
fn depth<U: Unit>() -> usize {
    U::width(DEPTH)
}

fn parts<U: Unit>() -> Parts<U> {
    Parts {
        out: vec![f32::NAN; ROWS * COLS],
        stride: COLS,
        left: Saved::of::<U>(&numbers(ROWS * DEPTH), DEPTH).units().to_vec(),
        left_stride: depth::<U>(),
        adjacent: ROWS,
        right: Panels::new(Matrix::new(&numbers(DEPTH * COLS), DEPTH, COLS)),
        steps: 0..depth::<U>(),
        columns: 0..COLS,
        onto: None,
    }
}

/// The same for left operands that lie one way or the other.
fn misshapen_parts<U: Unit>(kernel: Kernel<Parts<U>>) -> Kernel<Parts<U>> {
    let depth = depth::<U>();
    kernel
        .right(210, |a| a.onto = Some(numbers(COLS)))
        .right(0, |a| a.out.clear())
        .wrong(&format!("steps 0..{} of {depth}", depth + 1), move |a| a.steps = 0..depth + 1)
        .wrong(&format!("steps {}..{depth} of {depth}", depth + 1), move |a| a.steps = depth + 1..depth)
        .wrong(&format!("steps 0..18446744073709551615 of {depth}"), |a| a.steps = 0..usize::MAX)
        .wrong("columns 0..71 of 70", |a| a.columns = 0..71)
        .wrong("columns 64..0 of 70", |a| a.columns = Range { start: 64, end: 0 })
        .wrong("columns begin inside a panel", |a| a.columns = 1..COLS)
        .wrong("`onto` holds 69 elements, but its shape is [70]", |a| a.onto = Some(numbers(69)))
        .wrong("`onto` holds 71 elements, but its shape is [70]", |a| a.onto = Some(numbers(71)))
        .wrong("rows of 70 at a stride of 69 in 210", |a| a.stride = 69)
        .wrong("rows of 70 at a stride of 0 in 210", |a| a.stride = 0)
        .wrong("rows of 70 at a stride of 70 in 69", |a| a.out.truncate(69))
}

fn product_of_parts<U: Unit>() -> Tried {
    let tried = kernel("product::multiply", parts::<U>(), 210, |mut a| {
        let (onto, left) = (a.onto.clone(), Left::Rows { units: &a.left, stride: a.left_stride });
        let onto = onto.as_deref().map_or(Onto::Zero, Onto::Row);
        multiply(&mut a.out, a.stride, left, a.right.view(), a.steps, a.columns, onto);
        a.out
    });
    let depth = depth::<U>();
    let left = |rows: usize, stride: usize, there: usize| {
        format!("{rows} rows of {depth} units at a stride of {stride} in {there}")
    };
    misshapen_parts(tried)
        .wrong(&left(4, depth, 3 * depth), |a| a.out = vec![0.0; 4 * COLS])
        .wrong(&left(210, depth, 3 * depth), |a| (a.stride, a.columns) = (1, 0..1))
        .wrong(&left(3, depth, 3 * depth - 1), move |a| a.left.truncate(3 * depth - 1))
        .wrong(&left(3, depth - 1, 3 * depth), move |a| a.left_stride = depth - 1)
        .wrong(&left(3, 1 << 63, 3 * depth), |a| a.left_stride = 1 << 63)
        .wrong(&left(3, usize::MAX, 3 * depth), |a| a.left_stride = usize::MAX)
        .tried()
}

fn product_of_steps<U: Unit>() -> Tried {
    let right = Parts { left_stride: ROWS, ..parts::<U>() };
    let tried = kernel("product::multiply", right, 210, |mut a| {
        let (onto, left) = (a.onto.clone(), Left::Steps { units: &a.left, stride: a.left_stride, rows: a.adjacent });
        let onto = onto.as_deref().map_or(Onto::Zero, Onto::Row);
        multiply(&mut a.out, a.stride, left, a.right.view(), a.steps, a.columns, onto);
        a.out
    });
    let depth = depth::<U>();
    let left = |rows: usize, adjacent: usize, stride: usize, there: usize| {
        format!("{depth} steps of {rows} in {adjacent} at a stride of {stride} in {there}")
    };
    misshapen_parts(tried)
        .right(12 * COLS, |a| {
            (a.out, a.left, a.steps) = (vec![0.0; 12 * COLS], Vec::new(), 1..1);
            (a.stride, a.left_stride, a.adjacent) = (COLS, 12, 12);
        })
        .wrong(&left(4, 3, 3, 3 * depth), |a| a.out = vec![0.0; 4 * COLS])
        .wrong(&left(4, 4, 3, 3 * depth), |a| (a.out, a.adjacent) = (vec![0.0; 4 * COLS], 4))
        .wrong(&left(4, 4, 4, 3 * depth), |a| (a.out, a.adjacent, a.left_stride) = (vec![0.0; 4 * COLS], 4, 4))
        .wrong(&left(3, 2, 3, 3 * depth), |a| a.adjacent = 2)
        .wrong(&left(3, 3, 2, 3 * depth), |a| a.left_stride = 2)
        .wrong(&left(3, 3, 3, 3 * depth - 1), move |a| a.left.truncate(3 * depth - 1))
        .wrong(&left(3, 3, 1 << 63, 3 * depth), |a| a.left_stride = 1 << 63)
        .wrong(&left(3, 3, usize::MAX, 3 * depth), |a| a.left_stride = usize::MAX)
        .tried()
}

fn product_of_all<U: Unit>() -> Tried {
    let depth = depth::<U>();
    kernel("product::multiply_all", parts::<U>(), 210, |mut a| {
        let onto = a.onto.clone();
        multiply_all(&mut a.out, &a.left, a.right.view(), onto.as_deref().map_or(Onto::Zero, Onto::Row));
        a.out
    })
    .right(0, |a| a.out.clear())
    .wrong(&format!("4 rows of {depth} units at a stride of {depth} in {}", 3 * depth), |a| a.out = vec![0.0; 280])
    .wrong(&format!("3 rows of {depth} units at a stride of {depth} in 1"), |a| a.left.truncate(1))
    .wrong("rows of 70 at a stride of 70 in 69", |a| a.out.truncate(69))
    .wrong("`onto` holds 3 elements, but its shape is [70]", |a| a.onto = Some(numbers(3)))
    .tried()
}

fn product_of_rows<U: Unit>() -> Tried {
    // So many numbers on the left.
    let right = Parts { adjacent: ROWS * DEPTH, ..parts::<U>() };
    kernel("product::rows_times", right, 210, |mut a| {
        let x = numbers(a.adjacent);
        let right = a.right.view();
        let onto = a.onto.clone();
        rows_times(&mut a.out, &x, right, onto.as_deref().map_or(Onto::Zero, Onto::Row));
        a.out
    })
    .right(0, |a| (a.out, a.adjacent) = (vec![], 0))
    .wrong("`x` holds 14 elements, but its shape is [rows, 5]", |a| a.adjacent = 14)
    .wrong("`out` holds 210 elements, but its shape is [4, 70]", |a| a.adjacent = 20)
    .wrong("`out` holds 209 elements, but its shape is [3, 70]", |a| a.out.truncate(209))
    .wrong("`out` holds 211 elements, but its shape is [3, 70]", |a| a.out.push(0.0))
    .wrong("`onto` holds 69 elements, but its shape is [70]", |a| a.onto = Some(numbers(69)))
    .wrong("`columns` is 0", |a| a.right = Panels::new(Matrix::new(&[], DEPTH, 0)))
    .wrong("`x` holds 15 elements, but its shape is [rows, 0]", |a| a.right = Panels::new(Matrix::new(&[], 0, COLS)))
    .tried()
}

/// A product of a transposed left operand: out, a, m, b, n, onto.
type Transposed = fn(&mut [f32], &[f32], usize, &[f32], usize, Onto);

#[derive(Clone)]
struct Gradient {
    out: Vec<f32>,
    a: Vec<f32>,
    m: usize,
    b: Vec<f32>,
    n: usize,
    onto: Option<Vec<f32>>,
    product: Transposed,
}

fn transposed(name: &'static str, product: Transposed) -> Kernel<Gradient> {
    let (out, a, b) = (vec![f32::NAN; DEPTH * COLS], numbers(ROWS * DEPTH), numbers(ROWS * COLS));
    let right = Gradient { out, a, m: DEPTH, b, n: COLS, onto: None, product };
    kernel(name, right, DEPTH * COLS, |mut g| {
        let onto = g.onto.as_deref().map_or(Onto::Zero, Onto::Row);
        (g.product)(&mut g.out, &g.a, g.m, &g.b, g.n, onto);
        g.out
    })
    .right(DEPTH * COLS, |g| g.onto = Some(numbers(COLS)))
    .right(DEPTH * COLS, |g| (g.a, g.b) = (vec![], vec![]))
    .right(DEPTH * COLS, |g| (g.a, g.b, g.onto) = (vec![], vec![], Some(numbers(COLS))))
    .wrong("`out` holds 349 elements, but its shape is [5, 70]", |g| g.out.truncate(349))
    .wrong("`out` holds 351 elements, but its shape is [5, 70]", |g| g.out.push(0.0))
    .wrong("`a` holds 14 elements, but its shape is [rows, 5]", |g| g.a.truncate(14))
    .wrong("`m` is 0", |g| g.m = 0)
    .wrong("`out` holds 350 elements, but its shape is [9223372036854775813, 70]", |g| g.m = (1 << 63) + 5)
    .wrong("`onto` holds 5 elements, but its shape is [70]", |g| g.onto = Some(numbers(DEPTH)))
    .wrong("", |g| g.n = 0)
    .wrong("", |g| g.n = 69)
    .wrong("", |g| g.n = usize::MAX)
    .wrong("", |g| g.a.truncate(10))
    .wrong("", |g| g.b = numbers(4 * COLS))
    .wrong("", |g| g.b.truncate(2 * COLS))
    .wrong("", |g| g.b.clear())
}

fn of_panels(kernel: Kernel<Gradient>) -> Kernel<Gradient> {
    kernel.wrong("assertion `left == right` failed: rows of `a` and of `b`", |g| g.b = numbers(2 * COLS))
}

fn view_units<U: Unit>() -> Tried {
    kernel("product::panels::View::units", (DEPTH, COLS), 1, |(depth, cols)| vec![View::<U>::units(depth, cols) as f32])
        .right(1, |(_, cols)| *cols = 0)
        .wrong("`panels` of shape [", |(depth, cols)| (*depth, *cols) = (1 << 33, 1 << 33))
        .wrong("`panels` of shape [", |(_, cols)| *cols = usize::MAX)
        .tried()
}

fn view_pack<U: Unit>() -> Tried {
    #[derive(Clone)]
    struct Arguments<U> {
        data: Vec<U>,
        rows: usize,
        turned: bool,
    }
    let units = View::<U>::units(DEPTH, COLS);
    let right = Arguments { data: vec![U::default(); units], rows: DEPTH, turned: false };
    kernel("product::panels::View::pack", right, 3, |mut a: Arguments<U>| {
        let matrix = numbers(DEPTH * COLS);
        let matrix =
            if a.turned { Matrix::new(&matrix, COLS, a.rows).transposed() } else { Matrix::new(&matrix, a.rows, COLS) };
        let view = View::pack(matrix, &mut a.data);
        vec![view.depth() as f32, view.steps() as f32, view.cols() as f32]
    })
    .right(3, |a| a.turned = true)
    .right(3, |a| a.rows = 0)
    .right(3, |a| a.data.push(U::default()))
    .wrong(&format!("panels of a [5, 70] matrix in {} units", units - 1), move |a| a.data.truncate(units - 1))
    .wrong("panels of a [5, 70] matrix in 0 units", |a| (a.data, a.turned) = (vec![], true))
    .tried()
}

fn panels_new<U: Unit>() -> Tried {
    kernel("product::panels::Panels::new", (DEPTH, COLS), 3, |(rows, cols)| {
        // A matrix of no rows may be of any width.
        let data = if rows == DEPTH { numbers(DEPTH * COLS) } else { vec![] };
        let panels = Panels::<U>::new(Matrix::new(&data, rows, cols));
        vec![panels.view().depth() as f32, panels.view().steps() as f32, panels.view().cols() as f32]
    })
    .right(3, |(rows, _)| *rows = 0)
    .right(3, |(rows, cols)| (*rows, *cols) = (0, usize::MAX))
    .tried()
}

fn panels_view<U: Unit>() -> Tried {
    kernel("product::panels::Panels::view", parts::<U>(), 1, |a| vec![a.right.view().cols() as f32]).tried()
}

#[allow(clippy::redundant_closure_for_method_calls, reason = "a method is of a view of one lifetime")]
fn view_sizes<U: Unit>() -> [Tried; 3] {
    let of = |name, size: fn(&View<U>) -> usize| {
        kernel(name, (parts::<U>(), size), 1, |(a, size)| vec![size(&a.right.view()) as f32]).tried()
    };
    [
        of("product::panels::View::cols", |view| view.cols()),
        of("product::panels::View::depth", |view| view.depth()),
        of("product::panels::View::steps", |view| view.steps()),
    ]
}

fn saved<U: Unit>() -> [Tried; 4] {
    let of = kernel("product::saved::Saved::of", (15, DEPTH), 15, |(count, width)| {
        Saved::of::<U>(&numbers(count), width).numbers::<U>(width)
    })
    .right(0, |(count, _)| *count = 0)
    .wrong("`x` holds 14 elements, but its shape is [rows, 5]", |(count, _)| *count = 14)
    .wrong("`x` holds 15 elements, but its shape is [rows, 0]", |(_, width)| *width = 0)
    .wrong("`x` holds 15 elements, but its shape is [rows, 18446744073709551615]", |(_, width)| *width = usize::MAX);
    let numbers_of = kernel("product::saved::Saved::numbers", DEPTH, 15, |width| {
        Saved::of::<U>(&numbers(15), DEPTH).numbers::<U>(width)
    })
    .wrong("`units` holds ", |width| *width = 0)
    .wrong("`units` holds ", |width| *width = 8)
    .wrong("`units` holds ", |width| *width = usize::MAX);
    let is_empty = kernel("product::saved::Saved::is_empty", (), 1, |()| vec![f32::from(Saved::default().is_empty())]);
    let units = kernel("product::saved::Saved::units", (), 1, |()| {
        vec![Saved::of::<U>(&numbers(15), DEPTH).units::<U>().len() as f32]
    });
    [of.tried(), numbers_of.tried(), is_empty.tried(), units.tried()]
}

/// What units are made of and made into: three rows of five numbers that begin six apart.
#[derive(Clone)]
struct Rows<U> {
    x: Vec<f32>,
    stride: usize,
    width: usize,
    scratch: Vec<f32>,
    units: Vec<U>,
    units_stride: usize,
    out: Vec<f32>,
}

fn rows<U: Unit>() -> Rows<U> {
    Rows {
        x: numbers(17),
        stride: 6,
        width: DEPTH,
        scratch: vec![0.0; 15],
        units: vec![U::default(); 18],
        units_stride: 6,
        out: vec![0.0; 15],
    }
}

/// The sizes of what comes out.
fn size<U>(units: &[U]) -> Vec<f32> {
    vec![units.len() as f32]
}

/// What does not fit ends in a panic of any text, and touches nothing else.
fn units<U: Unit>() -> Vec<Tried> {
    let pairs = U::DEPTH == 2;
    // A float needs no scratch.
    let narrow = |kernel: Kernel<Rows<U>>| {
        if !pairs {
            return kernel.right(1, |a| a.scratch.clear());
        }
        kernel
            .wrong("", |a| a.scratch.clear())
            .wrong("", |a| a.stride = 0)
            .wrong("", |a| a.width = 18)
            .wrong("", |a| a.width = usize::MAX)
    };
    let of_rows = kernel("product::unit::Unit::of_rows", rows::<U>(), 1, |mut a| {
        size(U::of_rows(&a.x, a.stride, a.width, &mut a.scratch).0)
    });
    let of_steps = kernel("product::unit::Unit::of_steps", rows::<U>(), 1, |mut a| {
        size(U::of_steps(&a.x, a.stride, a.width, &mut a.scratch).0)
    });
    let parallel = kernel("product::unit::Unit::of_steps_parallel", rows::<U>(), 1, |a| {
        let mut scratch = vec![];
        size(U::of_steps_parallel(&numbers(a.out.len()), a.width, &mut scratch))
    });
    let parallel = if pairs {
        parallel.wrong("`x` holds 15 elements, but its shape is [rows, 4]", |a| a.width = 4).wrong("", |a| a.width = 0)
    } else {
        parallel.right(1, |a| a.width = 0)
    };
    let pack = kernel("product::unit::Unit::pack_steps", rows::<U>(), 1, |mut a| {
        U::pack_steps(&a.x, a.stride, a.width, &mut a.units, a.units_stride);
        size(&a.units)
    });
    let write = kernel("product::unit::Unit::write_rows", rows::<U>(), 1, |mut a| {
        U::write_rows(&a.x, a.stride, a.width, &mut a.units, a.units_stride);
        size(&a.units)
    });
    let too_wide = |kernel: Kernel<Rows<U>>| {
        kernel
            .right(1, |a| a.units.clear())
            .right(1, |a| a.x.clear())
            .wrong("", |a| a.x.truncate(16))
            .wrong("", |a| a.width = 7)
            .wrong("", |a| a.width = 1 << 63)
            .wrong("", |a| a.stride = 0)
            .wrong("", |a| a.units_stride = 0)
            .wrong("", |a| a.units_stride = 2)
            .wrong("", |a| a.units.truncate(7))
    };
    let read_steps = kernel("product::unit::Unit::read_steps", rows::<U>(), 15, |mut a| {
        U::read_steps(&a.units, a.width, &mut a.out);
        a.out
    });
    let read_rows = kernel("product::unit::Unit::read_rows", rows::<U>(), 15, |mut a| {
        U::read_rows(&a.units, a.units_stride, a.width, &mut a.out);
        a.out
    })
    .right(0, |a| a.out.clear())
    .wrong("", |a| a.width = 0)
    .wrong("", |a| a.units_stride = 0)
    .wrong("", |a| a.units.truncate(2))
    .wrong("", |a| (a.units_stride, a.width) = (1, 15));
    let read_steps = if pairs {
        read_steps.wrong("", |a| a.width = 0).wrong("", |a| a.out.truncate(3))
    } else {
        read_steps.wrong("", |a| a.units.truncate(14))
    };
    let all_numbers = kernel("product::unit::Unit::numbers", Rows { width: 6, ..rows::<U>() }, 1, |a| {
        let mut buffer = vec![];
        size(U::numbers(&a.units, a.width, &mut buffer))
    });
    let all_numbers = all_numbers.wrong("`units` holds 18 elements, but its shape is [rows, ", |a| a.width = 14);
    vec![
        narrow(of_rows).tried(),
        narrow(of_steps).tried(),
        parallel.tried(),
        too_wide(pack).tried(),
        too_wide(write).tried(),
        read_steps.tried(),
        read_rows.tried(),
        all_numbers.tried(),
        kernel("product::unit::Unit::scratch", (ROWS, DEPTH), 1, |(rows, width)| vec![U::scratch(rows, width) as f32])
            .tried(),
        kernel("product::unit::Unit::width", DEPTH, 1, |numbers| vec![U::width(numbers) as f32]).tried(),
        kernel("product::unit::Unit::new", (0.5, 0.25), 1, |(a, b)| {
            _ = U::new(a, b);
            vec![0.0]
        })
        .tried(),
        kernel("product::unit::Unit::from_floats_mut", numbers(3), 1, |mut x| size(U::from_floats_mut(&mut x))).tried(),
    ]
}
