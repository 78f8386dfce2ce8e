//! Messages for a person, above the progress bar if there is one.

use indicatif::ProgressBar;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The bar on the terminal.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Messages stand above this bar from now on; with none, where they are printed.
pub fn show(bar: Option<ProgressBar>) {
    *shown() = bar;
}

/// Prints a line for a person, above the bar if there is one. What would steer a terminal, from the name of a file or out of one, is
/// printed as text.
pub fn say(text: &str) {
    let mut line = escaped(text);
    line.push('\n');
    // Work goes on when nobody listens any more.
    let print = || drop(std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()));
    let bar = shown().clone();
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// Takes the bar away before the program ends.
pub fn clear() {
    let bar = shown().take();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// A text with its control characters written out, but for tabs and ends of lines.
fn escaped(text: &str) -> String {
    let is_harmless = |letter: char| !letter.is_control() || matches!(letter, '\n' | '\t');
    let mut shown = String::with_capacity(text.len() + 1);
    for letter in text.chars() {
        if is_harmless(letter) { shown.push(letter) } else { shown.extend(letter.escape_default()) }
    }
    shown
}

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_text() {
        assert_eq!(escaped("a\u{1b}[31mb\rc\u{7}\u{9b}\n\té"), "a\\u{1b}[31mb\\rc\\u{7}\\u{9b}\n\té");
    }
}
