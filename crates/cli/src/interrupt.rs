//! Ctrl-C and its relatives: the first asks the work to end cleanly, the second ends the program.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit code of a program that a person stopped, by the convention of shells: 128 plus the number of the signal.
pub const EXIT_CODE: u8 = 130;

/// From now on the first interrupt sets the flag that is returned. Called before work that looks at the flag.
pub fn listen() -> Result<&'static AtomicBool> {
    static LISTENING: AtomicBool = AtomicBool::new(false);
    if LISTENING.swap(true, Ordering::Relaxed) {
        return Ok(&ASKED);
    }
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(EXIT_CODE));
        }
        message!("stopping; press Ctrl-C again to stop at once");
    })
    .context("listening for Ctrl-C")?;
    Ok(&ASKED)
}

/// Whether to go on.
pub fn go_on() -> std::ops::ControlFlow<()> {
    if ASKED.load(Ordering::Relaxed) { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
}

/// An error once the work was asked to end.
pub fn check() -> Result<()> {
    if go_on().is_break() { Err(vqdna::transcode::TranscodeError::Interrupted.into()) } else { Ok(()) }
}
