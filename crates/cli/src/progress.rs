//! Progress on stderr: a bar on a terminal, a line a minute elsewhere, nothing for what is done within a minute.
//!
//! ```ignore
//! let progress = Progress::new("embedding", "sequences", None); // or Some(total)
//! for … {
//!     progress.add(1); // or progress.set(done)
//! }
//! drop(progress); // takes the bar away; an error does so, too
//! ```
//!
//! `message!` may be called meanwhile, from any thread: the bar makes room.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vqdna::objective::Measures;
use vqdna::run::stage::StageObserver;
use vqdna::train::Observer;
use vqdna_data::segment::Counts;

use crate::interrupt;
use crate::screen;
use crate::words::counted;

/// Seconds between two lines where there is no terminal; 0 for none. A minute, if it is not set.
const EVERY: &str = "VQDNA_PROGRESS_EVERY";

/// How far a job is.
pub struct Progress {
    job: Arc<Job>,
    bar: ProgressBar,
    lines: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Job {
    label: String,
    unit: &'static str,
    begun: Instant,
    /// Done before it began.
    first: u64,
    done: AtomicU64,
    total: Option<u64>,
    note: Mutex<String>,
}

impl Progress {
    /// For a job named by what it does (`tokenizing`), counted in a unit (`bases`), of so many where that is known.
    pub fn new(label: &str, unit: &'static str, total: Option<u64>) -> Self {
        Self::from(0, label, unit, total)
    }

    /// For a job of which `first` are done already.
    pub fn from(first: u64, label: &str, unit: &'static str, total: Option<u64>) -> Self {
        let (done, note) = (AtomicU64::new(first), Mutex::default());
        let job = Job { label: label.to_owned(), unit, begun: Instant::now(), first, done, total, note };
        let job = Arc::new(job);
        let bar = bar(&job);
        let lines = if bar.is_hidden() { lines(&job) } else { None };
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(500));
            screen::show(Some(bar.clone()));
        }
        Self { job, bar, lines }
    }

    /// So much is done.
    pub fn set(&self, done: u64) {
        self.job.done.store(done, Ordering::Relaxed);
        if self.job.total.is_some_and(|total| done > total) {
            // The total was an estimate.
            self.bar.set_length(done);
        }
        self.bar.set_position(done);
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        self.set(self.job.done.load(Ordering::Relaxed) + more);
    }

    /// What else is to be shown, after the time that is left.
    pub fn note(&self, note: String) {
        *lock(&self.job.note) = note;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, lines)) = self.lines.take() {
            drop(end);
            drop(lines.join());
        } else {
            screen::show(None);
            self.bar.finish_and_clear();
        }
    }
}

impl Job {
    /// Of the unit in a second.
    fn rate(&self, done: u64) -> f64 {
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-3);
        done.saturating_sub(self.first) as f64 / seconds
    }

    /// Done, rate, time left and note in one line.
    fn line(&self, with_counts: bool) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let (rate, mut text) = (self.rate(done), String::new());
        if with_counts {
            let _ = write!(text, "{}", grouped(done));
            if let Some(total) = self.total.map(|total| total.max(done)) {
                let percent = 100.0 * done as f64 / total.max(1) as f64;
                let _ = write!(text, " of {} {} ({percent:.0} %)", grouped(total), self.unit);
            } else {
                let _ = write!(text, " {}", self.unit);
            }
            text.push_str(", ");
        }
        if rate == 0.0 {
            // The first batch is at work.
            text.truncate(text.trim_end_matches(", ").len());
            text.push_str(&lock(&self.note));
            return text;
        }
        let digits = if rate < 10.0 { format!("{rate:.2}") } else { grouped(rate as u64) };
        let _ = write!(text, "{digits} {}/s", self.unit);
        if let Some(total) = self.total {
            let _ = write!(text, ", {} left", duration(total.saturating_sub(done) as f64 / rate));
        }
        text.push_str(&lock(&self.note));
        text
    }
}

/// A bar of the job; hidden where stderr is no terminal.
fn bar(job: &Arc<Job>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(5);
    let bar = ProgressBar::with_draw_target(job.total, target).with_prefix(job.label.clone());
    let template = match job.total {
        Some(_) => "{prefix} [{bar:24}] {human_pos}/{human_len} {unit}, {rest}",
        None => "{prefix} {human_pos} {unit}, {rest}",
    };
    let (unit, shared) = (job.unit, job.clone());
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(
        style
            .with_key("unit", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(unit);
            })
            .with_key("rest", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&shared.line(false));
            })
            .progress_chars("=> "),
    );
    bar.set_position(job.first);
    bar
}

/// The time between two lines.
///
/// # Errors
///
/// If `VQDNA_PROGRESS_EVERY` is set to what is no time.
pub fn between_lines() -> anyhow::Result<Duration> {
    let Some(every) = std::env::var_os(EVERY) else { return Ok(Duration::from_mins(1)) };
    let seconds = every.to_str().and_then(|every| every.parse().ok());
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).with_context(|| {
        format!("{EVERY} is `{}`, but must be a number of seconds, or 0 for no lines", every.to_string_lossy())
    })
}

/// A thread that prints a line a minute until its sender is dropped.
fn lines(job: &Arc<Job>) -> Option<(Sender<()>, JoinHandle<()>)> {
    let every = between_lines().ok().filter(|every| !every.is_zero())?;
    let (end, ended) = channel();
    let job = job.clone();
    let print = move || {
        while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            message!("{}: {}", job.label, job.line(true));
        }
    };
    // Without the thread there are no lines, and the work goes on.
    let lines = std::thread::Builder::new().name("progress".to_owned()).spawn(print).ok()?;
    Some((end, lines))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in its two largest units.
fn duration(seconds: f64) -> String {
    const DAY: u64 = 86_400;
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..DAY => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / DAY, seconds % DAY / 3600),
    }
}

/// Shows a stage.
pub struct StageProgress {
    label: &'static str,
    steps: u64,
    resume: bool,
    progress: Option<Progress>,
    begun: Instant,
    first: Option<u64>,
    bases: u64,
    shown: String,
}

impl StageProgress {
    /// For a run of `steps`, named by what it does, which is to go on from a checkpoint if `resume`.
    pub fn new(label: &'static str, steps: u64, resume: bool) -> Self {
        let (progress, begun) = (None, Instant::now());
        Self { label, steps, resume, progress, begun, first: None, bases: 0, shown: String::new() }
    }

    fn start_training(&mut self, done_before: u64) {
        self.progress = None;
        self.progress = Some(Progress::from(done_before, self.label, "steps", Some(self.steps)));
        self.begun = Instant::now();
        self.first = Some(done_before);
    }

    fn note(&self, text: String) {
        if let Some(progress) = &self.progress {
            progress.note(text);
        }
    }

    fn bases_per_second(&self) -> f64 {
        self.bases as f64 / self.begun.elapsed().max(Duration::from_millis(1)).as_secs_f64()
    }
}

impl StageObserver for StageProgress {
    fn reading(&mut self, bases: u64) {
        self.progress.get_or_insert_with(|| Progress::new("reading", "bases", None)).set(bases);
    }

    fn read(&mut self, counts: &Counts, (train, held_out): (usize, usize)) {
        self.progress = None;
        // From here on there is something to keep.
        interrupt::listen_and_wait();
        message!("{}", describe(counts));
        message!("{} to train on, {held_out} held out for validation", counted(train as u64, "window"));
    }

    fn tokenizing(&mut self, bases: u64, of: u64) {
        self.progress.get_or_insert_with(|| Progress::new("tokenizing", "bases", Some(of))).set(bases);
        if bases == of {
            self.progress = None;
        }
    }

    fn found_codes(&mut self) {
        message!("codes of these inputs are in the folder, and are used again");
    }

    fn evaluating(&mut self, count: usize) {
        self.note(format!("; evaluating, {count} held out"));
    }
}

impl Observer for StageProgress {
    fn started(&mut self, resumed_at: Option<u64>) {
        interrupt::listen_and_wait();
        match resumed_at {
            Some(steps) => message!("going on after step {steps}"),
            None if self.resume => message!("no checkpoint yet: starting anew"),
            None => {}
        }
    }

    fn step(&mut self, done: u64, bases: usize, logged: Option<&Measures>) {
        if self.first.is_none() {
            self.start_training(done - 1);
        }
        self.bases += bases as u64;
        if let Some(progress) = &self.progress {
            progress.set(done);
        }
        if let Some(measures) = logged {
            self.shown = summary(measures);
        }
        self.note(format!(", {} bases/s{}", grouped(self.bases_per_second() as u64), self.shown));
    }

    fn evaluated(&mut self, done: u64, measures: &Measures) {
        message!("step {done}: held out{}", summary(measures));
    }

    fn alarm(&mut self, text: &str) {
        message!("warning: {text}");
    }
}

/// What the letter policies did, in one line.
pub fn describe(counts: &Counts) -> String {
    let mut parts = vec![format!("{} in {}", counted(counts.bases, "base"), counted(counts.records, "record"))];
    let notes = [
        (counts.empty_records, "empty records"),
        (counts.ambiguous, "ambiguous letters"),
        (counts.soft_masked, "soft-masked bases"),
        (counts.dropped, "dropped bases"),
    ];
    parts.extend(notes.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{what}: {n}")));
    parts.join(", ")
}

fn summary(measures: &Measures) -> String {
    let shown = measures.iter().filter_map(|(name, value)| {
        let text = match name.as_str() {
            "loss" => format!("loss {value:.4}"),
            "reconstruction" => format!("reconstruction {:.2} %", 100.0 * value),
            name if name.starts_with("bits_per_base") || name.contains("code_bits") => {
                format!("{} {value:.3}", name.replace('_', " "))
            }
            name if name.starts_with("usage_") => format!("{} {:.0} %", name.replace('_', " "), 100.0 * value),
            _ => return None,
        };
        Some(format!(", {text}"))
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let job = |total| Job {
            label: "tokenizing".to_owned(),
            unit: "bases",
            begun: Instant::now().checked_sub(Duration::from_secs(100)).expect("a clock that ran"),
            first: 500,
            done: AtomicU64::new(2_000_500),
            total,
            note: Mutex::new("; more".to_owned()),
        };
        let (known, unknown) = (job(Some(8_002_000)).line(true), job(None).line(true));
        assert!(known.starts_with("2,000,500 of 8,002,000 bases (25 %), "), "{known}");
        assert!(known.contains(" bases/s, 5 min ") && known.ends_with(" left; more"), "{known}");
        assert!(unknown.starts_with("2,000,500 bases, ") && unknown.ends_with(" bases/s; more"), "{unknown}");
    }

    #[test]
    fn numbers_and_times_are_easy_to_read() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.4, 59.6, 3599.0, 7260.0, 1e5].map(duration),
            ["0 s", "1 min 0 s", "59 min 59 s", "2 h 1 min", "1 d 3 h"]
        );
    }
}
