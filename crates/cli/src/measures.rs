//! What a stage prints at its end.

use anyhow::Result;
use vqdna::objective::Measures;
use vqdna::run::stage::Finished;
use vqdna::train::Ending;
use vqdna_data::number::Shortest;

use crate::interrupt::Stopped;
use crate::words::counted;

/// Prints the final measures as a table; `held_out` is the field of the config that says what they are taken on.
///
/// # Errors
/// [`Stopped`] if the run was; it says how to go on.
pub fn print_finished(finished: &Finished, held_out: &str) -> Result<()> {
    if let Ending::Interrupted(steps) = finished.ending {
        let steps = counted(steps, "step");
        return Err(Stopped(format!("stopped after {steps}; go on with the same command and --resume")).into());
    }
    if finished.measures.is_empty() {
        message!("note: nothing is held out, so nothing was measured; see `{held_out}` of the config");
    }
    data!("measure\t{}", finished.evaluated_on);
    for (name, value) in &finished.measures {
        data!("{name}\t{}", Shortest(*value));
    }
    data!("wall_s\t{:.1}", finished.wall_s);
    Ok(())
}

/// A measure by name.
pub fn measure(measures: &Measures, name: &str) -> Option<f64> {
    measures.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}
