//! What a stage prints at its end.

use anyhow::Result;
use vqdna::objective::Measures;
use vqdna::run::stage::Finished;
use vqdna::train::Ending;

use crate::interrupt::Stopped;

/// Prints the final measures as a table.
///
/// # Errors
/// [`Stopped`] if the run was; it says how to go on.
pub fn print_finished(finished: &Finished) -> Result<()> {
    if let Ending::Interrupted(steps) = finished.ending {
        let steps = if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") };
        return Err(Stopped(format!("stopped after {steps}; go on with the same command and --resume")).into());
    }
    if finished.measures.is_empty() {
        message!("note: no window is held out, so nothing was measured; see `data.split` of the config");
    }
    data!("measure\t{}", finished.evaluated_on);
    for (name, value) in &finished.measures {
        data!("{name}\t{}", number(*value));
    }
    data!("wall_s\t{:.1}", finished.wall_s);
    Ok(())
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.6}") }
}

/// A measure by name.
pub fn measure(measures: &Measures, name: &str) -> Option<f64> {
    measures.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}
