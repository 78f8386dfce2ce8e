//! Windows of a corpus as micro-batches.

use burn::prelude::*;
use rand::RngExt;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use vqdna_data::corpus::Corpus;
use vqdna_data::sampler::WindowTable;
use vqdna_data::span::StrandPolicy;
use vqdna_data::split::Split;

use super::config::RunConfig;
use crate::batch::{Batch, HostWindow};
use crate::seed::stream;
use crate::train::Source;

/// Draws training windows epoch by epoch, each epoch in an order of its own, and lists held-out windows in the order of
/// the corpus.
pub struct WindowSource<'a> {
    corpus: &'a Corpus,
    config: &'a RunConfig,
    train: WindowTable,
    held_out: WindowTable,
    device: Device,
    /// Orders of the epochs in use.
    orders: Mutex<HashMap<u64, Arc<Vec<u32>>>>,
}

impl<'a> WindowSource<'a> {
    /// Windows of a corpus. Held out are those for validation.
    #[must_use]
    pub fn new(corpus: &'a Corpus, config: &'a RunConfig, device: &Device) -> Self {
        let table = |split| WindowTable::new(corpus, &config.data.windowing(), &config.data.split, config.seed, split);
        let (train, held_out) = (table(Split::Train), table(Split::Valid));
        Self { corpus, config, train, held_out, device: device.clone(), orders: Mutex::default() }
    }

    /// The same source with another split held out.
    #[must_use]
    pub fn holding_out(mut self, split: Split) -> Self {
        let config = self.config;
        self.held_out = WindowTable::new(self.corpus, &config.data.windowing(), &config.data.split, config.seed, split);
        self
    }

    /// Numbers of windows to train on and held out.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.train_windows(), self.held_out.len())
    }

    /// Training windows of an epoch; on both strands, each window counts twice.
    fn train_windows(&self) -> usize {
        self.train.len() * if self.config.data.strand == StrandPolicy::Both { 2 } else { 1 }
    }

    fn order(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.retain(|&known, _| known + 1 >= epoch);
        Arc::clone(orders.entry(epoch).or_insert_with(|| Arc::new(self.train.shuffled(self.config.seed, epoch))))
    }

    /// The `index`-th window that training sees, counted over all epochs.
    fn training_window(&self, index: u64) -> io::Result<HostWindow> {
        let per_epoch = self.train_windows() as u64;
        let (epoch, place) = (index / per_epoch, (index % per_epoch) as usize);
        let order = self.order(epoch);
        let window = self.read(&self.train, order[place % order.len()] as usize)?;
        let reverse = match self.config.data.strand {
            StrandPolicy::Forward => false,
            StrandPolicy::Both => place >= order.len(),
            StrandPolicy::Random => stream(self.config.seed, "strand", &[index]).random(),
        };
        Ok(if reverse { window.reverse_complement() } else { window })
    }

    fn read(&self, table: &WindowTable, number: usize) -> io::Result<HostWindow> {
        let (segment, range) = table.get(number);
        let (bases, soft_masked) = self.corpus.window(segment, range)?;
        Ok(HostWindow { bases, soft_masked })
    }
}

impl Source for WindowSource<'_> {
    type Batch = Batch;

    fn micro_batch(&self, step: u64, micro: u64) -> io::Result<(Batch, usize)> {
        let config = &self.config.train;
        let first = (step * config.accumulate.max(1) + micro) * config.batch as u64;
        let windows =
            (first..first + config.batch as u64).map(|i| self.training_window(i)).collect::<io::Result<Vec<_>>>()?;
        let bases = windows.iter().map(|window| window.bases.len()).sum();
        Ok((Batch::new(&windows, self.config.data.soft_masked_weight, &self.device), bases))
    }

    fn held_out(&self, windows: usize) -> Box<dyn Iterator<Item = io::Result<Batch>> + '_> {
        let (all, size) = (self.held_out.len(), self.config.train.batch);
        let count = all.min(windows);
        let plain = self.device.clone().without_autodiff();
        Box::new((0..count).step_by(size).map(move |first| {
            // Spread over all held-out windows, so that a short evaluation is not one chromosome's end.
            let numbers = (first..(first + size).min(count)).map(|i| i * all / count);
            let windows = numbers.map(|n| self.read(&self.held_out, n)).collect::<io::Result<Vec<_>>>()?;
            Ok(Batch::new(&windows, self.config.data.soft_masked_weight, &plain))
        }))
    }
}
