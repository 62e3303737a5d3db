use clade_core::ids::{Millis, WorkerId};
use clade_core::schedule::{Event, Limits, step};

use super::*;

fn attach(name: &str) -> Event {
    let (worker, host) = (WorkerId(name.to_owned()), "host".to_owned());
    Event::WorkerAttached { worker, host, pid: 1, slots: 2, ranks: vec![] }
}

#[test]
fn what_was_saved_is_read_back_and_every_open_counts_the_term_up() {
    let folder = tempfile::tempdir().unwrap();
    let document = include_str!("../../../deploy/demo/run.yaml");
    let spec = clade_core::spec::RunSpec::parse(document).unwrap();
    let spec = Box::new(spec);
    let saved = {
        let db = Db::open(folder.path()).unwrap();
        let (mut state, term) = db.take_lead().unwrap();
        assert_eq!(term, Term(1));
        for event in [attach("w1"), attach("w2"), Event::Applied { spec, tars: 3 }] {
            let effects = step(&mut state, Limits::default(), Millis(5), event);
            db.save(&state, &effects.changed).unwrap();
        }
        let gone = Event::WorkerLeft { worker: WorkerId("w2".to_owned()) };
        let effects = step(&mut state, Limits::default(), Millis(6), gone);
        db.save(&state, &effects.changed).unwrap();
        state
    };
    let (read, term) = Db::open(folder.path()).unwrap().take_lead().unwrap();
    assert_eq!(term, Term(2));
    assert_eq!(read.runs, saved.runs);
    assert_eq!(read.workers, saved.workers);
    assert!(read.runs.values().next().unwrap().works.values().any(|work| work.gang().is_some()));
}

#[test]
fn a_state_that_is_held_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let _held = Db::open(folder.path()).unwrap();
    let error = Db::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("state.redb is held by another coordinator"), "{error}");
}
