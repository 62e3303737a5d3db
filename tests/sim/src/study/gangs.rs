//! What gangs do in the course of time: start, step, save, leave, finish.

use clade_core::ids::{Fence, Seat};
use clade_core::job::Outcome;
use clade_core::schedule::{Event, Start};

use super::fleet::{Fleet, Happening, Next};
use super::setup::{SEED_STEPS, checkpoint};
use super::track::Doing;

/// Between two reports of rank 0. Real ranks report every second; at this pace the limit for hangs is the
/// same sixty seconds, and weeks pass in seconds.
const REPORT: u64 = 10_000;

impl Fleet {
    fn next(&mut self, track: usize, at: u64, next: Next) {
        let turn = self.tracks[track].turn;
        self.at(at, Happening::Turn { track, turn, next });
    }

    /// A rank is ordered to start.
    pub(super) fn starts(&mut self, start: Start) {
        let Start { seat, fence, rank, ranks, resume, .. } = start;
        let is_there = self.is_there(&seat.worker);
        let Some(track) = self.track_of(&fence) else {
            self.jobs_since.insert((fence.run.clone(), fence.work), self.now);
            if is_there {
                let outcome = Outcome::Done { counts: [].into() };
                let at = self.now + self.costs.job_ms;
                self.at(at, Happening::RankExits { worker: seat.worker, fence, rank, outcome });
            }
            return;
        };
        let now = self.now;
        let it = &mut self.tracks[track];
        if it.incarnation != fence.incarnation {
            let step = resume.map_or(SEED_STEPS, |at| at.step.0);
            it.resume(now, fence.incarnation, ranks, step);
            self.next(track, now + self.costs.start_ms, Next::Begin);
        }
        let it = &mut self.tracks[track];
        it.seats.push(seat);
        assert!(it.seats.len() <= usize::try_from(ranks).unwrap_or(0), "one start for each rank");
        if !is_there {
            // Nobody knows yet that this machine is gone.
            it.turn_to(now, Doing::Dead);
        }
    }

    /// What was planned, and nothing came between.
    pub(super) fn turns(&mut self, track: usize, next: Next) {
        let now = self.now;
        match next {
            Next::Begin => {
                let is_whole = self.tracks[track].is_whole();
                assert!(is_whole, "a gang starts with all its ranks");
                self.tracks[track].saved_at = now;
                self.steps(track);
            }
            Next::Report => {
                self.report(track);
                self.next(track, now + REPORT.max(self.tracks[track].pace()), Next::Report);
            }
            Next::Save => {
                let it = &mut self.tracks[track];
                it.turn_to(now, Doing::Saving);
                it.saved_at = now;
                let step = it.reached(now);
                self.next(track, now + self.costs.save_ms, Next::Saved { step });
            }
            Next::Saved { step } => {
                let fence = self.fence(track);
                let at = now + self.costs.upload_ms;
                self.at(at, Happening::Uploaded { track, fence, step });
                self.steps(track);
            }
            Next::Finish => {
                self.tracks[track].turn_to(now, Doing::Finishing);
                let at = now + self.costs.save_ms + self.costs.upload_ms;
                self.next(track, at, Next::Finished);
            }
            Next::Finished => self.finished(track),
            Next::Left { step } => {
                let it = &mut self.tracks[track];
                it.candidate = Some(step);
                it.turn_to(now, Doing::Dead);
                let fence = self.fence(track);
                let seats = self.tracks[track].seats.clone();
                for (rank, seat) in (0..).zip(seats) {
                    let (fence, worker) = (fence.clone(), seat.worker);
                    let outcome = Outcome::Stopped;
                    self.at(now, Happening::RankExits { worker, fence, rank, outcome });
                }
            }
        }
    }

    /// Steps from now on, to the next checkpoint or to the end.
    fn steps(&mut self, track: usize) {
        let it = &mut self.tracks[track];
        it.turn_to(self.now, Doing::Stepping);
        let save = it.boundary(it.saved_at + self.interval);
        let (finish, first) = (it.finish(), self.now + it.pace());
        self.next(track, first, Next::Report);
        if finish <= save {
            self.next(track, finish, Next::Finish);
        } else {
            self.next(track, save, Next::Save);
        }
    }

    /// Rank 0 says how far its gang is.
    pub(super) fn report(&mut self, track: usize) {
        let it = &self.tracks[track];
        let done = it.reached(self.now);
        let Some(worker) = it.seats.first().map(|seat| seat.worker.clone()) else { return };
        let fence = self.fence(track);
        if self.is_there(&worker) {
            self.tell(Event::Progressed { worker, fence, rank: 0, done, busy_us: 0 });
        }
    }

    /// A checkpoint has arrived in the store.
    pub(super) fn uploaded(&mut self, track: usize, fence: Fence, step: u64) {
        let it = &self.tracks[track];
        let goes_on = match it.doing {
            Doing::Stepping | Doing::Saving | Doing::Finishing | Doing::Leaving => true,
            Doing::Waiting | Doing::Starting | Doing::Dead | Doing::Turning | Doing::Done => false,
        };
        if it.incarnation == fence.incarnation && goes_on {
            self.commit(track, fence, step);
        }
    }

    fn commit(&mut self, track: usize, fence: Fence, step: u64) {
        let it = &mut self.tracks[track];
        it.keep(self.now, step);
        let Some(worker) = it.seats.first().map(|seat| seat.worker.clone()) else { return };
        let Some(model) = fence.work.model() else { return };
        let checkpoint = checkpoint(model, fence.incarnation, step);
        self.tell(Event::CheckpointReported { worker, fence, checkpoint });
    }

    fn finished(&mut self, track: usize) {
        let fence = self.fence(track);
        let due = self.tracks[track].due;
        self.commit(track, fence.clone(), due);
        let now = self.now;
        let it = &mut self.tracks[track];
        it.turn_to(now, Doing::Done);
        it.ended = Some(now);
        let seats = it.seats.clone();
        for (rank, seat) in (0..).zip(seats) {
            let (fence, outcome) = (fence.clone(), Outcome::Done { counts: [].into() });
            self.tell(Event::RankExited { worker: seat.worker, fence, rank, outcome });
        }
    }

    /// A rank is ordered to leave.
    pub(super) fn stops(&mut self, seat: Seat, fence: Fence, rank: u32, save: bool) {
        let (now, costs) = (self.now, self.costs);
        if let Some(track) = self.track_of(&fence) {
            let it = &mut self.tracks[track];
            let is_saving = matches!(it.doing, Doing::Stepping | Doing::Saving);
            if save && is_saving {
                let step = it.reached(now);
                it.turn_to(now, Doing::Leaving);
                self.next(track, now + costs.save_ms + costs.upload_ms, Next::Left { step });
                return;
            }
            if matches!(it.doing, Doing::Leaving | Doing::Finishing) && save {
                // It goes with the others, once it has saved.
                return;
            }
            if it.is_live() {
                it.turn_to(now, Doing::Dead);
            }
        }
        let (worker, outcome) = (seat.worker, Outcome::Stopped);
        self.at(now + costs.stop_ms, Happening::RankExits { worker, fence, rank, outcome });
    }

    /// The core wants to know what an ended gang left.
    pub(super) fn inspects(&mut self, fence: Fence) {
        let Some(track) = self.track_of(&fence) else { return };
        let now = self.now;
        let it = &mut self.tracks[track];
        let candidate = it.candidate.take();
        if it.doing != Doing::Done {
            if let Some(step) = candidate {
                it.keep(now, step);
            }
            it.lose(now);
            it.turn_to(now, Doing::Turning);
        }
        let step = it.kept;
        let model = fence.work.model();
        let newest = model.filter(|_| candidate.is_some());
        let newest = newest.map(|model| checkpoint(model, fence.incarnation, step));
        self.at(now + self.costs.inspect_ms, Happening::Inspected { fence, newest });
    }
}
