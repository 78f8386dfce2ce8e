//! Signals that end the program: Ctrl-C (SIGINT), SIGTERM and SIGHUP.
//!
//! A signal ends the program at once, unless work has called [`listen`] (it is then asked to end, and has most of a second for it) or
//! [`listen_and_wait`] (it may take the time that a checkpoint takes). A second signal always ends the program at once. Unfinished
//! files are removed, and the exit code names the signal.

use anyhow::{Context, Result};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Set by the first signal.
static ASKED: AtomicBool = AtomicBool::new(false);
/// Number of the first signal.
static SIGNAL: AtomicI32 = AtomicI32::new(SIGINT);
/// Set once a thread is ending the program.
static ENDING: AtomicBool = AtomicBool::new(false);
/// How long the work may go on after a signal: one of the three below.
static PATIENCE: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const BRIEF: u8 = 1;
const ENDLESS: u8 = 2;
/// How long it may go on after [`listen`].
const BRIEFLY: Duration = Duration::from_millis(800);

static LEFT: Mutex<Left> = Mutex::new(Left { what: None, folders: Vec::new() });

/// What is there if the program ends now.
struct Left {
    what: Option<String>,
    /// Folders that were made for a run, innermost first; they go unless something is in them.
    folders: Vec<PathBuf>,
}

/// The work ended because a signal asked it to; says what it leaves.
#[derive(Debug)]
pub struct Stopped(pub String);

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

/// Exit code of a program that a signal stopped, by the convention of shells: 128 plus the number of the signal.
pub fn exit_code() -> u8 {
    (128 + SIGNAL.load(Ordering::Relaxed)) as u8
}

/// From now on a signal ends the program at once, with unfinished files removed.
pub fn install() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut done = Ok(());
    ONCE.call_once(|| done = hear_signals(hear));
    done.context("listening for signals")
}

/// From now on a signal sets the flag behind [`go_on`] and [`check`], and ends the program if the work has not ended soon after.
pub fn listen() -> Result<()> {
    PATIENCE.store(BRIEF, Ordering::Relaxed);
    install()
}

/// From now on a signal sets the [`flag`], and the program goes on until the work ends or a second signal comes.
pub fn listen_and_wait() {
    PATIENCE.store(ENDLESS, Ordering::Relaxed);
    leaves("nothing was written since the last checkpoint");
}

/// Set by the first signal.
pub fn flag() -> &'static AtomicBool {
    &ASKED
}

/// Whether to go on.
pub fn go_on() -> ControlFlow<()> {
    if ASKED.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// An error once a signal asked the work to end.
pub fn check() -> Result<()> {
    if go_on().is_break() { Err(Stopped(stopped()).into()) } else { Ok(()) }
}

/// Says what the program leaves if it is stopped from now on, in place of "nothing was written".
pub fn leaves(what: impl Into<String>) {
    left().what = Some(what.into());
}

/// Says which folders will be made for a run: those of `folder` and around it that are not there yet. They go again if the run is
/// stopped before it writes anything.
pub fn makes(folder: &Path) {
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    left().folders = folder.ancestors().take_while(missing).map(Path::to_owned).collect();
}

/// Waits for the end if a signal is ending the program: what the work meets meanwhile, such as a file that is gone, is no result.
pub fn give_way() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// What is said at the end of a program that was stopped.
pub fn stopped() -> String {
    format!("stopped; {}", left().what.as_deref().unwrap_or("nothing was written"))
}

fn left() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hear(signal: i32) {
    let is_first = !ASKED.swap(true, Ordering::Relaxed);
    if is_first {
        SIGNAL.store(signal, Ordering::Relaxed);
    }
    match PATIENCE.load(Ordering::Relaxed) {
        ENDLESS if is_first && signal == SIGINT => message!("stopping; press Ctrl-C again to stop at once"),
        ENDLESS if is_first => message!("stopping, as a signal asks; a second one stops at once"),
        BRIEF if is_first => {
            let later = move || {
                std::thread::sleep(BRIEFLY);
                end();
            };
            if std::thread::Builder::new().spawn(later).is_err() {
                end();
            }
        }
        _ => end(),
    }
}

/// Ends the program, with a word on what it leaves.
fn end() -> ! {
    if ENDING.swap(true, Ordering::SeqCst) {
        // Another thread does.
        give_way();
    }
    vqdna_data::aside::remove_unfinished();
    vqdna_data::lock::remove_all();
    for folder in &left().folders {
        // Fails if something is in it, which then stays.
        drop(std::fs::remove_dir(folder));
    }
    crate::screen::clear();
    message!("{}", stopped());
    leave(i32::from(exit_code()))
}

/// Ends the process without a last write to standard output, whose reader may have stopped reading.
#[cfg(unix)]
fn leave(code: i32) -> ! {
    signal_hook::low_level::exit(code)
}

#[cfg(not(unix))]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}

/// Calls `hear` with the number of each signal, in a thread of its own.
#[cfg(unix)]
fn hear_signals(hear: impl Fn(i32) + Send + 'static) -> std::io::Result<()> {
    let mut wanted = vec![SIGINT, SIGTERM];
    if !is_hangup_ignored() {
        wanted.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let listen = move || signals.forever().for_each(hear);
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop)
}

#[cfg(not(unix))]
fn hear_signals(hear: impl Fn(i32) + Send + 'static) -> std::io::Result<()> {
    ctrlc::set_handler(move || hear(SIGINT)).map_err(std::io::Error::other)
}

/// Whether the program was started with hang-ups ignored, as `nohup` does: it is to outlive its terminal. Known on Linux.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}
