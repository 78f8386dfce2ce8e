//! Progress on stderr: a bar on a terminal, quiet lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};
use vqdna::objective::Measures;
use vqdna::run::stage::StageObserver;
use vqdna::train::Observer;
use vqdna_data::segment::Counts;

/// A bar over bases; hidden when stderr is not a terminal.
pub fn bases_bar(total: Option<u64>, label: &str) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(5);
    let bar = ProgressBar::with_draw_target(total, target).with_prefix(label.to_owned());
    let template = match total {
        Some(_) => "{prefix} [{bar:30}] {human_pos}/{human_len} bases, {per_sec}, {eta} left {msg}",
        None => "{prefix} {human_pos} bases, {per_sec} {msg}",
    };
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
    );
    bar
}

/// Shows a stage.
pub struct StageProgress {
    label: &'static str,
    steps: u64,
    resume: bool,
    bar: ProgressBar,
    begun: Instant,
    first: Option<u64>,
    bases: u64,
    shown: String,
}

impl StageProgress {
    /// For a run of `steps`, named by what it does, which is to go on from a checkpoint if `resume`.
    pub fn new(label: &'static str, steps: u64, resume: bool) -> Self {
        let bar = bases_bar(None, "reading");
        Self { label, steps, resume, bar, begun: Instant::now(), first: None, bases: 0, shown: String::new() }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn message(&self, text: &str) {
        self.bar.suspend(|| message!("{text}"));
    }

    fn start_training(&mut self, done_before: u64) {
        let style = "{prefix} [{bar:24}] {pos}/{len} steps, {eta} left{msg}";
        let target = ProgressDrawTarget::stderr_with_hz(4);
        self.bar = ProgressBar::with_draw_target(Some(self.steps), target).with_prefix(self.label);
        self.bar.set_style(
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
        );
        self.bar.set_position(done_before);
        self.bar.reset_eta();
        self.begun = Instant::now();
        self.first = Some(done_before);
    }

    fn bases_per_second(&self) -> f64 {
        self.bases as f64 / self.begun.elapsed().max(Duration::from_millis(1)).as_secs_f64()
    }
}

impl StageObserver for StageProgress {
    fn reading(&mut self, bases: u64) {
        self.bar.set_position(bases);
    }

    fn read(&mut self, counts: &Counts, (train, held_out): (usize, usize)) {
        self.bar.finish_and_clear();
        self.message(&describe(counts));
        self.message(&format!("{train} windows to train on, {held_out} held out for validation"));
    }

    fn tokenizing(&mut self, bases: u64, of: u64) {
        if self.bar.length() != Some(of) {
            self.bar = bases_bar(Some(of), "tokenizing");
        }
        self.bar.set_position(bases);
        if bases == of {
            self.bar.finish_and_clear();
        }
    }

    fn found_codes(&mut self) {
        self.message("codes of these inputs are in the folder, and are used again");
    }

    fn evaluating(&mut self, windows: usize) {
        self.bar.set_message(format!("; evaluating {windows} held-out windows"));
    }
}

impl Observer for StageProgress {
    fn started(&mut self, resumed_at: Option<u64>) {
        match resumed_at {
            Some(steps) => self.message(&format!("going on after step {steps}")),
            None if self.resume => self.message("no checkpoint yet: starting anew"),
            None => {}
        }
    }

    fn step(&mut self, done: u64, bases: usize, logged: Option<&Measures>) {
        if self.first.is_none() {
            self.start_training(done - 1);
        }
        self.bases += bases as u64;
        self.bar.set_position(done);
        if let Some(measures) = logged {
            self.shown = summary(measures);
        }
        self.bar.set_message(format!(", {:.0} bases/s{}", self.bases_per_second(), self.shown));
    }

    fn evaluated(&mut self, done: u64, measures: &Measures) {
        self.message(&format!("step {done}: held out{}", summary(measures)));
    }

    fn alarm(&mut self, message: &str) {
        self.message(&format!("warning: {message}"));
    }
}

/// What the letter policies did, in one line.
pub fn describe(counts: &Counts) -> String {
    let records = if counts.records == 1 { "record" } else { "records" };
    let mut parts = vec![format!("{} bases in {} {records}", counts.bases, counts.records)];
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
            name if name.starts_with("bits_per_base") => format!("{} {value:.3}", name.replace('_', " ")),
            name if name.starts_with("usage_") => format!("{} {:.0} %", name.replace('_', " "), 100.0 * value),
            _ => return None,
        };
        Some(format!(", {text}"))
    });
    shown.collect()
}
