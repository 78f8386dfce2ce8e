//! The section of a config that says what a model was fine-tuned to.

use serde::{Deserialize, Serialize};
use vqdna_data::labelled::{Labelling, Standardization, TakenColumns};

use super::MOST_WINDOW;
use crate::head::sequence::SequenceHeadConfig;
use crate::layers::lora::LoraConfig;

/// The section `task` of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Adapters that stand beside the weights of the encoder; none if they are folded in, or there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The head.
    pub head: SequenceHeadConfig,
    /// What the outputs stand for.
    pub labelling: Labelling,
    /// The columns that it learned from, by which it knows whether it takes pairs; none in a folder of an older program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<TakenColumns>,
    /// Bases of the longest sequence that it learned from: longer ones are predicted window by window.
    pub window: usize,
    /// Whether outputs are the mean over both strands.
    pub both_strands: bool,
}

impl TaskConfig {
    /// Whether it takes pairs of sequences; none if it does not remember.
    #[must_use]
    pub fn takes_pairs(&self) -> Option<bool> {
        let columns = self.columns.as_ref().filter(|columns| !columns.sequence.is_empty());
        columns.map(TakenColumns::are_pairs)
    }

    /// Checks what no type does; says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let within = |reason: &dyn std::fmt::Display| format!("in `task`: {reason}");
        self.head.check().map_err(|e| within(&e))?;
        if let Some(lora) = &self.lora {
            lora.check().map_err(|e| within(&e))?;
        }
        if self.window > MOST_WINDOW {
            return Err(format!("`task.window` must be at most {MOST_WINDOW}"));
        }
        let outputs = self.labelling.outputs();
        if outputs.is_empty() {
            return Err("`task.labelling` has no outputs".to_owned());
        }
        let columns =
            self.columns.iter().flat_map(|columns| columns.sequence.iter().chain(&columns.label).chain(&columns.id));
        let broken = |name: &&String| name.contains(char::is_control);
        if let Some(name) = outputs.iter().chain(self.labelling.columns()).chain(columns).find(broken) {
            let name = name.escape_debug();
            return Err(format!("the name `{name}` in `task` holds a tab, a line end or another control character"));
        }
        if let Some((_, name)) = outputs.iter().enumerate().find(|(place, name)| outputs[..*place].contains(name)) {
            return Err(format!("`task.labelling` names `{name}` twice"));
        }
        let Labelling::Values { columns, standardization } = &self.labelling else { return Ok(()) };
        let is_sound = |scale: &Standardization| scale.mean.is_finite() && scale.sd.is_finite() && scale.sd > 0.0;
        if columns.len() != standardization.len() || !standardization.iter().all(is_sound) {
            return Err("`task.labelling.standardization` has not a finite mean and a spread above 0 for each column"
                .to_owned());
        }
        Ok(())
    }
}
