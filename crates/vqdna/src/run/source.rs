//! Windows of a corpus as micro-batches.

use burn::prelude::*;
use rand::RngExt;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use vqdna_data::alphabet::BaseId;
use vqdna_data::corpus::Corpus;
use vqdna_data::markov::{Costs, Markov};
use vqdna_data::sampler::WindowTable;
use vqdna_data::span::{Strand, StrandPolicy};
use vqdna_data::split::Split;

use super::config::{CorpusConfig, DataConfig};
use crate::batch::{Batch, HostWindow};
use crate::seed::stream;
use crate::train::{Source, TrainConfig};

/// Weight of the shorter context in back-off: at order 12, yeast's chromosome XVI takes 1.9017 bits a base with it, and 1.9042 with 256.
const BACK_OFF: f64 = 64.0;

/// One window, as it is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its segment of the corpus.
    pub segment: usize,
    /// Its bases, counted along the forward strand of the segment.
    pub bases: Range<usize>,
    /// The strand that is read.
    pub strand: Strand,
    /// A training window: how many were drawn before it, in all epochs. A held-out window: its number in the order of the corpus.
    pub number: u64,
}

impl Place {
    /// The bases of the window, on its strand.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    pub fn read(&self, corpus: &Corpus) -> io::Result<HostWindow> {
        let (bases, soft_masked) = corpus.window(self.segment, self.bases.clone())?;
        let window = HostWindow { bases, soft_masked };
        Ok(match self.strand {
            Strand::Forward => window,
            Strand::Reverse => window.reverse_complement(),
        })
    }
}

/// Turns windows into what a forward pass takes.
pub trait Gather {
    /// What a forward pass takes.
    type Batch;

    /// The windows as one batch on a device.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn gather(&self, places: &[Place], device: &Device) -> io::Result<Self::Batch>;
}

/// Windows as their bases.
pub struct Bases<'a> {
    /// Where they are.
    pub corpus: &'a Corpus,
    /// Weight of soft-masked bases in the loss.
    pub soft_masked_weight: f32,
}

impl Gather for Bases<'_> {
    type Batch = Batch;

    fn gather(&self, places: &[Place], device: &Device) -> io::Result<Batch> {
        let windows = places.iter().map(|place| place.read(self.corpus)).collect::<io::Result<Vec<_>>>()?;
        Ok(Batch::new(&windows, self.soft_masked_weight, device))
    }
}

/// The windows of a corpus: those to train on, drawn epoch by epoch, each epoch in an order of its own, and those held out, in the
/// order of the corpus.
pub struct Windows<'a> {
    data: &'a DataConfig,
    train: &'a TrainConfig,
    seed: u64,
    training: WindowTable,
    valid: WindowTable,
    test: WindowTable,
    /// Orders of the epochs in use.
    orders: Mutex<HashMap<u64, Arc<Vec<u32>>>>,
}

impl<'a> Windows<'a> {
    /// Windows as a config cuts and splits them.
    #[must_use]
    pub fn new(corpus: &Corpus, config: &'a impl CorpusConfig) -> Self {
        let (data, train, seed) = (config.data(), config.train(), config.seed());
        let table = |split| WindowTable::new(corpus, &data.windowing(), &data.split, seed, split);
        let [training, valid, test] = [Split::Train, Split::Valid, Split::Test].map(table);
        Self { data, train, seed, training, valid, test, orders: Mutex::default() }
    }

    /// Numbers of windows to train on and held out for validation.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.training_windows(), self.valid.len())
    }

    /// Micro-batches of these windows. Held out are those for validation.
    #[must_use]
    pub fn source<G: Gather>(&'a self, gather: &'a G, device: &Device) -> WindowSource<'a, G> {
        WindowSource { windows: self, held_out: &self.valid, gather, device: device.clone() }
    }

    /// The same, where held out are the windows for the test.
    #[must_use]
    pub fn test_source<G: Gather>(&'a self, gather: &'a G, device: &Device) -> WindowSource<'a, G> {
        WindowSource { held_out: &self.test, ..self.source(gather, device) }
    }

    /// Bits per base of Markov models of every order up to `most` that counted the training windows on both strands, over the windows held
    /// out for the test, or if there are none for validation: by order, add-one and back-off. None if nothing is held out. `poll` is asked
    /// now and then whether to go on.
    ///
    /// # Errors
    /// If the corpus cannot be read, or `poll` ends it, which is [`io::ErrorKind::Interrupted`].
    pub fn markov(&self, corpus: &Corpus, most: usize, poll: &dyn Fn() -> bool) -> io::Result<Option<Costs>> {
        let held_out = if self.test.is_empty() { &self.valid } else { &self.test };
        let read = |(segment, bases): (usize, Range<usize>)| -> io::Result<Vec<BaseId>> {
            if poll() { Ok(corpus.window(segment, bases)?.0) } else { Err(io::ErrorKind::Interrupted.into()) }
        };
        let mut markov = Markov::new(most);
        for window in 0..self.training.len() {
            markov.add_both(&read(self.training.get(window))?);
        }
        let mut costs: Option<Costs> = None;
        for window in 0..held_out.len() {
            let found = markov.costs(&read(held_out.get(window))?, BACK_OFF);
            match &mut costs {
                Some(sum) => sum.add(&found),
                None => costs = Some(found),
            }
        }
        Ok(costs)
    }

    /// Training windows of an epoch; on both strands, each window counts twice.
    fn training_windows(&self) -> usize {
        self.training.len() * if self.data.strand == StrandPolicy::Both { 2 } else { 1 }
    }

    fn order(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.retain(|&known, _| known + 1 >= epoch);
        Arc::clone(orders.entry(epoch).or_insert_with(|| Arc::new(self.training.shuffled(self.seed, epoch))))
    }

    /// The `number`-th window that training sees, counted over all epochs.
    fn training_window(&self, number: u64) -> Place {
        let per_epoch = self.training_windows() as u64;
        let (epoch, place) = (number / per_epoch, (number % per_epoch) as usize);
        let order = self.order(epoch);
        let (segment, bases) = self.training.get(order[place % order.len()] as usize);
        let reverse = match self.data.strand {
            StrandPolicy::Forward => false,
            StrandPolicy::Both => place >= order.len(),
            StrandPolicy::Random => stream(self.seed, "strand", &[number]).random(),
        };
        Place { segment, bases, strand: if reverse { Strand::Reverse } else { Strand::Forward }, number }
    }
}

/// Micro-batches of windows.
pub struct WindowSource<'a, G> {
    windows: &'a Windows<'a>,
    held_out: &'a WindowTable,
    gather: &'a G,
    device: Device,
}

impl<G: Gather> Source for WindowSource<'_, G> {
    type Batch = G::Batch;

    fn micro_batch(&self, step: u64, micro: u64) -> io::Result<(G::Batch, usize)> {
        let train = self.windows.train;
        let first = (step * train.accumulate.max(1) + micro) * train.batch as u64;
        let numbers = first..first + train.batch as u64;
        let places: Vec<Place> = numbers.map(|number| self.windows.training_window(number)).collect();
        let bases = places.iter().map(|place| place.bases.len()).sum();
        Ok((self.gather.gather(&places, &self.device)?, bases))
    }

    fn held_out_windows(&self) -> usize {
        self.held_out.len()
    }

    fn held_out(&self, windows: usize) -> Box<dyn Iterator<Item = io::Result<G::Batch>> + '_> {
        let (all, size) = (self.held_out.len(), self.windows.train.batch);
        let count = all.min(windows);
        let plain = self.device.clone().without_autodiff();
        let place = |number: usize| {
            let (segment, bases) = self.held_out.get(number);
            Place { segment, bases, strand: Strand::Forward, number: number as u64 }
        };
        Box::new((0..count).step_by(size).map(move |first| {
            // Spread over all held-out windows, so that a short evaluation is not one chromosome's end.
            let numbers = (first..(first + size).min(count)).map(|i| i * all / count);
            self.gather.gather(&numbers.map(place).collect::<Vec<_>>(), &plain)
        }))
    }
}
