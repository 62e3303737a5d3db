//! Sums, gathers and broadcasts around a ring of ranks.
//!
//! Every element of a sum is added up by one rank, in ring order, and then copied: all ranks hold
//! the same bits, and so do two gangs of the same width.

use std::io;
use std::ops::Range;
use std::time::Duration;

use clade_model::collective::{Collective, CollectiveError};

use super::handshake::Place;
use super::transfer::{Neighbours, Waited, Wire};

/// A peer that stands still this long is given up; its own agent notices much earlier.
const PATIENCE: Duration = Duration::from_secs(600);
/// Numbers summed at a time: small enough to stay in cache, large enough to be few calls.
const PIECE: usize = 64 * 1024;

/// One rank's place in a ring of at least two.
#[derive(Debug)]
pub struct TcpRing {
    rank: usize,
    ranks: usize,
    neighbours: Neighbours,
    /// Counts the calls, so that ranks out of step notice.
    sequence: u32,
    piece: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Call {
    AllReduce = 1,
    AllGather = 2,
    Broadcast = 3,
}

impl TcpRing {
    pub(super) fn new(place: &Place, next: Wire, prev: Wire) -> io::Result<Self> {
        let [rank, ranks] = [place.rank, place.ranks]
            .map(|number| usize::try_from(number).expect("a u32 fits in usize"));
        let neighbours = Neighbours::new(next, prev, PATIENCE)?;
        Ok(Self { rank, ranks, neighbours, sequence: 0, piece: Vec::new() })
    }

    /// Counts the time in which this rank could do nothing but wait for its neighbours.
    pub fn waited(&self) -> Waited {
        self.neighbours.waited.clone()
    }

    /// What it means if a neighbour's process has ended, or its machine is gone: seen without an exchange.
    pub fn hung_up(&self) -> Option<CollectiveError> {
        self.neighbours.hung_up()
    }

    /// Sets how long a peer may stand still.
    pub const fn give_up_after(&mut self, patience: Duration) {
        self.neighbours.patience = patience;
    }

    /// How long a peer may stand still.
    pub const fn patience(&self) -> Duration {
        self.neighbours.patience
    }

    /// Makes sure that the predecessor makes the same call with as many values.
    fn begin(&mut self, call: Call, values: usize) -> Result<(), CollectiveError> {
        self.sequence = self.sequence.wrapping_add(1);
        // What is about to be exchanged: the call, its number, its values.
        let own = [call as u64, u64::from(self.sequence), values as u64];
        let mut theirs = [0; 3];
        self.neighbours
            .exchange(bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(&mut theirs))?;
        let peer = self.neighbours.prev_rank();
        if theirs[..2] != own[..2] {
            let source = format!("it made call {theirs:?} where {own:?} was due").into();
            return Err(CollectiveError::PeerLost { peer, source: Some(source) });
        }
        if theirs[2] != own[2] {
            let found = usize::try_from(theirs[2]).unwrap_or(usize::MAX);
            return Err(CollectiveError::Mismatch { peer, expected: values, found });
        }
        Ok(())
    }

    /// The rank `behind` places before this one.
    const fn before(&self, behind: usize) -> usize {
        (self.rank + self.ranks - behind % self.ranks) % self.ranks
    }

    /// The part of `values` numbers that rank `owner` sums.
    const fn segment(&self, values: usize, owner: usize) -> Range<usize> {
        values * owner / self.ranks..values * (owner + 1) / self.ranks
    }

    /// Sends one range of `values` onwards while another is replaced by what arrives.
    fn pass_on(
        &mut self,
        values: &mut [f32],
        out: Range<usize>,
        into: Range<usize>,
    ) -> Result<(), CollectiveError> {
        let (out, into) = if out.end <= into.start {
            let (left, right) = values.split_at_mut(into.start);
            (&left[out], &mut right[..into.len()])
        } else {
            let (left, right) = values.split_at_mut(out.start);
            (&right[..out.len()], &mut left[into])
        };
        let pieces = out.len().max(into.len()).div_ceil(PIECE);
        let (mut out, mut into) = (out.chunks(PIECE), into.chunks_mut(PIECE));
        for _ in 0..pieces {
            let out = bytemuck::cast_slice(out.next().unwrap_or_default());
            let into = bytemuck::cast_slice_mut(into.next().unwrap_or_default());
            self.neighbours.exchange(out, into)?;
        }
        Ok(())
    }

    /// Sends one range of `values` onwards while adding what arrives to another.
    fn add_up(
        &mut self,
        values: &mut [f32],
        out: Range<usize>,
        into: Range<usize>,
    ) -> Result<(), CollectiveError> {
        for from in (0..out.len().max(into.len())).step_by(PIECE) {
            let piece = |range: &Range<usize>| {
                let start = (range.start + from).min(range.end);
                start..(start + PIECE).min(range.end)
            };
            let (out, into) = (piece(&out), piece(&into));
            self.piece.resize(into.len(), 0.0);
            let arriving = bytemuck::cast_slice_mut(&mut self.piece);
            self.neighbours.exchange(bytemuck::cast_slice(&values[out]), arriving)?;
            for (value, addend) in values[into].iter_mut().zip(&self.piece) {
                *value += addend;
            }
        }
        Ok(())
    }
}

impl Collective for TcpRing {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.ranks
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.begin(Call::AllReduce, values.len())?;
        let count = values.len();
        for round in 0..self.ranks - 1 {
            let out = self.segment(count, self.before(round));
            let into = self.segment(count, self.before(round + 1));
            self.add_up(values, out, into)?;
        }
        // Now the segment after this rank's own is complete here.
        for round in 0..self.ranks - 1 {
            let out = self.segment(count, self.before(self.ranks + round - 1));
            let into = self.segment(count, self.before(round));
            self.pass_on(values, out, into)?;
        }
        Ok(())
    }

    fn all_gather(&mut self, own: &[f32], out: &mut Vec<f32>) -> Result<(), CollectiveError> {
        self.begin(Call::AllGather, own.len())?;
        let width = own.len();
        out.clear();
        out.resize(self.ranks * width, 0.0);
        let place = |rank: usize| rank * width..(rank + 1) * width;
        out[place(self.rank)].copy_from_slice(own);
        for round in 0..self.ranks - 1 {
            let (sent, filled) = (place(self.before(round)), place(self.before(round + 1)));
            self.pass_on(out, sent, filled)?;
        }
        Ok(())
    }

    fn broadcast(&mut self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.begin(Call::Broadcast, values.len())?;
        for piece in values.chunks_mut(PIECE) {
            if self.rank != root {
                self.neighbours.exchange(&[], bytemuck::cast_slice_mut(piece))?;
            }
            if self.neighbours.next_rank() != root {
                self.neighbours.exchange(bytemuck::cast_slice(piece), &mut [])?;
            }
        }
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.all_reduce_sum(&mut [0.0])
    }

    fn take_waited(&mut self) -> Duration {
        self.neighbours.waited.take()
    }

    fn add_waited(&mut self, waited: Duration) {
        self.neighbours.waited.add(waited);
    }
}
