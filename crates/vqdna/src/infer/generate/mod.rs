//! DNA by a model that predicts the next token.
//!
//! What the model sees is a window as long as those that it was trained on: once that is full, it begins anew with the later half of it.
//! Tokens that a prompt ends with are drawn anew where further bases may change them, among those that agree with the prompt.

mod sampling;

use burn::prelude::*;
use std::ops::ControlFlow;
use vqdna_data::alphabet::{BaseId, N};
use vqdna_data::tokens::{Spans, Tokens};

use crate::model::LanguageModel;
use crate::model_dir::{Model, Network};
use crate::objective::ObjectiveConfig;
use crate::ops::{self, KeyValues};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::vqdna::{Vqdna, VqdnaConfig};

pub use sampling::Sampling;

/// Why nothing can be generated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// A vocabulary, a fine-tuned model, or one that predicts masked tokens.
    #[error("it does not predict the next token; pre-train one with `--set objective.kind=next`")]
    NotCausal,
    /// A model of which nobody knows on what windows it was trained.
    #[error("its `config.json` has no `window`, the bases that it was trained to see together")]
    NoWindow,
    /// Nothing comes before the first token.
    #[error(
        "a prompt of {0} bases or more is needed: nothing stands before the first token that this model can predict"
    )]
    Prompt(usize),
    /// A prompt with N.
    #[error("base {0} of the prompt is not one of A, C, G and T")]
    Letter(usize),
    /// No token agrees with what is there: the vocabulary does not have them all.
    #[error("after base {0} no token of the vocabulary agrees with the prompt")]
    NoToken(usize),
    /// The caller asked to stop.
    #[error("stopped before the end")]
    Interrupted,
}

/// Draws sequences.
#[derive(Debug)]
pub struct Generator<'a> {
    tokenizer: &'a Tokenizer,
    model: &'a LanguageModel,
    device: &'a Device,
    /// Bases that the model sees together.
    window: usize,
    /// Bases that a token has in common with the one before it.
    shared: usize,
    /// Bases on either side that a learned code can see.
    halo: usize,
    /// Of a fixed tokenizer, the bases of each id; none of those that are never drawn.
    bases: Vec<Option<Vec<BaseId>>>,
    /// How ids are drawn.
    sampling: Sampling,
}

/// One sequence on its way.
struct Growing<'a> {
    kept: Vec<KeyValues>,
    /// All tokens so far.
    tokens: Tokens,
    /// The first token that the model sees.
    first: usize,
    /// Tokens of which keys and values are kept, from `first` on.
    seen: usize,
    generator: &'a Generator<'a>,
    /// Number of the sequence.
    number: u64,
}

impl<'a> Generator<'a> {
    /// With a model of a folder; `device` is its device.
    ///
    /// # Errors
    /// [`GenerateError::NotCausal`] and [`GenerateError::NoWindow`].
    pub fn new(model: &'a Model, device: &'a Device, sampling: Sampling) -> Result<Self, GenerateError> {
        let (Network::Language(network), Some(ObjectiveConfig::Next(_))) = (&model.network, &model.config.objective)
        else {
            return Err(GenerateError::NotCausal);
        };
        let window = model.config.window.ok_or(GenerateError::NoWindow)?;
        let (named, tokenizer) = (&model.config.tokenizer, &model.tokenizer);
        let ids = if named.learned().is_none() { named.sizes()[0] as u32 } else { 0 };
        let bases = (0..ids).map(|id| tokenizer.bases(id)).collect();
        let shared = if named.learned().is_none() { named.overlap() - 1 } else { 0 };
        let halo = named.learned().map_or(0, VqdnaConfig::encoder_halo);
        Ok(Self { tokenizer, model: network, device, window, shared, halo, bases, sampling })
    }

    /// A sequence that begins with `prompt` and goes on for `length` bases. `number` is that of the sequence among those of a seed. Before
    /// each token `poll` is told how many bases there are beyond the prompt, and asked whether to go on.
    ///
    /// # Errors
    /// See [`GenerateError`].
    pub fn sequence(
        &self,
        prompt: &[BaseId],
        length: usize,
        number: u64,
        poll: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<BaseId>, GenerateError> {
        if let Some(at) = prompt.iter().position(|&base| base >= N) {
            return Err(GenerateError::Letter(at + 1));
        }
        ops::with_frozen_weights(|| match self.tokenizer.learned() {
            Some(vocabulary) => self.codes(vocabulary, prompt, length, number, poll),
            None => self.fixed(prompt, length, number, poll),
        })
    }

    /// By tokens that say which bases they stand for.
    fn fixed(
        &self,
        prompt: &[BaseId],
        length: usize,
        number: u64,
        poll: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<BaseId>, GenerateError> {
        let mut bases = prompt.to_vec();
        let mut growing = self.begin(self.settled(prompt), number);
        if growing.tokens.is_empty() && self.tokenizer.special().before() == 0 {
            return Err(GenerateError::Prompt(1 + self.shared));
        }
        while bases.len() < prompt.len() + length {
            if poll(bases.len() - prompt.len()).is_break() {
                return Err(GenerateError::Interrupted);
            }
            let covered = growing.tokens.spans.bases();
            let start = if growing.tokens.is_empty() { 0 } else { covered - self.shared };
            let known = &bases[start..];
            let agrees = |id: u32| match &self.bases[id as usize] {
                // A token that adds nothing would be drawn forever.
                Some(own) => start + own.len() > covered && known.iter().zip(own).all(|(known, own)| known == own),
                None => false,
            };
            let logits = growing.logits();
            let id = growing.draw(&logits, 0, &agrees).ok_or(GenerateError::NoToken(bases.len()))?;
            let own = self.bases[id as usize].as_deref().unwrap_or_default();
            bases.extend(own.iter().skip(known.len()));
            growing.push(&[id], start + own.len());
        }
        bases.truncate(prompt.len() + length);
        Ok(bases)
    }

    /// By learned codes. The last ones of a prompt saw what comes after it as missing, and are drawn anew; so many more are drawn at the end,
    /// which the decoder sees.
    fn codes(
        &self,
        vocabulary: &Vqdna,
        prompt: &[BaseId],
        length: usize,
        number: u64,
        poll: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<BaseId>, GenerateError> {
        let halo = self.halo;
        if prompt.len() <= halo {
            return Err(GenerateError::Prompt(halo + 1));
        }
        let never = || ControlFlow::Continue(());
        let found = self.tokenizer.tokenize(&[prompt.to_vec()], self.device, &never).and_then(|mut all| all.pop());
        let mut tokens = found.expect("nobody stops it");
        let kept = prompt.len() - halo;
        tokens.levels.iter_mut().for_each(|ids| ids.truncate(kept));
        tokens.spans = Spans::Bases(kept);
        let mut growing = self.begin(tokens, number);
        let all = prompt.len() + length + halo;
        while growing.tokens.len() < all {
            let done = growing.tokens.len();
            if poll(done.saturating_sub(prompt.len()).min(length)).is_break() {
                return Err(GenerateError::Interrupted);
            }
            let logits = growing.logits();
            let ids: Option<Vec<u32>> =
                (0..logits.len()).map(|level| growing.draw(&logits, level, &|_| true)).collect();
            growing.push(&ids.ok_or(GenerateError::NoToken(done))?, done + 1);
        }
        let ids = |ids: &Vec<u32>| {
            let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            Tensor::<2, Int>::from_data(TensorData::new(ids, [1, all]), self.device)
        };
        let levels: Vec<_> = growing.tokens.levels.iter().map(ids).collect();
        let padding = Tensor::<2, Bool>::from_data(TensorData::new(vec![false; all], [1, all]), self.device);
        let likely = vocabulary.decode(&levels, &padding).argmax(2).reshape([all]).into_data();
        let decoded = likely.try_into_vec_as::<i32>().expect("bases fit i32");
        let decoded = decoded.into_iter().map(|base| base as BaseId);
        Ok(prompt.iter().copied().chain(decoded.skip(prompt.len()).take(length)).collect())
    }

    /// Tokens at the start of a prompt that are the same whatever follows it.
    fn settled(&self, prompt: &[BaseId]) -> Tokens {
        let tokens = |bases: &[BaseId]| self.tokenizer.encode(bases).expect("tokens of bases alone");
        let own = tokens(prompt);
        let longest = self.bases.iter().flatten().map(Vec::len).max().unwrap_or(1);
        let mut settled = own.len();
        for base in 0..N {
            let further = tokens(&[prompt, &vec![base; 2 * longest]].concat());
            let same = own.levels[0].iter().zip(&further.levels[0]).take_while(|(own, further)| own == further);
            settled = settled.min(same.count());
        }
        let ends = (0..settled).map(|token| own.spans.get(token).end as u32).collect();
        Tokens { levels: vec![own.levels[0][..settled].to_vec()], spans: Spans::Ends(ends) }
    }

    fn begin(&self, tokens: Tokens, number: u64) -> Growing<'_> {
        // Special positions, and a token that reaches beyond the window.
        let kept = self.model.backbone.key_values(self.window + 4);
        Growing { kept, tokens, first: 0, seen: 0, generator: self, number }
    }
}

impl Growing<'_> {
    /// Logits of each level of the next token.
    fn logits(&mut self) -> Vec<Vec<f32>> {
        let Generator { tokenizer, model, device, window, .. } = self.generator;
        let end = self.tokens.spans.bases();
        let start = |token: usize| self.tokens.spans.get(token).start;
        if self.first < self.tokens.len() && end - start(self.first) >= *window {
            while self.first + 1 < self.tokens.len() && end - start(self.first) > window / 2 {
                self.first += 1;
            }
            self.kept.iter_mut().for_each(KeyValues::clear);
            self.seen = 0;
        }
        let special = tokenizer.special();
        let from = self.first + self.seen;
        let new: Vec<Vec<u32>> = self.tokens.levels.iter().map(|ids| ids[from..].to_vec()).collect();
        let row = special.continued(&new, self.kept.first().is_none_or(KeyValues::is_empty));
        self.seen = self.tokens.len() - self.first;
        model.next(&tokenizer.batch(&[row], device), &mut self.kept)
    }

    fn draw(&self, logits: &[Vec<f32>], level: usize, allowed: &dyn Fn(u32) -> bool) -> Option<u32> {
        let place = [self.number, self.tokens.len() as u64, level as u64];
        self.generator.sampling.draw(&logits[level], allowed, place)
    }

    /// Appends a token by its ids, which ends at this base.
    fn push(&mut self, ids: &[u32], end: usize) {
        for (level, &id) in self.tokens.levels.iter_mut().zip(ids) {
            level.push(id);
        }
        match &mut self.tokens.spans {
            Spans::Ends(ends) => ends.push(end as u32),
            spans => *spans = Spans::Bases(end),
        }
    }
}
