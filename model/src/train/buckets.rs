//! Gradients summed over the ranks in a few buckets, while the backward pass goes on.
//!
//! The backward pass goes through the picture tower and then through the caption tower, each from its last
//! segment to its first. As soon as enough parameters have their gradient, they are exchanged: in host
//! memory by a thread beside this one, on a GPU by a stream of its own. The last bucket holds what is left:
//! the first segments of the caption tower, and the token rows that any rank's captions name.
//!
//! Every rank hands over the same buckets in the same order, whatever its pairs are.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::StepError;
use super::gradients::Gradients;
use crate::chain::Chain;
use crate::clip::ClipModel;
use crate::collective::{Collective, CollectiveError};

/// Numbers that are worth a message of their own: 32 MB. The ring sums each number from the rank on that its place in
/// a message names, so checkpoints say this, too (`How::sums`).
const ENOUGH: usize = 8 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tower {
    Vision,
    Text,
}

/// A segment of a tower, as the backward pass comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tower: Tower,
    pub(super) segment: usize,
}

impl Place {
    /// Where the backward pass ends.
    pub(super) const LAST: Self = Self { tower: Tower::Text, segment: 0 };
}

/// Parameters whose gradients are exchanged together.
#[derive(Debug)]
struct Bucket {
    /// Indices of parameters.
    params: Vec<usize>,
    /// Done when the backward pass has gone through this.
    after: Place,
}

/// In which buckets a model's gradients are exchanged.
#[derive(Debug)]
pub(super) struct Plan(Vec<Bucket>);

impl Plan {
    pub(super) fn new(model: &ClipModel) -> Self {
        Self::of(model, ENOUGH)
    }

    pub(super) fn of(model: &ClipModel, enough: usize) -> Self {
        let sizes = model.params().layout().entries();
        let vision =
            (0..model.vision().len()).map(|at| (Tower::Vision, at, model.vision().params(at)));
        let text = model.text().segments().iter().enumerate();
        let text = text.map(|(at, params)| (Tower::Text, at, params.as_slice()));
        let mut buckets = Vec::new();
        let (mut params, mut values) = (Vec::new(), 0);
        for (tower, segment, own) in vision.rev().chain(text.rev()) {
            params.extend_from_slice(own);
            values += own.iter().map(|&index| sizes[index].range.len()).sum::<usize>();
            let after = Place { tower, segment };
            if values >= enough || after == Place::LAST {
                buckets.push(Bucket { params: std::mem::take(&mut params), after });
                values = 0;
            }
        }
        Self(buckets)
    }

    /// Of each bucket.
    #[cfg(test)]
    pub(super) fn params(&self) -> impl Iterator<Item = &[usize]> {
        self.0.iter().map(|bucket| bucket.params.as_slice())
    }
}

/// Where gradients go that are done.
pub(super) struct Reducer<'a> {
    plan: &'a [Bucket],
    /// Token rows that any rank's captions name.
    touched: Vec<usize>,
    sent: usize,
    received: usize,
    /// For how long this rank has had nothing to do but wait for sums.
    idle: Duration,
    way: Way<'a>,
}

enum Way<'a> {
    Alone,
    OnDevice(&'a mut dyn Collective),
    Beside { to: Sender<Vec<f32>>, from: Receiver<Vec<f32>> },
}

/// Runs `work`, which hands over gradients and then has them all summed by [`Reducer::finish`].
pub(super) fn reduce<'a>(
    Plan(plan): &'a Plan,
    touched: Vec<usize>,
    collective: &'a mut dyn Collective,
    is_flat: bool,
    work: impl FnOnce(&mut Reducer<'a>) -> Result<(), StepError>,
) -> Result<(), StepError> {
    let reducer = |way| Reducer { plan, touched, sent: 0, received: 0, idle: Duration::ZERO, way };
    if collective.world_size() == 1 {
        return work(&mut reducer(Way::Alone));
    }
    if collective.is_on_device() && is_flat {
        return work(&mut reducer(Way::OnDevice(collective)));
    }
    let before = collective.take_waited();
    let (to, due) = channel();
    let (done, from) = channel();
    let mut reducer = reducer(Way::Beside { to, from });
    let lent = &mut *collective;
    let sums = move || sum_all(lent, &due, &done);
    let (idle, result) = thread::scope(|scope| {
        let summing = thread::Builder::new().name("gradients".to_owned()).spawn_scoped(scope, sums);
        let summing = match summing {
            Ok(summing) => summing,
            Err(error) => return (Duration::ZERO, Err(StepError::Torch(error.to_string()))),
        };
        let worked = work(&mut reducer);
        let idle = reducer.idle;
        // It ends when nothing more can be handed over.
        drop(reducer);
        let summed = summing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let result = match worked {
            // It could hand nothing over: that thread knows why.
            Ok(()) | Err(StepError::Collective(_)) => summed.map_err(StepError::from).and(worked),
            Err(own) => Err(own),
        };
        (idle, result)
    });
    // What it waited for others while this rank computed has kept nobody.
    let during = collective.take_waited();
    collective.add_waited(before + during.min(idle));
    result
}

fn sum_all(
    collective: &mut dyn Collective,
    due: &Receiver<Vec<f32>>,
    done: &Sender<Vec<f32>>,
) -> Result<(), CollectiveError> {
    for mut message in due {
        collective.all_reduce_sum(&mut message)?;
        if done.send(message).is_err() {
            break;
        }
    }
    Ok(())
}

impl Reducer<'_> {
    /// The backward pass has gone through `place`: hands over the bucket that is done by it, if one is.
    pub(super) fn passed(
        &mut self,
        place: Place,
        gradients: &mut Gradients,
    ) -> Result<(), CollectiveError> {
        match self.plan.get(self.sent) {
            Some(bucket) if bucket.after == place => self.send(gradients),
            Some(_) | None => Ok(()),
        }
    }

    fn send(&mut self, gradients: &mut Gradients) -> Result<(), CollectiveError> {
        let bucket = &self.plan[self.sent];
        self.sent += 1;
        let rows = if self.sent == self.plan.len() { self.touched.as_slice() } else { &[] };
        match &mut self.way {
            Way::Alone => (),
            Way::OnDevice(collective) => {
                let with_table = self.sent == self.plan.len();
                for part in gradients.flat_parts(&bucket.params, with_table) {
                    collective.begin_sum(&part)?;
                }
            }
            Way::Beside { to, from } => {
                while let Ok(message) = from.try_recv() {
                    let params = &self.plan[self.received].params;
                    gradients.take_message(&message, &[], params);
                    self.received += 1;
                }
                let message = gradients.to_message(rows, &bucket.params);
                // The thread has ended: it knows why.
                to.send(message).map_err(|_| CollectiveError::Aborted)?;
            }
        }
        Ok(())
    }

    /// Hands over what is left, and returns once everything is the sum over all ranks.
    pub(super) fn finish(&mut self, gradients: &mut Gradients) -> Result<(), CollectiveError> {
        if matches!(self.way, Way::Alone) {
            return Ok(());
        }
        while self.sent < self.plan.len() {
            self.send(gradients)?;
        }
        match &mut self.way {
            Way::Alone => (),
            Way::OnDevice(collective) => collective.end_sums()?,
            Way::Beside { from, .. } => {
                for (at, bucket) in self.plan.iter().enumerate().skip(self.received) {
                    let since = Instant::now();
                    let message = from.recv().map_err(|_| CollectiveError::Aborted)?;
                    self.idle += since.elapsed();
                    let rows =
                        if at + 1 == self.plan.len() { self.touched.as_slice() } else { &[] };
                    gradients.take_message(&message, rows, &bucket.params);
                }
            }
        }
        Ok(())
    }
}

/// Ranges that touch, as one.
pub(super) fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut all: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range),
        }
    }
    all
}
