//! What is larger than one transaction is done in parts, and every part leaves a valid state.

use super::*;

impl Script {
    /// Lets a coordinator go on with what did not fit.
    fn go_on(&mut self) -> usize {
        let mut parts = 1;
        while step(&mut self.state.clone(), Limits::default(), self.now, Event::Tick).more {
            self.event(Event::Tick);
            parts += 1;
        }
        self.event(Event::Tick);
        parts + 1
    }

    fn running(&self) -> usize {
        let works = self.state.runs.values().flat_map(|run| run.works.values());
        works.filter(|work| matches!(work.phase, Phase::Running(_))).count()
    }
}

/// One worker that holds 150 gangs, each a stored object of its own.
fn packed() -> Script {
    let wide =
        [("experts: 2", "experts: 150"), ("fine: 64", "fine: 150"), ("ranks: 2, ", "ranks: 1, ")];
    let mut script = Script::trained(spec_with(&wide));
    script.attach("w1", 150, vec![]);
    script.go_on();
    assert_eq!(script.running(), 150);
    script.told.clear();
    script
}

#[test]
fn a_worker_all_of_whose_devices_fail_at_once_stops_its_gangs_in_parts() {
    let mut script = packed();
    let withdrawn = (0..150).map(|slot| (slot, "XID 79".to_owned())).collect();
    let (worker, offer) = (WorkerId("w1".into()), offer("w1", 150));
    // `event` holds every step against the bound of a transaction.
    script.event(Event::WorkerAttached { worker, offer, withdrawn, ranks: vec![] });
    assert!(script.running() > 0, "it fitted one part");
    script.go_on();
    assert_eq!(script.running(), 0);
    assert_eq!(script.told.matches("save: true").count(), 150);
}

#[test]
fn a_worker_lost_in_parts_is_blamed_once() {
    let mut script = packed();
    script.event(Event::WorkerDetached { worker: WorkerId("w1".into()) });
    script.at(3_000);
    script.go_on();
    assert_eq!(script.running(), 0);
    let node = &script.state.nodes[&NodeName("n1".into())];
    assert_eq!(node.blame.values().sum::<u32>(), 1, "{node:?}");
}

#[test]
fn a_loss_that_ends_ninety_runs_fits_its_transactions() {
    let mut script = Script::new();
    script.attach("w1", 90, vec![]);
    let named = |at: u32| format!("r{at}").parse().unwrap();
    for at in 0..90 {
        let name = format!("name: r{at}");
        let spec = Box::new(spec_with(&[("name: clipart", &name)]));
        script.event(Event::Applied { spec, tars: 1 });
    }
    assert_eq!(script.running(), 90);
    for at in 0..90 {
        script.event(Event::CancelRequested { run: named(at) });
    }
    script.event(Event::WorkerDetached { worker: WorkerId("w1".into()) });
    script.at(3_000);
    script.go_on();
    let is_over = |run: &Run| run.head.phase == RunPhase::Cancelled;
    assert!(script.state.runs.values().all(is_over));
}

#[test]
fn idle_workers_lost_at_once_are_taken_out_in_parts() {
    let mut script = Script::new();
    for at in 0..250 {
        script.join(&format!("w{at}"));
    }
    script.event(Event::TookLead { term: Term(2) });
    // `event` holds every step against the bound of a transaction.
    script.at(8_000);
    assert!(!script.state.workers.is_empty(), "they fitted one part");
    script.go_on();
    assert!(script.state.workers.is_empty());
}
